"""Datasets and experiments of LangSmith, against a collector on this machine."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, collector
from langsmith import Client
from toy import toy_examples, toy_experts, toy_rules

from der_graph.data import Example
from der_graph.errors import DataError
from der_graph.observability.experiments import (
    langsmith_examples,
    upload_dataset,
    upload_experiment,
)
from der_graph.policies.baselines import Single
from der_graph.policies.evaluation.evaluate import evaluate
from der_graph.policies.quality import get_metric


@pytest.fixture
def got() -> Iterator[Collector]:
    with collector() as listening:
        yield listening


@pytest.fixture
def client(got: Collector) -> Client:
    return Client(api_url=got.url, api_key="none")


def test_questions_go_up_and_come_back(got: Collector, client: Client) -> None:
    examples = toy_examples(3)
    upload_dataset(client, "toys", examples)
    back = langsmith_examples(client, "toys")
    assert [(e.question, e.reference, e.task) for e in back] == [
        (e.question, e.reference, e.task) for e in examples
    ]
    assert len({uuid.UUID(e.id) for e in back}) == 3
    assert len(langsmith_examples(client, "toys", limit=2)) == 2
    with pytest.raises(DataError, match="has a dataset 'toys' already"):
        upload_dataset(client, "toys", examples)
    with pytest.raises(DataError, match="no dataset 'others'"):
        langsmith_examples(client, "others")


def add_example(got: Collector, inputs: Any, outputs: Any) -> None:
    got.datasets["toys"] = [{"id": str(uuid.uuid4()), "inputs": inputs, "outputs": outputs}]


def test_other_names_of_fields(got: Collector, client: Client) -> None:
    add_example(got, {"query": " 2 + 2? ", "more": 1}, {"total": 4})
    (example,) = langsmith_examples(client, "toys")
    assert (example.question, example.reference, example.task) == ("2 + 2?", "4", "")


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ({"a": "1", "b": "2"}, {"answer": "4"}, "inputs are ['a', 'b']"),
        ({"question": " "}, {"answer": "4"}, "inputs are ['question']"),
        ({"question": "2 + 2?"}, None, "outputs are []"),
        (
            {"question": "2 + 2?"},
            {"answer": ["4"]},
            "a text is needed under one of: answer, output",
        ),
    ],
)
def test_examples_that_cannot_be(
    got: Collector, client: Client, inputs: Any, outputs: Any, said: str
) -> None:
    add_example(got, inputs, outputs)
    with pytest.raises(DataError) as caught:
        langsmith_examples(client, "toys")
    assert said in str(caught.value)
    got.datasets["toys"] = []
    with pytest.raises(DataError, match="has no examples"):
        langsmith_examples(client, "toys")


def test_an_evaluation_becomes_experiments(got: Collector, client: Client) -> None:
    experts = toy_experts()
    rules = toy_rules(experts)
    upload_dataset(client, "toys", toy_examples(4))
    examples: list[Example] = langsmith_examples(client, "toys")
    facts = Single(rules.names, rules.costs, "facts")
    found = evaluate(
        experts, facts, examples, get_metric("match"), rules=rules, baselines=["random"]
    )
    names = upload_experiment(client, "toys", found, prefix="first", dollars=True)
    assert names == [f"first-{method.name}" for method in found.methods]
    assert [(p["name"], p["reference_dataset_id"]) for p in got.projects] == [
        (name, got.dataset_id("toys")) for name in names
    ]
    mine = [run for run in got.runs.values() if run["session_name"] == names[0]]
    assert {run["reference_example_id"] for run in mine} == {example.id for example in examples}
    episodes = {examples[e.example].id: e for e in found.episodes[found.methods[0].name]}
    for run in mine:
        episode = episodes[run["reference_example_id"]]
        assert run["outputs"]["answer"] == episode.answers[episode.final]["text"]
        assert run["extra"]["metadata"]["usage_metadata"]["total_cost"] == episode.cost
        scores = {f["key"]: f["score"] for f in got.feedback.values() if f["run_id"] == run["id"]}
        assert scores == {"quality": episode.quality, "cost": episode.cost, "calls": episode.calls}


def test_the_command(
    got: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import langsmith.utils
    from cli_runs import run
    from toy import toy_agent, toy_source

    import der_graph.policies.agent

    remembered: Any = langsmith.utils.get_env_var
    monkeypatch.setenv("LANGSMITH_ENDPOINT", got.url)
    monkeypatch.setenv("LANGSMITH_API_KEY", "none")
    remembered.cache_clear()
    examples = toy_examples(4)
    data = tmp_path / "data.jsonl"
    names = [expert.name for expert in toy_experts()]
    rows = [
        {
            "id": e.id,
            "instruction": e.question,
            "output": e.reference,
            "candidates": [
                {"model": name, "text": "7", "scores": {"accuracy": 0.0}} for name in names
            ],
        }
        for e in examples
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pool = tmp_path / "pool.yaml"
    pool.write_text(
        "experts:\n"
        + "".join(
            f"  - {{name: {e.name}, backend: recorded, data: data.jsonl, cost: {e.cost}}}\n"
            for e in toy_experts()
        )
    )
    monkeypatch.setattr(der_graph.policies.agent, "find_agent", lambda *_: toy_agent(toy_source(8)))
    upload_dataset(Client(), "toys", examples)
    asked = [
        "eval",
        "--pool",
        pool,
        "--agent",
        "a",
        "--out",
        tmp_path / "out",
        "--baselines",
        "none",
    ]
    try:
        assert run(*asked, "--langsmith-dataset", "toys", "--langsmith-experiment", "cli") == 0
        assert run(*asked, "--data", data, "--langsmith-experiment", "cli") == 2
    finally:
        remembered.cache_clear()
    out = capsys.readouterr().err
    assert "in LangSmith: cli-der" in out
    assert "--langsmith-experiment needs --langsmith-dataset" in out
    assert any(project["name"].startswith("cli-der") for project in got.projects)
