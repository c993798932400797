"""Who hears an expert: the end user, if nothing can follow; else its answer may be a draft."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import an_answer

from der_graph import DERContext
from der_graph.nodes.rules import RouteRules
from der_graph.nodes.streaming import Audiences

RULES = RouteRules(names=("a", "b", "c"), costs=(1.0, 2.0, 4.0), max_steps=3)


@pytest.mark.parametrize(
    ("choice", "asked", "context", "audience"),
    [
        ("a", [], DERContext(), "draft"),
        ("a", [], DERContext(max_steps=1), "final"),
        ("c", ["a", "b"], DERContext(), "final"),
        ("b", ["a"], DERContext(), "draft"),
        ("b", ["a"], DERContext(max_cost=7.0), "draft"),  # 1 + 2 + 4 = 7: c may follow
        ("b", ["a"], DERContext(max_cost=6.9), "final"),
        ("b", ["a"], DERContext(forbidden_experts=["c"]), "final"),
        ("END", ["a"], DERContext(), "all"),
    ],
)
def test_only_what_nothing_can_follow_is_final(
    choice: str, asked: list[str], context: DERContext, audience: str
) -> None:
    answers = [an_answer(name) for name in asked]
    spent = float(len(asked))  # a at 1
    given = Audiences(RULES, "final").of(
        choice, answers, context, spent=spent, elapsed=0.0, refused=()
    )
    assert given == audience


def test_a_price_by_the_token_may_leave_room_for_another() -> None:
    by_token = Audiences(RULES, "final", frozenset({"b"}))
    settings: dict[str, Any] = {"spent": 1.0, "elapsed": 0.0, "refused": ()}
    answers = [an_answer("a")]
    # b at no more than 2, but perhaps at nothing: then c at 4 fits into 6.
    assert by_token.of("b", answers, DERContext(max_cost=6.0), **settings) == "draft"
    assert by_token.of("b", answers, DERContext(max_cost=4.9), **settings) == "final"
    voting = Audiences(RULES, "final", votes=True)
    assert voting.of("b", answers, DERContext(max_steps=2), **settings) == "draft"
    assert by_token.of("b", [], DERContext(), spent=0.0, elapsed=0.0, refused=("a", "c")) == "final"
