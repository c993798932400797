"""Which numbers an expert takes, and what is said of the others."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from der_graph.errors import PoolError
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability.charge import TokenPrices


def made(**given: Any) -> Expert:
    return as_expert(lambda question: "a", name="a", **{"cost": 1.0, **given})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cost", 0),
        ("cost", np.float32(0.5)),
        ("timeout", float("inf")),
        ("token_prices", (0, 2.5)),
        ("token_prices", TokenPrices(1, 2, cached_input=0.5)),
        ("skill", {"sums": 1, "law": None}),
    ],
)
def test_numbers_that_can_be_counted_with(field: str, value: Any) -> None:
    assert getattr(made(**{field: value}), field) == value


def test_numbers_of_numpy_can_be_kept_in_a_checkpoint() -> None:
    prices = (np.float32(1), np.float64(2))
    most, tokens, second = made(
        cost=np.int64(3), second_price=np.float64(0.5), token_prices=prices
    ).charge
    assert tokens is not None
    assert [type(each) for each in (most, second, *tokens[:2])] == [int, float, float, float]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("cost", "1", "cost is '1'; it must be a number >= 0"),
        ("cost", None, "cost is None; it must be a number >= 0"),
        ("cost", True, "cost is True; it must be a number >= 0"),
        ("cost", -0.5, "cost is -0.5; it must be a number >= 0"),
        ("cost", float("nan"), "cost is nan; it must be a number >= 0"),
        ("cost", 10**400, "cost is 1000.*; it must be a number >= 0"),
        pytest.param("cost", 10**5000, "cost is a very large number; it must be", id="huge"),
        ("cost", Decimal(1), "cost is Decimal.*; it must be a number >= 0"),
        ("second_price", None, "second_price is None; it must be a number >= 0"),
        ("seconds", "2", "seconds is '2'; it must be a number above 0"),
        ("seconds", 0, "seconds is 0; it must be a number above 0"),
        ("timeout", "30s", "timeout is '30s'; it must be a number of seconds above 0"),
        ("context_length", "8k", "context_length is '8k'; it must be at least 1"),
        ("max_answer_chars", "5", "max_answer_chars is '5'; it must be at least 1"),
        ("skill", "good", "skill is 'good'; it is the share"),
        ("skill", {"sums": 2}, "skill on 'sums' is 2; it is the share"),
        ("token_prices", (1,), "token_prices is .*; it must be a pair"),
        ("token_prices", {"input": 1, "output": 2}, "token_prices is .*; it must be a pair"),
        ("token_prices", (-1, 2), "token_prices.input is -1; it must be a number >= 0"),
        ("token_prices", (1, float("nan")), "token_prices.output is nan; it must be a number >= 0"),
        ("token_prices", ("1", 2), "token_prices.input is '1'; it must be a number >= 0"),
        ("token_prices", TokenPrices(1, 2, -1), "token_prices.cached_input is -1; it must be"),
        ("token_prices", TokenPrices(1, 2, minimum=-1), "token_prices.minimum is -1; it must be"),
    ],
)
def test_numbers_that_cannot(field: str, value: Any, said: str) -> None:
    with pytest.raises(PoolError, match=f"expert 'a': {said}"):
        made(**{field: value})
