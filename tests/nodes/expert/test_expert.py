"""One expert that is asked: its time, its second try, and what is remembered of a call."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, an_answer
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.cache.memory import InMemoryCache
from langgraph.types import CachePolicy
from pydantic import Field

from der_graph import create_der_graph
from der_graph.errors import PoolError
from der_graph.nodes.expert import Expert, worth_keeping
from der_graph.nodes.langchain import as_expert
from der_graph.state import Answer

PROMPT: Any = [HumanMessage("2 + 3?")]


def asked(expert: Expert, asynchronous: bool, **terms: Any) -> Answer:
    """The answer, whichever way the expert is asked."""
    if asynchronous:
        return asyncio.run(expert.aask(PROMPT, **terms))
    return expert.ask([PROMPT], **terms)[0]


# The second try -----------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_second_try_has_what_is_left_of_the_deadline(asynchronous: bool) -> None:
    calls: list[float] = []

    def flaky(messages: Any) -> AIMessage:
        calls.append(time.perf_counter())
        if len(calls) == 1:
            raise ConnectionError("reset")
        time.sleep(3.0)
        return AIMessage("5")

    start = time.perf_counter()
    answer = asked(Expert("a", RunnableLambda(flaky), cost=1.0), asynchronous, time_left=1.2)
    assert len(calls) == 2
    assert answer.get("failure") == "deadline"
    assert time.perf_counter() - start < 2.9  # the model takes 3 s and more


class Local(FakeListChatModel):
    """Says that it ends in time by itself, and fails at first."""

    keeps_max_time: bool = True
    generation: dict[str, Any] = Field(default_factory=dict)
    told: list[float] = Field(default_factory=list)

    def _call(self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any) -> str:
        self.told.append(more["max_time"])
        if len(self.told) == 1:
            raise ConnectionError("reset")
        return "5"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_local_model_is_told_the_rest_at_its_second_try(asynchronous: bool) -> None:
    model = Local(responses=["5"], told=[])
    answer = asked(Expert("a", model, cost=1.0), asynchronous, time_left=10.0)
    assert answer["text"] == "5"
    first, second = model.told
    assert 5 < first <= 10
    assert second < first - 0.3


# An answer that has begun -------------------------------------------------------------------------

CALL = {"name": "add", "args": "{", "id": "c", "index": 0, "type": "tool_call_chunk"}


class Pausing(FakeListChatModel):
    """Streams its first pieces, and then fails or says nothing more."""

    streaming: bool = True
    pieces: list[Any]
    error: Any = None
    calls: list[int] = Field(default_factory=list)
    go: Any = Field(default_factory=threading.Event)

    def _first(self) -> Iterator[ChatGenerationChunk]:
        self.calls.append(1)
        for piece in self.pieces:
            yield ChatGenerationChunk(message=AIMessageChunk(**piece))
        if self.error is not None:
            raise self.error

    def _stream(self, *given: Any, **more: Any) -> Iterator[ChatGenerationChunk]:
        yield from self._first()
        self.go.wait(10.0)

    async def _astream(self, *given: Any, **more: Any) -> AsyncIterator[ChatGenerationChunk]:
        for each in self._first():
            yield each
        await asyncio.Event().wait()


BEGINNINGS = [
    ([], False),
    ([{"content": ""}], False),
    ([{"content": "It is"}], True),
    ([{"content": ""}, {"content": "<think>41?"}], True),
    ([{"content": "", "additional_kwargs": {"reasoning_content": "41?"}}], True),
    ([{"content": [{"type": "thinking", "thinking": "41?"}]}], True),
    ([{"content": "", "tool_call_chunks": [CALL]}], True),
]


def patience(begun: bool) -> float:
    """Seconds in which even a busy machine brings a first piece, where one is to come."""
    return 1.0 if begun else 0.2


@pytest.mark.parametrize(("pieces", "begun"), BEGINNINGS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_that_is_given_up_is_charged_whatever_it_began_with(
    pieces: list[Any], begun: bool, asynchronous: bool
) -> None:
    """Thoughts and calls of tools are not shown, and cost all the same."""
    model = Pausing(responses=[""], pieces=pieces, streaming=True)
    answer = asked(Expert("a", model, cost=2.0, timeout=patience(begun)), asynchronous)
    model.go.set()
    assert (answer.get("failure"), answer["cost"]) == ("timeout", 2.0 if begun else 0.0)


@pytest.mark.parametrize(("pieces", "begun"), BEGINNINGS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_that_breaks_off_is_not_made_again_once_it_is_charged(
    pieces: list[Any], begun: bool, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two calls would be paid and counted nowhere."""
    monkeypatch.setattr("der_graph.nodes.expert.attempt._RETRY_WAIT", 0.01)
    model = Pausing(responses=[""], pieces=pieces, error=ConnectionError("reset"), streaming=True)
    answer = asked(Expert("a", model, cost=2.0), asynchronous)
    assert (answer.get("failure"), answer["cost"]) == ("unavailable", 2.0 if begun else 0.0)
    assert len(model.calls) == (1 if begun else 2)


