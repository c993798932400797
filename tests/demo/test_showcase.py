"""What the demo says about a route."""

from __future__ import annotations

import io

import pytest
from fakes import ScriptedAgent, scripted_expert

from der_graph.data import Example
from der_graph.demo.showcase import show_routes
from der_graph.display import Display
from der_graph.pool import pool_from


@pytest.mark.parametrize(("said", "mark"), [("42", "(right;"), ("41", "(wrong, it is 42;")])
def test_the_answer_that_is_judged_is_the_one_that_is_given(said: str, mark: str) -> None:
    """A failed last call leaves the answer before it standing."""
    good, _ = scripted_expert("good", said)
    down, _ = scripted_expert("down", OSError("down"))
    stream = io.StringIO()
    show_routes(
        pool_from([good, down]),
        ScriptedAgent("good", "down"),  # type: ignore[arg-type]
        [Example("1", "What is 6 * 7?", "42", "sum")],
        Display(stream),
    )
    assert f"=> {said}   {mark}" in stream.getvalue()


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0.0, "$0.00000"), (2.6e-6, "$0.0000026"), (6e-5, "$0.000060"), (0.01234, "$0.01234")],
)
def test_small_amounts_of_money_do_not_look_like_none(amount: float, shown: str) -> None:
    assert Display(io.StringIO(), unit="usd").cost(amount) == shown
