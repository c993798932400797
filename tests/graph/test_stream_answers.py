"""The law of streams: a reader has seen the answer that `invoke` gives, whatever experts are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from der_graph import ChatDER, DERContext, Expert, create_der_graph
from der_graph.errors import AllExpertsFailedError
from der_graph.nodes.langchain import as_expert
from der_graph.pool import pool_from


class Streaming(GenericFakeChatModel):
    """Says the same whenever it is asked, word by word."""

    text: str
    cut: int | None = None

    def __init__(self, text: str, cut: int | None = None) -> None:
        super().__init__(messages=iter([]), text=text, cut=cut)  # type: ignore[call-arg]

    def _generate(self, *args: Any, **more: Any) -> ChatResult:
        if self.cut is not None:
            raise RuntimeError("the line is dead")
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.text))])

    def _stream(self, *args: Any, **more: Any) -> Iterator[Any]:
        whole = GenericFakeChatModel(messages=iter([AIMessage(self.text)]))
        for number, chunk in enumerate(whole._stream(*args, **more)):
            if self.cut is not None and number >= self.cut:
                raise RuntimeError("the line is dead")
            yield chunk


class Whole(BaseChatModel):
    """Cannot stream."""

    text: str

    @property
    def _llm_type(self) -> str:
        return "whole"

    def _generate(self, *args: Any, **more: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.text))])


def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    function.__name__ = name
    return function


def function(name: str, text: str) -> Any:
    return named(lambda question: text, name)


def coroutine(name: str, text: str) -> Any:
    async def say(question: str) -> str:
        return text

    return named(say, name)


def runnable(name: str, text: str) -> Any:
    return RunnableLambda(lambda messages: AIMessage(text), name=name)


def compiled(name: str, text: str) -> Any:
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node(name, lambda state: {"messages": [AIMessage(text)]})
    builder.add_edge(START, name)
    return builder.compile(name=name)


def chain(name: str, text: str) -> Any:
    return Streaming("thinking aloud") | RunnableLambda(lambda message: AIMessage(text), name=name)


def raising(name: str, text: str) -> Any:
    def fail(question: str) -> str:
        raise OSError("no")

    return named(fail, name)


KINDS: dict[str, Callable[[str, str], Any]] = {
    "function": function,
    "coroutine": coroutine,
    "runnable": runnable,
    "compiled graph": compiled,
    "chain": chain,
    "chat model": lambda name, text: Streaming(text),
    "chat model with spaces": lambda name, text: Streaming(f" \n{text} \n"),
    "chat model that cannot stream": lambda name, text: Whole(text=f" {text} "),
    "chat model that is bound": lambda name, text: Streaming(text).bind(temperature=0),
    "chat model with a config": lambda name, text: Streaming(text).with_config(tags=["mine"]),
    "chat model charged by token": lambda name, text: Streaming(text),
    "chat model with retries": lambda name, text: Streaming(text).with_retry(stop_after_attempt=2),
    "breaks off at once": lambda name, text: Streaming(text, 0),
    "breaks off": lambda name, text: Streaming(text, 2),
    "breaks off, with retries": lambda name, text: Streaming(text, 2).with_retry(
        stop_after_attempt=2, wait_exponential_jitter=False
    ),
    "raises": raising,
    "says nothing": lambda name, text: Streaming("  "),
}


def pool_of(kinds: list[str]) -> list[Expert]:
    """Experts, each with its own words; functions and graphs bear their experts' names."""
    made = []
    for number, kind in enumerate(kinds):
        name = f"expert_{number}"
        text = f"answer number {number} of {kind}"
        prices = (1.0, 2.0) if kind == "chat model charged by token" else None
        made.append(as_expert(KINDS[kind](name, text), name=name, cost=1.0, token_prices=prices))
    return made


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_lone_expert_of_any_kind_is_heard_once(kind: str, asynchronous: bool) -> None:
    def graph() -> Any:
        return create_der_graph(pool_of([kind]), agent=ScriptedAgent("expert_0")).compile()

    whole = outcome(lambda: str(graph().invoke(a_human("Say it"))["answer"]))
    assert outcome(lambda: _joined(graph(), asynchronous)) == whole


