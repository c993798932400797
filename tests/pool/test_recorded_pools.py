"""Data files with recorded answers as pools: whose answers, at which price, and read how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runs import run
from toy import WordEncoder, toy_examples

from der_graph.data import files as data_files
from der_graph.errors import DERError, ExpertError, PoolError
from der_graph.nodes.recorded import RecordedChat
from der_graph.policies.observation import encoder as encoder_module
from der_graph.pool import check_pool, load_pool


def write(path: Path, models: dict[str, Any], count: int = 3, start: int = 0) -> Path:
    """A data file in which each model answers with its name and the question's number."""
    rows = [
        {
            "id": f"{start + i}",
            "question": f"Question {start + i}?",
            "answer": str(i),
            "candidates": [
                {"model": name, "text": f"{name} {start + i}", "scores": {"right": i % 2}}
                | ({} if cost is None else {"cost": cost * (i + 1)})
                for name, cost in models.items()
            ],
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_costs_come_from_the_rows(tmp_path: Path) -> None:
    pool = load_pool(write(tmp_path / "a.jsonl", {"openai:x y": 0.5, "b": 1.0}))
    assert pool.names == ("openai-x-y", "b")
    assert [expert.cost for expert in pool] == [1.0, 2.0]
    assert pool.settings.cost_unit == "usd"
    (answer,) = pool["openai-x-y"].ask([pool["b"].prompt([], "Question 1?", [], pool["b"].ktp)])  # type: ignore[arg-type]
    assert (answer["text"], answer["cost"]) == ("openai:x y 1", 1.0)
    assert check_pool(tmp_path / "a.jsonl")[1].startswith("b           recorded     b in ")


def test_without_costs_sizes_count_and_else_calls(tmp_path: Path) -> None:
    sized = load_pool(write(tmp_path / "a.jsonl", {"m-7b": None, "m-70b": None}))
    assert ([e.cost for e in sized], sized.settings.cost_unit) == ([7.0, 70.0], "parameters_b")
    calls = load_pool(write(tmp_path / "b.jsonl", {"m-7b": None, "x": None}))
    assert ([e.cost for e in calls], calls.settings.cost_unit) == ([1.0, 1.0], "calls")
    with pytest.raises(PoolError, match="answers of 'x' do not say their cost, and others do"):
        load_pool(write(tmp_path / "c.jsonl", {"m-7b": 1.0, "x": None}))
    with pytest.raises(PoolError, match="carry 'candidates'"):
        load_pool(write(tmp_path / "d.jsonl", {}))
    with pytest.raises(DERError, match=r"none\.jsonl: there is no such file"):
        load_pool(tmp_path / "none.jsonl")


def test_a_pool_file_may_give_costs_only(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"x": 1.0, "y": 1.0})
    write(tmp_path / "b.jsonl", {"x": 1.0, "y": 1.0}, start=3)
    path = tmp_path / "pool.yaml"
    path.write_text(
        "data: [a.jsonl, b.jsonl]\n"
        "experts: [{name: x, cost: 7}, {name: other, model: y}]\nsettings: {cost_unit: usd}\n"
    )
    pool = load_pool(path)
    assert [expert.cost for expert in pool] == [7.0, 2.0]  # what is not given is that of the rows
    assert isinstance(pool["other"].model, RecordedChat)
    assert pool["other"].model.invoke("Question 4?").content == "y 4"
    # Nothing but prices: the command's data files have the answers.
    path.write_text("experts: [{name: x, cost: 7}, {name: y, cost: 1}]\n")
    assert (
        load_pool(path, recorded=[tmp_path / "b.jsonl"])["x"].model.invoke("Question 5?").content
        == "x 5"
    )
    with pytest.raises(PoolError, match="field 'backend' is missing"):
        load_pool(path)
    path.write_text("experts: [{name: x, cost: 7, backend: recorded}]\n")
    with pytest.raises(
        PoolError, match="expert 'x': it replays recorded answers, and there are none"
    ):
        load_pool(path)
    path.write_text("data: gone.jsonl\nexperts: [{name: x, cost: 7}]\n")
    with pytest.raises(PoolError, match=r"pool\.yaml: data 'gone\.jsonl': there is no such file"):
        load_pool(path)
    path.write_text("data: a.jsonl\nexperts: [{name: z, cost: 7}]\n")
    with pytest.raises(ExpertError, match="no answers of a model named 'z', but of: x, y"):
        load_pool(path).preload()


def test_a_pool_file_in_json_is_a_pool_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"x": 1.0})
    path = tmp_path / "pool.json"
    path.write_text(json.dumps({"data": "a.jsonl", "experts": [{"name": "x", "cost": 3}]}))
    assert load_pool(path)["x"].cost == 3.0


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl", {f"m{i}": 1.0 for i in range(20)})
    read: list[Path] = []
    lines = data_files._lines

    def counted(each: Path) -> Any:
        read.append(each)
        return lines(each)

    monkeypatch.setattr(data_files, "_lines", counted)
    pool = load_pool(path, recorded=[path])
    pool.preload()
    examples = data_files.load_examples(path)
    assert len(pool) == 20
    assert len(examples) == 3
    assert read == [path]
    examples.clear()  # the caller's own list
    assert len(data_files.load_examples(path)) == 3
    write(tmp_path / "a.jsonl", {"m0": 1.0}, count=4)
    assert len(data_files.load_examples(path)) == 4  # a changed file is read again


def test_training_and_evaluation_on_a_data_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("stable_baselines3")
    monkeypatch.setattr(
        encoder_module.SentenceEncoder, "encode", lambda self, texts: WordEncoder().encode(texts)
    )
    rows = [
        {
            "id": e.id, "question": e.question, "answer": e.reference,
            "candidates": [
                {"model": "big", "text": e.reference, "scores": {"right": 1}, "cost": 0.01},
                {"model": "org/small", "text": "no" if i % 2 else e.reference, "scores": {"right": 1 - i % 2},
                 "cost": 0.001},
            ],
        }
        for i, e in enumerate(toy_examples(60))
    ]  # fmt: skip
    for name, part in (("train", rows[:40]), ("test", rows[40:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    train, test, cache = tmp_path / "train.jsonl", tmp_path / "test.jsonl", tmp_path / "c.db"
    code = run(
        "train", "--pool", train, "--data", train, "--out", tmp_path / "agent", "--steps", 2048, "--cache",
        cache, "--question-dims", 2, "--quiet",
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "training:" not in printed.err
    code = run(
        "eval", "--pool", train, "--agent", tmp_path / "agent", "--data", test, "--out", tmp_path / "report",
        "--cache", cache, "--metric", "recorded:right", "--baselines", "single", "--json", "-q",
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    report = json.loads(printed.out)
    assert [e["name"] for e in report["pool"]["experts"]] == ["big", "org/small"]
    assert report["pool"]["unit"] == "usd"
