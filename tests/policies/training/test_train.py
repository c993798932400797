"""Training: it learns known best routes, is repeatable, and refuses what cannot be trained."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import WordEncoder, toy_examples, toy_experts, toy_rules
from training import SMALL, curve, evaluate, quality, train

pytest.importorskip("stable_baselines3")

from der_graph.data import load_examples
from der_graph.errors import AgentError, DataError
from der_graph.policies.agent import DERAgent
from der_graph.policies.answers import AnswerSource, open_cache
from der_graph.policies.baselines import Random, Single
from der_graph.policies.observation import ObservationConfig
from der_graph.policies.quality import get_metric
from der_graph.policies.training import TrainConfig, preset, split_dev, train_agent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[DERAgent, Path]:
    folder = tmp_path_factory.mktemp("run")
    return train(folder), folder


def test_it_learns_the_best_routes(trained: tuple[DERAgent, Path]) -> None:
    """On questions never seen: right everywhere, by the cheapest route to it, far above every baseline."""
    agent, _ = trained
    fresh = toy_examples(40, seed=3)
    episodes = evaluate(agent, fresh)
    assert quality(episodes) >= 0.95
    sums = [e for e in episodes if fresh[e.example].task == "sum"]
    assert np.mean([e.experts == [0, 1] for e in sums]) >= 0.9  # writer, then counter, then END
    facts = [e for e in episodes if fresh[e.example].task == "fact"]
    assert np.mean([e.experts == [2] for e in facts]) >= 0.9
    names, costs = agent.names, agent.observer.costs.tolist()
    singles = [quality(evaluate(Single(names, costs, name), fresh)) for name in names]
    assert max(singles) == pytest.approx(0.5)
    assert quality(evaluate(Random(names, costs, seed=0), fresh)) < 0.7


def test_one_agent_serves_every_price_and_budget(trained: tuple[DERAgent, Path]) -> None:
    """A fact costs 2 of the 3.6 of asking everyone, a sum 1.1: worth it at a price of 0.1, not at 5."""
    agent, _ = trained
    fresh = toy_examples(40, seed=3)
    dear = evaluate(agent, fresh, cost_weight=5.0)
    cheap = evaluate(agent, fresh, cost_weight=0.1)
    assert np.mean([e.cost for e in dear]) < np.mean([e.cost for e in cheap])
    assert quality(cheap) > quality(dear)
    for budget in (0.1, 0.6, 1.2):
        assert all(e.cost <= budget + 1e-9 for e in evaluate(agent, fresh, max_cost=budget))


def test_a_request_for_one_call_gets_the_expert_that_is_right_alone(
    trained: tuple[DERAgent, Path],
) -> None:
    """No sum is right after one call, a fact is: `max_steps` was drawn in training, so the agent knows."""
    agent, _ = trained
    fresh = toy_examples(40, seed=3)
    episodes = evaluate(agent, fresh, max_steps=1)
    assert all(e.calls == 1 for e in episodes)
    facts = [e for e in episodes if fresh[e.example].task == "fact"]
    assert np.mean([e.experts == [2] for e in facts]) >= 0.9
    # The writer's draft is worth nothing without the counter, so the cheapest call is best.
    dear = evaluate(agent, fresh, max_steps=1, cost_weight=2.0)
    sums = [e for e in dear if fresh[e.example].task == "sum"]
    assert np.mean([e.experts == [1] for e in sums]) >= 0.9


def test_what_is_written(trained: tuple[DERAgent, Path]) -> None:
    agent, folder = trained
    assert {"agent.safetensors", "config.json", "progress.csv", "checkpoint.pt"} <= {
        path.name for path in folder.iterdir()
    }
    rows = curve(folder)
    assert float(rows[-1]["rollout/quality"]) > float(rows[0]["rollout/quality"])
    assert sum(1 for row in rows if row["dev/utility"]) >= 3
    # A row per update of 64 * 8 decisions, the last one too.
    assert [int(row["time/steps"]) for row in rows] == list(range(512, 12_289, 512))
    assert rows[-1]["dev/utility"]
    assert rows[-1]["train/approx_kl"]
    assert agent.metadata["training"]["seed"] == 0
    assert agent.metadata["results"]["dev"]["dev/quality"] >= 0.9


@pytest.mark.usefixtures("short_lessons")
def test_the_same_seed_gives_the_same_curve(tmp_path: Path) -> None:
    short = replace(SMALL, steps=2048)
    train(tmp_path / "a", short)
    train(tmp_path / "b", short)
    train(tmp_path / "c", replace(short, seed=1))
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    assert curve(tmp_path / "a") != curve(tmp_path / "c")


@pytest.mark.usefixtures("short_lessons")
def test_nothing_is_left_in_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    train(tmp_path / "run", replace(SMALL, steps=512))
    assert list(temporary.iterdir()) == []


EARLY = replace(SMALL, steps=8192, evaluations=8, patience=2, warm_start="none")


def test_early_stop(tmp_path: Path) -> None:
    """On dev everyone is wrong and nothing costs: the first agent is the best, and two more are no better."""
    experts = [replace(e, cost=0.0) for e in toy_experts()]
    wrong = [replace(e, reference="never") for e in toy_examples(5, seed=2)]
    lines: list[str] = []
    for resume in (False, True):  # resumed, it stops where it had stopped
        train_agent(
            experts, toy_examples(30), wrong, tmp_path, EARLY,
            rules=toy_rules(experts), encoder=WordEncoder(), progress=False, say=lines.append,
            resume=resume,
        )  # fmt: skip
        rows = curve(tmp_path)
        assert [int(row["time/steps"]) for row in rows] == list(range(512, 3 * 1024 + 1, 512))
        assert [bool(row["dev/utility"]) for row in rows] == [False, True] * 3
    assert sum("no better agent in 2 evaluations" in line for line in lines) == 1
    assert "best on dev at step 1,024" in lines[-1]


def test_an_expert_without_a_recorded_answer(tmp_path: Path) -> None:
    """It would pass for a failed call, and its quality for 0."""
    from der_graph.nodes.expert import Expert
    from der_graph.nodes.ktp import TEMPLATES
    from der_graph.nodes.recorded import RecordedChat

    rows = [
        {"id": f"q{i}", "question": f"{i}?", "answer": "1", "candidates": [
            {"model": model, "text": "1", "scores": {"accuracy": 1.0}}
            for model in ("a", "b") if (model, i) != ("b", 2)
        ]}
        for i in range(4)
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    experts = [
        Expert(n, RecordedChat(data=str(path), model=n), cost=1.0, ktp=TEMPLATES["none"])
        for n in "ab"
    ]
    examples = load_examples(path)
    with pytest.raises(DataError, match=r"question 'q2': no recorded answer of 'b'"):
        train_agent(experts, examples[1:], examples[:1], tmp_path / "out", SMALL)


def test_an_unusable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentError, match="the folder cannot be made"):
        train(tmp_path / "file" / "run")


def test_a_second_run_generates_nothing(tmp_path: Path) -> None:
    with open_cache(tmp_path / "answers.db") as cache:
        experts = toy_experts()
        for _ in range(2):
            source = AnswerSource(experts, toy_examples(10), get_metric("match"), cache=cache)
            source.first_answers()
        assert source.generated == 0


def test_no_questions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no dev questions"):
        train_agent(toy_experts(), toy_examples(4), [], tmp_path)


def test_split_dev_is_disjoint_and_seeded() -> None:
    examples = toy_examples(50)
    kept, aside = split_dev(examples, share=0.2, seed=4)
    assert len(aside) == 10
    assert {e.id for e in kept}.isdisjoint(e.id for e in aside)
    assert split_dev(examples, share=0.2, seed=4)[1] == aside


def test_split_dev_sets_questions_aside_that_have_a_reference() -> None:
    """Those without one are left out later, and would leave few to choose the best agent by."""
    half = [
        replace(example, reference=example.reference if i % 2 else " ")
        for i, example in enumerate(toy_examples(40))
    ]
    kept, aside = split_dev(half, share=0.2)
    assert len(aside) == 4
    assert all(example.reference.strip() for example in aside)
    assert len(kept) == 36
    nobody_knows = [replace(example, reference="") for example in half]
    assert len(split_dev(nobody_knows, share=0.2)[1]) == 8


def test_split_dev_keeps_a_question_that_comes_twice_on_one_side() -> None:
    examples = toy_examples(50)
    twice = [*examples, *(replace(e, id=f"again-{e.id}") for e in examples)]
    kept, aside = split_dev(twice, share=0.2, seed=4)
    assert (len(kept), len(aside)) == (80, 20)
    assert {e.question for e in kept}.isdisjoint(e.question for e in aside)


def test_presets() -> None:
    paper = preset("paper", steps=5)
    assert (paper.gamma, paper.clip, paper.reward.gain, paper.steps) == (0.95, 0.3, 5.0, 5)
    with pytest.raises(AgentError, match="choose one of: default, paper"):
        preset("papper")


def test_the_default_learns_from_routes_and_the_papers_from_random_weights() -> None:
    assert (TrainConfig().any_pool, TrainConfig().warm_start) == (False, "routes")
    paper = preset("paper")
    assert (paper.any_pool, paper.warm_start, paper.learning_rate) == (False, "none", 1e-3)
    assert (paper.entropy, paper.hidden, paper.steps) == (0.03, 64, 300_000)
    assert preset("default", any_pool=True).warm_start == "none"
    warm = preset("paper", warm_start="cascades")
    assert (warm.learning_rate, warm.entropy) == (5e-4, 0.005)


def test_settings_that_cannot_be_trained() -> None:
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(AgentError, match="it is a share, from 0 to 1"):
            TrainConfig(short_share=share)
    with pytest.raises(AgentError, match="choose one of the two"):
        TrainConfig(
            any_pool=True, warm_start="none", observation=ObservationConfig(fixed_pool=True)
        )
    with pytest.raises(AgentError, match="steps is 0; it must be at least 1"):
        TrainConfig(steps=0)
    with pytest.raises(AgentError, match="patience is 0"):
        TrainConfig(patience=0)
    with pytest.raises(AgentError, match="question_dims is -1"):
        TrainConfig(observation=ObservationConfig(question_dims=-1))
    with pytest.raises(AgentError, match=r"price of cost is 5, but .* from 0\.02 to 2"):
        TrainConfig(cost_weight=5.0)
    with pytest.raises(AgentError, match="must be above 0"):
        TrainConfig(cost_weight=0.1, cost_weight_range=(0.0, 1.0))
    # A price outside of the usual range is trained for, with those between.
    assert preset("default", cost_weight=5.0).cost_weight_range == (0.02, 5.0)
    # The paper has one price, so another one is that which is trained.
    assert preset("paper", cost_weight=0.5).cost_weight_range == (0.5, 0.5)
