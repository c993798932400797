"""The best cascades: what they are on tables small enough to work out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from fakes import an_answer
from numpy.typing import NDArray

from der_graph.errors import DataError
from der_graph.policies.baselines.cascades import PRICES, BestCascades
from der_graph.state import Answer, Situation

pytest.importorskip("sklearn")

NAMES = ("small", "medium", "large")
COSTS = (1.0, 2.0, 7.0)


class TwoKinds:
    """An encoder that tells sums from facts and nothing else."""

    name = "two-kinds"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array(
            [[1.0, 0.0] if "+" in text else [0.0, 1.0] for text in texts], dtype=np.float32
        )


QUESTIONS = ["1 + 1", "1 + 2", "1 + 3", "1 + 4", "capital a", "capital b", "capital c", "capital d"]
# Sums: small and medium are right on three, and never share a wrong value; large is always right.
# Capitals: only large knows them, and small and medium agree on nothing.
QUALITIES = [[1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 0, 1], *[[0, 0, 1]] * 4]
VALUES = [
    ["2", "2", "2"], ["3", "3", "3"], ["9", "4", "4"], ["5", "8", "5"], *[["x", "y", "z"]] * 4,
]  # fmt: skip


def fitted(**more: int) -> BestCascades:
    return BestCascades(NAMES, COSTS, TwoKinds(), **more).fit(QUESTIONS, QUALITIES, VALUES)


def seen(question: str, *answers: tuple[str, str | None], price: float = 0.2) -> Situation:
    given: list[Answer] = []
    for expert, value in answers:
        answer = an_answer(expert, value or "none")
        answer["value"] = value
        given.append(answer)
    return Situation(
        question=question, answers=given, mask=[True, True, True, bool(answers)], cost_weight=price
    )


def test_an_order_for_each_kind_of_question() -> None:
    """Sums at price 0.2: small, medium, then large where they differ: quality 1 for 0.3 or 1.0 of asking
    everyone, 0.65 on average; large alone costs 0.7. For capitals large alone is best at any price that it
    is worth."""
    cascades = fitted()
    assert cascades.plan("7 + 7", 0.2) == ["small", "medium", "large"]
    assert cascades.plan("capital q", 0.2) == ["large"]


def test_a_higher_price_asks_for_less() -> None:
    """Sums: small alone is worth 0.75 - 0.1 price, the cascade 1 - 0.65 price: equal at 0.25 / 0.55."""
    cascades = fitted()
    below = max(price for price in PRICES if price < 0.45)
    above = min(price for price in PRICES if price > 0.46)
    assert cascades.plan("7 + 7", below) == ["small", "medium", "large"]
    assert cascades.plan("7 + 7", above) == ["small"]


def test_no_longer_than_is_allowed() -> None:
    """Whoever sets the limit: not the beginning of a longer cascade, but the best that is short enough."""
    alone = ["large"]  # 1 - 0.14 against 0.75 - 0.02
    assert fitted(longest=1).plan("7 + 7", 0.2) == alone
    cascades = fitted()
    assert cascades.plan("7 + 7", 0.2, max_steps=1) == alone
    assert cascades.plan("7 + 7", 0.2, max_steps=9) == ["small", "medium", "large"]
    (choice,) = cascades.decide([replace(seen("1 + 1"), max_steps=1)])
    assert NAMES[choice.index] == "large"


def test_stops_when_two_agree() -> None:
    cascades = fitted()
    situations = [
        seen("1 + 1"),
        seen("1 + 1", ("small", "2")),
        seen("1 + 1", ("small", "2"), ("medium", "2")),
        seen("1 + 3", ("small", "9"), ("medium", "4")),
        seen("1 + 3", ("small", None), ("medium", None)),  # no value agrees with none
        seen("1 + 3", ("small", "9"), ("medium", "4"), ("large", "4")),
    ]
    assert [choice.index for choice in cascades.decide(situations)] == [0, 1, 3, 2, 2, 3]


def test_only_the_experts_worth_most_are_tried() -> None:
    """Of many copies of medium at higher prices none is ever worth asking."""
    names = (*NAMES, "copy1", "copy2")
    cascades = BestCascades(names, (*COSTS, 20.0, 30.0), TwoKinds(), experts=3)
    cascades.fit(
        QUESTIONS,
        [[*row, row[1], row[1]] for row in QUALITIES],
        [[*row, row[1], row[1]] for row in VALUES],
    )
    for price in PRICES:
        assert set(cascades.plan("7 + 7", price)) <= set(NAMES)


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(DataError, match="one question at least"):
        BestCascades(NAMES, COSTS, TwoKinds()).fit([], np.zeros((0, 3)), [])
    with pytest.raises(DataError, match=r"shape \(8, 2\)"):
        BestCascades(NAMES, COSTS, TwoKinds()).fit(QUESTIONS, np.zeros((8, 2)), VALUES)
    with pytest.raises(DataError, match="call fit first"):
        BestCascades(NAMES, COSTS, TwoKinds()).plan("1 + 1")
