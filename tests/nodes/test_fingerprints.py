"""What answers depend on: a change of it is another fingerprint, anything else is not."""

from __future__ import annotations

import functools
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from provider_stub import remote_model

from der_graph.nodes.fingerprints import fingerprint
from der_graph.nodes.langchain import as_expert

SAID = "first"


def says(text: str) -> Any:
    return lambda question: f"{text}: {question}"


def refers(question: str) -> str:
    return SAID


def test_functions_differ_by_code_closure_defaults_and_globals() -> None:
    global SAID
    assert fingerprint(says("a")) == fingerprint(says("a"))
    assert fingerprint(says("a")) != fingerprint(says("b"))
    before = fingerprint(refers)
    SAID = "second"
    assert fingerprint(refers) != before
    SAID = "first"
    assert fingerprint(refers) == before
    two: Any = [lambda q, n=1: n, lambda q, n=2: n]
    assert fingerprint(two[0]) != fingerprint(two[1])
    assert fingerprint(functools.partial(says, "a")) != fingerprint(functools.partial(says, "b"))
    assert fingerprint(RunnableLambda(says("a"))) != fingerprint(RunnableLambda(says("b")))


def test_models_differ_by_address_and_settings_and_not_by_key() -> None:
    one = fingerprint(remote_model("http://a/v1"))
    assert fingerprint(remote_model("http://a/v1")) == one
    assert fingerprint(remote_model("http://b/v1")) != one
    assert fingerprint(remote_model("http://a/v1", temperature=1)) != one


def test_circles_end() -> None:
    circle: dict[str, Any] = {"name": "x"}
    circle["self"] = circle
    assert len(fingerprint(circle)) == 32


def test_the_key_of_an_answer_knows_settings_and_blocks() -> None:
    expert = as_expert(says("a"), name="e", cost=1.0)
    plain = expert.cache_key([HumanMessage("q")])
    assert expert.cache_key([HumanMessage("q")], {}) == plain
    assert expert.cache_key([HumanMessage("q")], {"temperature": 0}) != plain
    picture: Any = [{"type": "text", "text": "q"}, {"type": "image_url", "image_url": {"url": "a"}}]
    assert expert.cache_key([HumanMessage(picture)]) != plain
    assert as_expert(says("b"), name="e", cost=1.0).cache_key([HumanMessage("q")]) != plain
