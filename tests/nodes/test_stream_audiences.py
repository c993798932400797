"""Who hears an expert: the end user, if nothing can follow; else its answer may be a draft."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import an_answer
from hypothesis import given
from hypothesis import strategies as st

from der_graph import DERContext
from der_graph.nodes.reliability import Fallback
from der_graph.nodes.rules import RouteRules
from der_graph.nodes.streaming import Audiences, Unfenced
from der_graph.nodes.values.json_form import unfenced

RULES = RouteRules(names=("a", "b", "c"), costs=(1.0, 2.0, 4.0), max_steps=3)


@pytest.mark.parametrize("mode", ["live", "final"])
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
    choice: str, asked: list[str], context: DERContext, audience: str, mode: Any
) -> None:
    answers = [an_answer(name) for name in asked]
    spent = float(len(asked))  # a at 1
    fallback: Fallback = "answer" if asked else "none"
    given = Audiences(RULES, mode).of(
        choice, answers, context, fallback=fallback, spent=spent, elapsed=0.0
    )
    if mode == "final" and asked and audience == "final":
        audience = "draft"  # the earlier answer takes its place if it breaks off
    assert given == audience


@pytest.mark.parametrize(
    ("fallback", "steady", "audience"),
    [("none", [], "final"), ("expert", [], "draft"), ("expert", ["a"], "final")],
)
def test_the_final_answer_is_shown_early_only_where_nothing_could_take_its_place(
    fallback: Fallback, steady: list[str], audience: str
) -> None:
    audiences = Audiences(RULES, "final", steady=frozenset(steady))
    one = DERContext(max_steps=1)
    assert audiences.of("a", [], one, fallback=fallback, spent=0.0, elapsed=0.0) == audience


def test_a_price_by_the_token_may_leave_room_for_another() -> None:
    by_token = Audiences(RULES, "live", frozenset({"b"}))
    settings: dict[str, Any] = {"fallback": "answer", "spent": 1.0, "elapsed": 0.0}
    answers = [an_answer("a")]
    # b at no more than 2, but perhaps at nothing: then c at 4 fits into 6.
    assert by_token.of("b", answers, DERContext(max_cost=6.0), **settings) == "draft"
    assert by_token.of("b", answers, DERContext(max_cost=4.9), **settings) == "final"
    voting = Audiences(RULES, "live", votes=True)
    assert voting.of("b", answers, DERContext(max_steps=2), **settings) == "draft"
    settings["refused"] = ("a", "c")
    assert by_token.of("b", [], DERContext(), **settings) == "final"


@pytest.mark.parametrize("mode", ["live", "final"])
def test_who_fails_again_and_again_may_be_back_before_the_answer_is_whole(mode: Any) -> None:
    audiences = Audiences(RULES, mode)
    settings: dict[str, Any] = {"spent": 0.0, "elapsed": 0.0, "unavailable": ("b", "c")}
    assert audiences.of("a", [], DERContext(), fallback="none", **settings) == "draft"


def test_and_is_asked_if_the_last_one_breaks_off() -> None:
    audiences, one = Audiences(RULES, "final"), DERContext(max_steps=1)
    settings: dict[str, Any] = {"fallback": "none", "spent": 0.0, "elapsed": 0.0}
    assert audiences.of("a", [], one, unavailable=("b",), **settings) == "draft"
    assert audiences.of("a", [], one, unavailable=("a",), **settings) == "final"
    failed = [an_answer("b", error="boom")]
    assert audiences.of("a", failed, one, unavailable=("a", "b"), **settings) == "final"
    failed[0]["failure"] = "open"  # it was not asked after all, and may be now
    assert audiences.of("a", failed, one, **settings) == "draft"
    barred = DERContext(max_steps=1, forbidden_experts=["b"])
    assert audiences.of("a", [], barred, unavailable=("b",), **settings) == "final"


@given(
    st.sampled_from(["", "```", "```json", "```JSON\n", " ```json ", "`", "``"]),
    st.text('{"a`j: 1}\n', max_size=12),
    st.sampled_from(["", "```", "\n```\n", "``", "\n"]),
    st.integers(1, 9),
)
def test_json_is_shown_without_its_fence(before: str, inside: str, after: str, size: int) -> None:
    text, shown = before + inside + after, Unfenced()
    pieces = [shown.add(text[i : i + size]) for i in range(0, len(text), size)]
    assert "".join(pieces) == shown.text
    assert unfenced(text).startswith(shown.text)
    if (
        inside.strip()
        and not inside.strip().endswith("`")
        and after != "``"
        and inside.strip()[0] == "{"
    ):
        assert shown.text == unfenced(text)