def outcome(work: Callable[[], str]) -> str:
    try:
        return work()
    except AllExpertsFailedError:
        return "all failed"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_while_another_is_out_of_order_half_an_answer_is_still_none(asynchronous: bool) -> None:
    def graph() -> Any:
        experts = pool_of(["breaks off", "function"])
        for _ in range(3):
            experts[1].health.breaker.failure("error")
        return create_der_graph(experts, agent=ScriptedAgent("expert_0", "expert_1")).compile()

    whole = str(graph().invoke(a_human("Say it"))["answer"])
    assert whole == "answer number 1 of function"
    assert outcome(lambda: _joined(graph(), asynchronous)) == whole


@settings(deadline=None, max_examples=60)
@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3),
    asked=st.integers(1, 3),
    max_steps=st.integers(1, 4),
    asynchronous=st.booleans(),
    way=st.sampled_from(["graph", "ChatDER"]),
)
def test_what_was_streamed_is_the_answer(
    kinds: list[str], asked: int, max_steps: int, asynchronous: bool, way: str
) -> None:
    script = [f"expert_{i}" for i in range(min(asked, len(kinds)))]

    def graph() -> Any:
        agent = ScriptedAgent(*script)
        return create_der_graph(pool_of(kinds), agent=agent, max_steps=max_steps).compile()

    def whole() -> str:
        return str(graph().invoke(a_human("Say it"))["answer"])

    def streamed() -> str:
        if way == "graph":
            return _joined(graph(), asynchronous)
        pool = pool_from(pool_of(kinds), max_steps=max_steps)
        model = ChatDER(pool=pool, agent=ScriptedAgent(*script))
        if not asynchronous:
            return "".join(str(chunk.content) for chunk in model.stream("Say it"))

        async def later() -> str:
            return "".join([str(chunk.content) async for chunk in model.astream("Say it")])

        return asyncio.run(later())

    assert outcome(streamed) == outcome(whole)


def _joined(graph: Any, asynchronous: bool) -> str:
    if not asynchronous:
        parts = list(graph.stream(a_human("Say it"), stream_mode="messages"))
    else:

        async def later() -> list[Any]:
            stream = graph.astream(a_human("Say it"), stream_mode="messages")
            return [part async for part in stream]

        parts = asyncio.run(later())
    assert len({message.id for message, _ in parts}) <= 1  # one message, with one id
    return "".join(message.text for message, _ in parts)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"raises", "says nothing"}))
def test_with_all_tokens_nothing_is_shown_twice(kind: str) -> None:
    """Whatever was heard of the last expert, the closing message repeats none of it."""
    graph = create_der_graph(
        pool_of([kind]), agent=ScriptedAgent("expert_0"), stream_tokens="all"
    ).compile()
    if kind.startswith("breaks"):
        with pytest.raises(AllExpertsFailedError):
            list(graph.stream(a_human("Say it"), stream_mode="messages"))
        return
    mode: Any = ["messages", "values"]
    heard: dict[Any, str] = {}
    state: Any = {}
    parts: Any = graph.stream(a_human("Say it"), stream_mode=mode)
    for name, part in parts:
        if name == "values":
            state = part
        else:
            heard[part[0].id] = heard.get(part[0].id, "") + part[0].text
    last = state["messages"][-1]
    assert heard[last.id].strip() == last.text == f"answer number 0 of {kind}"
    assert sum(last.text in text for text in heard.values()) == 1


def test_a_bound_by_the_request_is_kept_to_as_well() -> None:
    kinds = ["chat model", "breaks off"]
    graph = create_der_graph(pool_of(kinds), agent=ScriptedAgent("expert_1", "expert_0")).compile()
    for context in (DERContext(max_steps=1), DERContext(stream_tokens="final", max_steps=1)):
        parts: Any = graph.stream(a_human("Say it"), context=context, stream_mode="messages")
        assert "".join(message.text for message, _ in parts) == "answer number 0 of chat model"
