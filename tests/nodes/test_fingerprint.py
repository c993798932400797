"""Functions by what they do; no fingerprint where something cannot be seen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

from der_graph.data import Example
from der_graph.nodes.expert.fingerprint import fingerprint_of
from der_graph.nodes.langchain import as_expert
from der_graph.policies.answers import AnswerCache, AnswerSource
from der_graph.policies.quality import get_metric


def defined(code: str, **names: Any) -> Callable[[str], str]:
    """The function `f` of some code."""
    space: dict[str, Any] = {"__name__": "users_module", **names}
    exec(code, space)
    function: Callable[[str], str] = space["f"]
    return function


def said(text: str) -> Callable[[str], str]:
    return lambda question: text


ONE = "def f(q): return q + '1'"
HELPED = "def helper(q): return q + '{0}'\ndef f(q): return helper(q)"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (defined(ONE), defined("def f(q): return q + '2'")),
        (defined(ONE), defined("def f(q): return '1' + q")),
        (defined(HELPED.format(1)), defined(HELPED.format(2))),
        (defined("def f(q): return q + X", X="1"), defined("def f(q): return q + X", X="2")),
        (defined("def f(q, x='1'): return x"), defined("def f(q, x='2'): return x")),
        (said("alpha"), said("beta")),
        (RunnableLambda(said("alpha")), RunnableLambda(said("beta"))),
        (FakeListChatModel(responses=["a"]), FakeListChatModel(responses=["b"])),
    ],
)
def test_what_acts_otherwise_has_another_fingerprint(one: Any, other: Any) -> None:
    assert fingerprint_of(one, {}) != fingerprint_of(other, {})
    assert fingerprint_of(one, {}) == fingerprint_of(one, {}) != ""


class Elsewhere(FakeListChatModel):
    """A provider's model, with an address that its parameters leave out."""

    api_base: str | None = None
    default_headers: dict[str, str] | None = None


def test_a_model_at_another_address_is_another() -> None:
    here, there, nowhere = (
        fingerprint_of(Elsewhere(responses=["a"], api_base=url), {})
        for url in ("http://one/v1", "http://two/v1", None)
    )
    assert len({here, there, nowhere}) == 3
    again = Elsewhere(responses=["a"], api_base="http://one/v1")
    assert fingerprint_of(again, {}) == here
    routed = {"x-route": "large"}  # as gateways choose by
    other = Elsewhere(responses=["a"], api_base="http://one/v1", default_headers=routed)
    assert fingerprint_of(other, {}) != here


def test_the_same_code_is_the_same_function() -> None:
    assert fingerprint_of(defined(ONE), {}) == fingerprint_of(defined(ONE), {})
    again = "def f(q): return f(q[1:]) if q else ''"
    assert fingerprint_of(defined(again), {}) == fingerprint_of(defined(again), {}) != ""


def test_what_cannot_be_seen_has_none_and_is_not_cached(tmp_path: Path) -> None:
    lock, calls = threading.Lock(), []

    def locked(question: str) -> str:
        with lock:
            calls.append(question)
            return "5"

    expert = as_expert(locked, name="a", cost=1.0)
    assert expert.fingerprint == ""
    cache = AnswerCache(tmp_path / "c.db")
    for _ in range(2):
        AnswerSource(
            [expert], [Example("1", "?", "5")], get_metric("match"), cache=cache
        ).first_answers()
    assert calls == ["?", "?"]
    assert cache.stats().answers == 0


def test_two_functions_of_one_name_do_not_share_answers(tmp_path: Path) -> None:
    pool = [as_expert(said(text), name=text, cost=1.0) for text in ("alpha", "beta")]
    cache = AnswerCache(tmp_path / "c.db")
    for _ in range(2):
        source = AnswerSource(pool, [Example("1", "?", "x")], get_metric("match"), cache=cache)
        assert [o.answer["text"] for o in source.first_answers()[0]] == ["alpha", "beta"]
