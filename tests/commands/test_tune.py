"""`der tune` as a user types it: money as money, and models that have changed behind the answer cache."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli_runs import run
from toy import toy_agent, toy_examples, toy_source

from der_graph.nodes.langchain import as_expert
from der_graph.pool import pool_from


def test_money_and_changed_models_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_agent(toy_source(8)).save_pretrained(tmp_path / "agent")
    examples = toy_examples(30)
    right = {example.question: example.reference for example in examples}
    data = tmp_path / "dev.jsonl"
    lines = [json.dumps({"question": e.question, "answer": e.reference}) for e in examples]
    data.write_text("\n".join(lines))
    good = True

    def pool(name: str, **more: Any) -> Any:
        def answer(question: str) -> str:
            return right[question] if good else "no idea at all"

        names = ("writer", "counter", "facts", "parrot")
        return pool_from(
            [
                as_expert(answer, name=each, cost=0.001, fingerprint=each, max_concurrency=4)
                for each in names
            ],
            cost_unit="usd",
        )

    monkeypatch.setattr("der_graph.pool.load_pool", pool)
    given = (
        "tune", "--pool", "x.yaml", "--agent", tmp_path / "agent", "--data", data, "--target-cost", 0.005,
        "--cache", tmp_path / "c.db", "--points", 2,
    )  # fmt: skip
    assert run(*given) == 0
    printed = capsys.readouterr()
    assert "per 1,000 questions" in printed.out
    assert re.search(r"this agent spends \$\S+ to \$\S+ per 1,000 questions\n", printed.err)
    assert "asked again" not in printed.err  # nothing came from the cache
    good = False
    assert run(*given, "--quiet") == 0
    printed = capsys.readouterr()
    assert "cached answers asked again" in printed.err
    assert all(line.startswith("warning: ") for line in printed.err.splitlines())
    assert run(*given, "--quiet", "--fresh", 0) == 0
    assert capsys.readouterr().err == ""


def test_the_planner_is_tuned_without_an_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = toy_examples(20)
    right = {example.question: example.reference for example in examples}
    data = tmp_path / "dev.jsonl"
    lines = [json.dumps({"question": e.question, "answer": e.reference}) for e in examples]
    data.write_text("\n".join(lines))

    def pool(name: str, **more: Any) -> Any:
        def dear(question: str) -> str:
            return right[question]

        def cheap(question: str) -> str:
            return "a goose"

        return pool_from(
            [
                as_expert(cheap, name="cheap", cost=0.00001, fingerprint="cheap"),
                as_expert(dear, name="dear", cost=0.0001, fingerprint="dear"),
                as_expert(dear, name="dearest", cost=0.02, fingerprint="dearest"),
            ],
            cost_unit="usd",
        )

    monkeypatch.setattr("der_graph.pool.load_pool", pool)
    given = ("tune", "--pool", "x.yaml", "--data", data, "--cache", tmp_path / "c.db")
    # No agent is named, nor by the pool, and only a high price keeps to the cheapest.
    assert run(*given, "--target-cost", 0.00001, "--fresh", 0) == 0
    assert "--cost-weight" in capsys.readouterr().out
    assert run(*given, "--agent", "planner", "--target-quality", 0.9, "--fresh", 0) == 0
    assert "--out" not in capsys.readouterr().out
    assert run(*given, "--target-cost", 0.001, "--out", tmp_path / "tuned") == 2
    assert "--out writes a trained agent" in capsys.readouterr().err
    # Out of any agent's reach: nobody is asked.
    assert run(*given, "--target-quality", 80) == 2
    said = capsys.readouterr().err
    assert "80 is not a quality from 0 to 1; 80 % is 0.8" in said
    assert "price" not in said