@pytest.mark.parametrize(("pieces", "begun"), BEGINNINGS)
def test_tokens_of_a_model_inside_an_expert_count_too(pieces: list[Any], begun: bool) -> None:
    model = Pausing(responses=[""], pieces=pieces, streaming=True)

    def inside(messages: Any, config: RunnableConfig) -> Any:
        return model.invoke(messages, config)

    graph: Any = create_der_graph(
        [
            Expert("a", RunnableLambda(inside), cost=2.0, timeout=patience(begun)),
            Expert("b", RunnableLambda(str), cost=1.0),
        ],
        agent=ScriptedAgent("a", "b"),
    ).compile()
    parts = graph.stream(a_human("2 + 3?"), stream_mode=["values", "messages"])
    *_, last = [value for mode, value in parts if mode == "values"]
    model.go.set()
    assert last["route"][0]["answer"]["cost"] == (2.0 if begun else 0.0)


# What its health is told --------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_that_was_given_up_is_counted_once(asynchronous: bool) -> None:
    ended = threading.Event()

    def late(messages: Any) -> AIMessage:
        time.sleep(0.6)
        ended.set()
        raise ConnectionError("reset")

    expert = Expert("a", RunnableLambda(late), cost=1.0, timeout=0.3)
    assert asked(expert, asynchronous).get("failure") == "timeout"
    assert expert.health.breaker.view().failures == 1
    assert ended.wait(5.0)
    while expert.health.bulkhead.hung:
        time.sleep(0.01)
    assert expert.health.breaker.view().failures == 1


# Settings -----------------------------------------------------------------------------------------


class Tool:
    """Known to settings by its address alone."""


class Cleared(dict[str, Any]):
    """As if another thread threw away what was put in at once."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.clear()


def test_another_thread_may_forget_how_a_model_was_called() -> None:
    expert = Expert("a", FakeListChatModel(responses=["5"]), cost=1.0)
    expert.__dict__["_called"] = Cleared()
    assert expert.called_with({"temperature": 0.5}).invoke(PROMPT).text == "5"


def test_tools_live_as_long_as_what_is_known_of_them() -> None:
    """Else another tool at the same address would be taken for them."""
    expert = Expert("a", FakeListChatModel(responses=["5"]), cost=1.0)
    tool = Tool()
    alive = weakref.ref(tool)
    first = expert.called_with({"tools": [tool]})
    del tool
    gc.collect()
    assert (found := alive()) is not None
    assert expert.called_with({"tools": [found]}) is first


# What is kept -------------------------------------------------------------------------------------


def test_what_is_done_to_an_answer_is_part_of_its_key() -> None:
    def key(**reading: Any) -> str:
        return Expert("a", FakeListChatModel(responses=["x"]), 1.0, **reading).cache_key(PROMPT)

    assert key() == key()
    assert len({key(), key(thought_marks=()), key(max_answer_chars=5)}) == 3


@pytest.mark.parametrize(
    ("error", "time_left", "kept"),
    [(None, None, True), (None, 10.0, True), (None, 1.0, False), ("no", None, False)],
)
def test_what_is_worth_keeping(error: str | None, time_left: float | None, kept: bool) -> None:
    answer: Answer = {**an_answer(error=error), "seconds": 0.95}
    assert worth_keeping(answer, time_left) is kept


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_node_cache_does_not_keep_what_a_deadline_cut_short(asynchronous: bool) -> None:
    calls: list[float] = []

    class Cut(FakeListChatModel):
        keeps_max_time: bool = True
        generation: dict[str, Any] = Field(default_factory=dict)

        def _call(
            self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any
        ) -> str:
            calls.append(more["max_time"])
            time.sleep(min(more["max_time"], 0.5))
            return "half of it" if more["max_time"] < 0.5 else "all of it"

    expert = Expert("a", Cut(responses=[""]), cost=1.0)
    builder = create_der_graph([expert], agent=ScriptedAgent("a"))
    builder.nodes["a"].cache_policy = CachePolicy(key_func=lambda task: task["question"])
    graph = builder.compile(cache=InMemoryCache())
    for deadline, text in ((0.4, "half of it"), (30.0, "all of it"), (30.0, "all of it")):
        context: Any = {"deadline": deadline}
        if asynchronous:
            state = asyncio.run(graph.ainvoke(a_human("2 + 3?"), context=context))
        else:
            state = graph.invoke(a_human("2 + 3?"), context=context)
        assert state["answer"] == text
    assert len(calls) == 2


def test_a_model_is_read_by_one_reader_whatever_is_bound_to_it() -> None:
    expert = as_expert(FakeListChatModel(responses=["42"]), name="a", cost=1.0)
    chat: Any = expert.model
    one, two = (expert.carefully(chat.bind(stop=[each])) for each in "xy")
    assert one.bound is two.bound is expert.carefully(chat)  # type: ignore[attr-defined]
    assert [one.kwargs, two.kwargs] == [{"stop": ["x"]}, {"stop": ["y"]}]  # type: ignore[attr-defined]
    assert expert.carefully(chat.model_copy()) is not expert.carefully(chat)


def test_an_error_is_text_that_can_be_written() -> None:
    """Names of files that are no UTF-8 have halves of surrogate pairs."""

    def missing(question: str) -> str:
        raise FileNotFoundError("caf\udce9.txt")

    answer = as_expert(missing, name="m", cost=1).ask([[HumanMessage("q")]])[0]
    assert answer["error"] == "FileNotFoundError: caf\ufffd.txt"


@pytest.mark.parametrize("model", [len, "openai:gpt-4o-mini"])
def test_what_cannot_be_invoked_is_refused_at_once(model: Any) -> None:
    with pytest.raises(PoolError, match=r"expert 'a': its model is a \w+, .* as_expert"):
        Expert("a", model, cost=1.0)
