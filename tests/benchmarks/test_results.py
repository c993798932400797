"""`make results`: rows worked out by hand, stages that go on, a page made of JSONs alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from checkout import BENCHMARKS, ROOT, Load, needs_benchmarks
from synthetic_pool import MODELS, write_pool

pytestmark = needs_benchmarks


def unit(
    points: list[Any], *, fold: int = 0, seed: int = 0, routes: Any = None, **training: Any
) -> dict[str, Any]:
    """One training whose `plain` test came to these points: quality, cost, calls by price."""
    plain = {"prices": [0.1, 0.2], "points": points, "ms_per_call": 1.0}
    if routes is not None:
        plain["routes"] = routes
    return {
        "training": training, "fold": fold, "seed": seed, "steps": 100, "seconds": 1.0,
        "tasks": ["gsm", "crux"], "tests": {"plain": plain},
    }  # fmt: skip


DEAR_AND_CHEAP = [[[1.0, 1.0], [50.0, 50.0], [2, 2]], [[0.0, 1.0], [40.0, 40.0], [1, 1]]]


# Ablation tables ----------------------------------------------------------------------------------


def test_quality_at_a_cost_lies_between_the_two_nearest_points(load: Load) -> None:
    tables = load("ablation_tables")
    found = tables.tables([unit(DEAR_AND_CHEAP)])
    row = found["studies"]["max_steps"][0]
    # 47 B is seven tenths of the way from 40 B to 50 B: the first question counts 0.7, the second 1.
    assert row["label"] == "trained for 4"
    assert row["quality"]["estimate"] == pytest.approx(0.85)
    assert row["cost"] == pytest.approx(47.0)
    assert row["calls"] == pytest.approx(1.7)
    assert row["curve"] == [[40.0, 0.5], [50.0, 1.0]]
    assert row["difference"] is None  # with itself


def test_a_condition_is_compared_on_the_same_questions(load: Load) -> None:
    tables = load("ablation_tables")
    cheap = [[[0.0, 0.0], [10.0, 10.0], [1, 1]], [[0.0, 1.0], [5.0, 5.0], [1, 1]]]
    units = [
        unit(DEAR_AND_CHEAP), unit(cheap, questions=50),
        unit(cheap, questions=50, fold=1),  # the standard agent has no second fold: not counted
    ]  # fmt: skip
    rows = {row["label"]: row for row in tables.tables(units)["studies"]["questions"]}
    row = rows["50 questions"]
    assert (row["questions"], row["folds"], row["seeds"]) == (2, 1, 1)
    # Its dearest point, 10 B, is far from the standard agent's cheapest: nothing to compare.
    assert (row["quality"]["estimate"], row["cost"], row["difference"]) == (0.0, 10.0, None)


def test_agents_are_compared_at_the_nearest_cost_that_both_reach(load: Load) -> None:
    tables = load("ablation_tables")
    dear = [[[1.0, 1.0], [60.0, 60.0], [1, 1]], [[0.0, 0.0], [49.0, 49.0], [1, 1]]]
    row = tables.tables([unit(DEAR_AND_CHEAP), unit(dear, beta=5.0)])["studies"]["reward"][1]
    assert row["label"] == "paper's reward, beta 5"
    assert (row["quality"]["estimate"], row["cost"]) == (0.0, 49.0)
    assert row["difference"]["estimate"] == pytest.approx(
        -0.95
    )  # the standard agent: (0.9 + 1) / 2


def test_a_task_left_out_counts_its_own_questions(load: Load) -> None:
    tables = load("ablation_tables")
    units = [unit(DEAR_AND_CHEAP), unit(DEAR_AND_CHEAP, without_task="gsm")]
    rows = {row["label"]: row for row in tables.tables(units)["studies"]["left_out"]}
    assert rows["gsm: never trained on"]["quality"]["estimate"] == pytest.approx(0.7)
    assert rows["crux: trained with it"]["quality"]["estimate"] == 1.0
    assert "crux: never trained on" not in rows


def test_stability_is_the_share_of_questions_with_another_route(load: Load) -> None:
    tables = load("ablation_tables")
    one = unit(DEAR_AND_CHEAP, routes=[["0 9", "0"], ["0", "0"]])
    other = unit(DEAR_AND_CHEAP, seed=1, routes=[["0 9", "3 0"], ["0", "0"]])
    first, second = tables.tables([one, other])["stability"]
    assert first["route"]["estimate"] == 0.5
    assert first["first"]["estimate"] == 0.5
    assert first["last"]["estimate"] == 0.0
    # From the first price to the second: question 1 in the first seed; both in the second.
    assert first["next_price"]["estimate"] == 0.75
    assert second["route"]["estimate"] == 0.0


def test_the_plan_names_every_training_once(load: Load) -> None:
    plan = load("ablation_studies")
    keys = [item.training.key for item in plan.plan()]
    assert len(set(keys)) == len(keys)
    assert keys[0] == "standard"
    assert plan.part(3) == ["gemma-2-2b-it", "Meta-Llama-3.1-70B-Instruct", "Qwen2-72B-Instruct"]
    assert plan.part(11) == list(MODELS)
    jobs = plan.trainings(plan.plan()[:2], folds=2, seeds=1)
    assert [(fold, seed) for _, fold, seed in jobs] == [
        (0, 0),
        (0, 1),
        (0, 0),
        (1, 0),
        (1, 1),
        (1, 0),
    ]


# Bad experts --------------------------------------------------------------------------------------


def test_a_spoiled_expert_is_wrong_in_answers_and_in_qualities(load: Load, tmp_path: Path) -> None:
    folder = write_pool(tmp_path, 20)
    pool = load("recorded_data").load(folder, folder / "vectors.npz")
    at = MODELS.index("gemma-2-9b-it")
    before = pool.first_quality(pool.examples)
    assert 0 < before[:, at].mean() < 1
    for fault in ("noise", "wrong"):
        spoiled = load("bad_experts").spoiled(pool, "gemma-2-9b-it", fault)
        rows = spoiled.source(spoiled.examples).first_answers()
        after = spoiled.first_quality(spoiled.examples)
        assert after[:, at].sum() == 0
        assert (after[:, :at] == before[:, :at]).all()
        answers = [row[at].answer["value"] for row in rows]
        if fault == "wrong":
            # The commonest wrong value of the others, never the reference.
            assert all(v != e.reference for v, e in zip(answers, spoiled.examples, strict=True))
            agreeing = [row[k].answer["value"] for row in rows[:1] for k in range(11) if k != at]
            assert answers[0] in agreeing


# Stages -------------------------------------------------------------------------------------------


@pytest.fixture
def places(load: Load, tmp_path: Path) -> Any:
    data = tmp_path / "data"
    write_pool(data / "recorded_pool", 12)
    runs = tmp_path / "runs"
    runs.mkdir()
    return load("results_stages").Places(data, runs, data / "recorded_pool" / "vectors.npz")


def test_a_result_is_current_until_its_data_or_its_command_changes(
    load: Load, places: Any, tmp_path: Path
) -> None:
    stages = load("results_stages")
    stage = load("results_stages").stage("comparison")
    made = tmp_path / "made.json"
    made.write_text('{"rows": [], "curves": []}', encoding="utf-8")
    assert not stages.is_current(stage, places)
    stages.adopt(stage, made, places)
    assert stages.is_current(stage, places)
    assert not stages.is_current(stage, places, fast=True)
    write_pool(places.data / "recorded_pool", 15)
    assert not stages.is_current(stage, places)


def test_a_stage_runs_once_and_says_when_it_is_skipped(load: Load, places: Any) -> None:
    stages, named = load("results_stages"), load("results_stages").stage
    stage, said = named("large_pool"), list[str]()
    stages.run_all([stage], places, fast=True, say=said.append)
    (row,) = json.loads((places.runs / "large_pool.json").read_text(encoding="utf-8"))
    assert (row["experts"], row["repeats"]) == (10, 5)
    stages.run_all([stage], places, fast=True, say=said.append)
    (places.data / "recorded_pool" / "dev.jsonl.gz").unlink()
    stages.run_all([named("comparison")], places, say=said.append)
    assert re.fullmatch(r"large_pool: \d+\.\d minutes, peak \d+\.\d GB", said[1])
    assert re.fullmatch(r"in all: \d+\.\d minutes, peak \d+\.\d GB", said[2])
    assert said[3] == "large_pool: current"
    assert said[5].startswith("comparison: skipped, dev.jsonl.gz is not in")
    note = json.loads((places.runs / "large_pool.meta.json").read_text(encoding="utf-8"))
    assert type(note["seconds"]) is int
    assert 0.05 < note["peak_gb"] < 10  # Python with torch and NumPy


def test_a_stage_that_fails_names_its_log(
    load: Load, places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = plan = load("results_stages")
    broken = plan.Stage("broken", "broken.json", "benchmarks/speed.py", "--no", "--no")
    with pytest.raises(SystemExit, match=r"stage 'broken' failed with exit code 2; .*broken\.log"):
        stages.run_all([broken], places, say=lambda line: None)
    assert not (places.runs / "broken.meta.json").exists()
    with pytest.raises(SystemExit, match="'nothing' is unknown; stages are: comparison,"):
        plan.stage("nothing")
    with pytest.raises(SystemExit, match="no result of stage 'broken'"):
        stages.adopt(broken, ROOT / "README.md", places)


# The page -----------------------------------------------------------------------------------------


def row(method: str, cost: float, quality: float, price: float | None = None) -> dict[str, Any]:
    return {
        "method": method, "cost_weight": price, "quality": quality, "low": quality - 0.02,
        "high": quality + 0.02, "cost": cost, "calls": 2.0,
    }  # fmt: skip


def comparison(at_47: float) -> dict[str, Any]:
    rows = [
        row("single:large", 70.0, 0.74),
        row("router:knn", 40.0, 0.66, 0.2),
        row("router:knn", 50.0, 0.68, 0.1),
        row("der", 44.0, at_47 - 0.01, 0.2),
        row("der", 50.0, at_47 + 0.01, 0.1),
    ]  # fmt: skip
    curve = [[100, 0.6, 50.0], [200, 0.7, 45.0]]
    runs = [{"fold": 0, "seed": seed, "seconds": 9.0, "curve": curve} for seed in (0, 1)]
    return {"rows": rows, "curves": runs}


def section(text: str, title: str) -> str:
    return text.split(f"### {title}\n")[1].split("\n### ")[0]


def test_a_missed_target_is_called_missed_and_a_met_one_met(load: Load) -> None:
    page = load("results_page").page
    text = section(page({"comparison": comparison(0.72)}, {}), "Quality against cost")
    assert "**Missed**: 0.7200 [0.700, 0.740] at 47 B. The interval contains it." in text
    assert "DER first reaches 0.73 at 50.0 B." in text
    # At 45 B: DER 0.7133, the router 0.67.
    assert (
        "**Met**: the best of them is `router:knn` with 0.670, and DER is +4.3 points from it."
        in text
    )
    assert "No point of a router is above DER's curve" in text
    text = section(page({"comparison": comparison(0.74)}, {}), "Quality against cost")
    assert "**Met**: 0.740" in text
    text = section(page({"comparison": comparison(0.66)}, {}), "Quality against cost")
    assert "DER does not reach 0.73 at any price of its knob." in text
    assert (
        "Points of routers above DER's curve: router:knn at 50.0 B (0.680 against 0.670)." in text
    )


def test_a_section_without_data_says_so_and_nothing_else(load: Load) -> None:
    text = load("results_page").page({}, {})
    written = (BENCHMARKS / "results.md.jinja").read_text(encoding="utf-8")
    titles = re.findall(r"^### (.+)", text, re.M)
    assert titles == re.findall(r'\b(?:section|ablation)\("(.+?)"', written)
    assert text.count("Not measured yet: `make results`.") == len(titles)
    for stage in load("results_stages").STAGES:  # nothing is measured that the page does not show
        assert f"```bash\n{stage.shown()}\n```" in text, stage.name
    assert "|" not in text
    assert "![" not in text


def test_the_share_of_the_gain_is_over_all_prices(load: Load) -> None:
    rows = [
        {"cost_weight": 0.1, "share": 0.5, "quality": {"without": 0.5, "added": 0.6, "trained": 0.7},
         "cost": {"without": 10.0, "added": 11.0, "trained": 12.0}},
        {"cost_weight": 0.2, "share": float("nan"), "quality": {"without": 0.5, "added": 0.6, "trained": 0.5},
         "cost": {"without": 10.0, "added": 11.0, "trained": 12.0}},
    ]  # fmt: skip
    text = section(
        load("results_page").page({"new_expert": {"rows": rows}}, {}), "An expert that joins later"
    )
    assert "the expert brings +0.100; adding it by probes brings +0.100: 100% of it" in text
    assert "target of 50% is **met**" in text
    assert "At the same cost" not in text  # the knobs overlap nowhere
    assert "| 0.2 | 0.500 at 10.0 B | 0.600 at 11.0 B | 0.500 at 12.0 B | – |" in text


def test_the_same_results_give_the_same_files(load: Load, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    units = [
        unit(DEAR_AND_CHEAP),
        unit(DEAR_AND_CHEAP, questions=50),
        unit(DEAR_AND_CHEAP, questions=800),
    ]
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "comparison.json").write_text(json.dumps(comparison(0.72)), encoding="utf-8")
    made = load("ablation_tables").tables(units)
    (runs / "ablations.json").write_text(json.dumps(made), encoding="utf-8")
    for copy in ("a", "b"):
        load("results").main(["--render", "--runs", str(runs), "--docs", str(tmp_path / copy)])
    files = sorted(f.relative_to(tmp_path / "a") for f in (tmp_path / "a").rglob("*.*"))
    drawn = [file.stem for file in files if file.suffix == ".png"]
    assert drawn == [
        f"results-{name}"
        for name in (
            "clones",
            "left-out",
            "max-steps",
            "pool-size",
            "quality-cost",
            "questions",
            "reward",
            "training",
        )
    ]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    text = (tmp_path / "a" / "results.md").read_text(encoding="utf-8")
    for file in files:
        if file.suffix == ".png":
            assert f"]({file.as_posix()})" in text


def test_every_ablation_section_reads_its_rows(load: Load) -> None:
    units = [unit(DEAR_AND_CHEAP, routes=[["0", "0"]] * 2), unit(DEAR_AND_CHEAP, questions=50)]
    found = load("ablation_tables").tables(units)
    text = section(
        load("results_page").page({"ablations": found}, {}), "Number of training questions"
    )
    assert (
        "| 50 questions | 2 | 1 | 0.850 [0.700, 1.000] | 47.0 | 1.70 | +0.000 [+0.000, +0.000] |"
        in text
    )
    assert "Not distinguishable from the standard agent: 50 questions." in text


# All of it ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_fast_variant_measures_and_writes_the_page(
    load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    write_pool(tmp_path / "data" / "recorded_pool", 60)
    arguments = [
        "--fast", "--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"),
        "--vectors", str(tmp_path / "data" / "recorded_pool" / "vectors.npz"),
        "--only", "comparison,new_expert,ablations",
    ]  # fmt: skip
    load("results").main(arguments)
    text = (tmp_path / "runs" / "docs" / "results.md").read_text(encoding="utf-8")
    for title in ("Quality against cost", "Longest route", "An expert that joins later"):
        assert "| " in section(text, title)
    assert "Not measured yet" in section(text, "Under a deadline")
    capsys.readouterr()
    load("results").main(arguments)
    assert capsys.readouterr().out.count(": current") == 3
