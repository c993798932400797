"""Conversations in data files, and training on them: as in the graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import scripted_expert
from toy import toy_agent, toy_experts, toy_rules

from der_graph import create_der_graph
from der_graph.data import Example, load_examples
from der_graph.errors import DataError
from der_graph.policies.answers import AnswerSource
from der_graph.policies.quality import get_metric
from der_graph.policies.training import run_routes
from der_graph.state import END_CHOICE

HISTORY = (("system", "Be brief."), ("user", "I have 3 pebbles."), ("assistant", "Noted."))


def test_training_takes_the_route_of_the_graph_with_history_too() -> None:
    examples = [
        Example(f"e/{i}", question, "x", history=HISTORY[: i % 4])
        for i, question in enumerate(
            [
                "I find 4 pebbles more.",
                "What is the colour of thing 7?",
                "And 3 pebbles and 4 pebbles?",
            ]
            * 4
        )
    ]
    source = AnswerSource(toy_experts(), examples, get_metric("match"))
    agent = toy_agent(source)
    der = create_der_graph(source.experts, agent=agent, max_steps=3).compile()
    roles = {"system": "system", "user": "user", "assistant": "assistant"}
    for example, episode in zip(
        examples, run_routes(agent, source, toy_rules(source.experts)), strict=True
    ):
        turns = [(roles[role], text) for role, text in example.history]
        state = der.invoke({"messages": [*turns, ("user", example.question)]})
        asked = [step["choice"] for step in state["route"]]
        assert asked == [*(source.experts[i].name for i in episode.experts), END_CHOICE]
        assert state["answer"] == episode.answers[episode.final]["text"]


def test_the_source_prompts_with_the_history() -> None:
    expert, model = scripted_expert("small", "5")
    example = Example("e", "And twice that?", "5", history=HISTORY)
    source = AnswerSource([expert], [example], get_metric("match"))
    assert source.questions == ["And twice that?\nI have 3 pebbles.\nAnd twice that?"]
    source.first_answers()
    assert [(m.type, m.text) for m in model.prompts[0]] == [
        ("system", "Be brief."),
        ("human", "I have 3 pebbles."),
        ("ai", "Noted."),
        ("human", "And twice that?"),
    ]


def test_a_data_file_may_hold_conversations(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    turns = [{"role": role, "content": text} for role, text in HISTORY]
    rows = [
        {"question": "And twice that?", "answer": "6", "history": turns},
        {"question": "2 + 3?", "answer": "5"},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert [example.history for example in load_examples(path)] == [HISTORY, ()]


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("Hello", '"history" is a str; it must be a list'),
        (["Hello"], 'turn 1 of "history" is Hello; it must be'),
        (
            [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}],
            'turn 2 of "history"',
        ),
        ([{"role": "user", "content": "  "}], 'turn 1 of "history"'),
        ([{"role": ["user"], "content": "a"}], 'turn 1 of "history"'),
    ],
)
def test_a_history_of_another_layout_is_refused(tmp_path: Path, history: Any, message: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"question": "x", "answer": "y", "history": history}))
    with pytest.raises(DataError, match=f"line 1: {message}"):
        load_examples(path)
