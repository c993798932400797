"""References by agreement: who is right where nobody says."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import said, scripted_expert

from der_graph.data import Example
from der_graph.errors import DataError
from der_graph.policies.quality import get_metric
from der_graph.policies.training.agreement import agreed_examples, agreed_values
from der_graph.state import Answer

NAMES = ("a", "b", "c")
EXPERTS = [scripted_expert(name, "It is 7.")[0] for name in NAMES]


def row(*values: str | None) -> list[Answer]:
    return [said(name, value) for name, value in zip(NAMES, values, strict=True)]


def test_the_majority_stands_and_where_nobody_agrees_nothing_does() -> None:
    rows = [row("7", "7", "8"), row("7", "8", "9"), row("7", "7", "7"), row(None, None, None)]
    assert agreed_values(EXPERTS, rows) == ["7", None, "7", None]


def test_the_better_ones_count_more() -> None:
    """Two that are often right outvote three that are mostly wrong, once many rows have shown it."""
    rng = np.random.default_rng(0)
    names = ("a", "b", "c", "d", "e")
    rates = (0.95, 0.95, 0.3, 0.3, 0.3)
    experts = [scripted_expert(name, "7")[0] for name in names]

    def answer(name: str, rate: float) -> Answer:
        return said(name, "right" if rng.random() < rate else f"{rng.integers(9)}")

    rows = [[answer(n, p) for n, p in zip(names, rates, strict=True)] for _ in range(200)]
    odd = [said("a", "right"), said("b", "right"), *(said(n, "4") for n in "cde")]
    found = agreed_values(experts, [*rows, odd])
    assert found[-1] == "right"
    assert found.count("right") > 170


def test_failed_calls_agree_with_nobody() -> None:
    answers = [said("a", "7"), said("b", "7"), said("c", None, error="timeout")]
    assert agreed_values(EXPERTS, [answers]) == ["7"]


def test_examples_get_the_agreed_value_for_the_metric() -> None:
    said_: list[str] = []
    kept = agreed_examples(EXPERTS, [Example("1", "What?", "not looked at")], say=said_.append)
    assert [example.reference for example in kept] == ["7"]
    assert said_ == ["experts agree on 1 of 1 questions; the others are left out"]
    metric = get_metric("agreement")
    assert metric.score([said("a", "7"), said("a", "8"), said("a", None)], kept * 3) == [
        1.0,
        0.0,
        0.0,
    ]


def test_too_few_experts_and_no_agreement() -> None:
    with pytest.raises(DataError, match="needs three experts at least"):
        agreed_examples(EXPERTS[:2], [Example("1", "What?", "")])
    apart = [scripted_expert(name, f"It is {i}.")[0] for i, name in enumerate(NAMES)]
    with pytest.raises(DataError, match="agree on nothing"):
        agreed_examples(apart, [Example("1", "What?", "")])
