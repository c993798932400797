"""Calls that hang, end the program or come in numbers: nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, scripted_expert
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from der_graph import ChatDER, DERContext, create_der_graph
from der_graph.errors import AllExpertsFailedError, PoolError
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert, without_retries
from der_graph.nodes.reliability import Bulkhead, limit_of
from der_graph.nodes.reliability.bulkhead import BusyError
from der_graph.nodes.reliability.calls import is_only_awaited, runs_on_loop
from der_graph.nodes.reliability.deadline import Limit
from der_graph.pool import pool_from

WAIT = 20.0  # seconds until a test that would hang fails instead


@pytest.fixture
def forever() -> Iterator[threading.Event]:
    """What hung calls wait for; they come back when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def until(condition: Any) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# How long -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "left", "fallback", "usual", "limit"),
    [
        (None, None, "none", None, (None, False)),
        (120.0, None, "expert", None, (120.0, False)),
        (float("inf"), None, "none", None, (None, False)),
        (120.0, 10.0, "none", None, (10.0, True)),
        (120.0, 10.0, "answer", None, (10.0, True)),
        (120.0, 10.0, "expert", None, (6.0, True)),  # a share is held back for another
        (120.0, 10.0, "expert", 2.0, (6.0, True)),
        (120.0, 10.0, "expert", 4.0, (8.0, True)),  # who takes 4 s gets 8
        (120.0, 10.0, "expert", 7.0, (10.0, True)),
        (5.0, 10.0, "expert", None, (5.0, False)),
        (120.0, -1.0, "none", None, (0.0, True)),
    ],
)
def test_how_long_a_call_may_take(
    timeout: float | None, left: float | None, fallback: Any, usual: float | None, limit: Any
) -> None:
    assert tuple(limit_of(timeout, left, fallback, usual)) == limit


def test_who_gave_the_limit_is_said() -> None:
    assert str(Limit(2.0, True).error()) == "deadline: no answer within 2 s"
    assert str(Limit(0.25).error()) == "timeout: no answer within 0.25 s"


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_a_timeout_is_above_zero(timeout: float) -> None:
    with pytest.raises(PoolError, match="expert 'a': timeout is"):
        scripted_expert("a", "5", timeout=timeout)


def test_an_experts_own_timeout_holds_without_any_deadline(forever: threading.Event) -> None:
    slow = as_expert(lambda q: forever.wait(WAIT), name="slow", cost=1.0, timeout=0.1)
    good, _ = scripted_expert("good", "5")
    graph = create_der_graph([slow, good], agent=ScriptedAgent("slow", "good")).compile()
    result = graph.invoke(a_human("2 + 3?"))
    failed = result["route"][0]["answer"]
    assert (failed["error"], failed["failure"]) == ("timeout: no answer within 0.1 s", "timeout")
    assert (failed["cost"], result["answer"]) == (0.0, "5")


def hanging(kind: str, forever: threading.Event) -> Any:
    def function(question: str) -> str:
        forever.wait(WAIT)
        return "late"

    async def coroutine(question: str) -> str:
        await asyncio.sleep(WAIT)
        return "late"

    class Model(FakeListChatModel):
        def _call(self, *args: Any, **more: Any) -> str:
            return function("")

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("work", lambda state: {"messages": [AIMessage(function(""))]})
    builder.add_edge(START, "work")
    made: dict[str, Any] = {
        "function": function,
        "coroutine": coroutine,
        "runnable": RunnableLambda(lambda messages: function("")),
        "chat model": Model(responses=[""]),
        "graph": builder.compile(),
    }
    return made[kind]


@pytest.mark.parametrize("kind", ["function", "coroutine", "runnable", "chat model", "graph"])
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "batch", "ChatDER"])
def test_a_deadline_holds_in_every_way_in_and_another_expert_answers(
    kind: str, way: str, forever: threading.Event
) -> None:
    stuck = as_expert(hanging(kind, forever), name="stuck", cost=1.0)
    good, _ = scripted_expert("good", "5")
    pool, agent = pool_from([stuck, good]), ScriptedAgent("stuck", "good")
    graph, context = create_der_graph(pool, agent=agent).compile(), DERContext(deadline=0.8)
    start = time.monotonic()
    ways: dict[str, Callable[[], list[Any]]] = {
        "invoke": lambda: [graph.invoke(a_human("2 + 3?"), context=context)["answer"]],
        "ainvoke": lambda: [
            asyncio.run(graph.ainvoke(a_human("2 + 3?"), context=context))["answer"]
        ],
        "stream": lambda: [
            list(graph.stream(a_human("Q"), context=context))[-1]["answer"]["answer"]
        ],
        "batch": lambda: [
            each["answer"] for each in graph.batch([a_human("2 + 3?")] * 2, context=context)
        ],
        "ChatDER": lambda: [ChatDER(pool=pool, agent=agent, timeout=0.8).invoke("2 + 3?").content],
    }
    assert set(ways[way]()) == {"5"}
    assert time.monotonic() - start < WAIT / 2


# Bulkheads ----------------------------------------------------------------------------------------


def test_hung_threads_are_counted_and_bounded(forever: threading.Event) -> None:
    bulkhead = Bulkhead(2)
    hung = [bulkhead.run(forever.wait) for _ in range(2)]
    until(lambda: all(future.running() for future in hung))
    waiting = bulkhead.run(lambda: 5)
    bulkhead.abandon(waiting)  # not begun: it never will be
    assert waiting.cancelled()
    for future in hung:
        bulkhead.abandon(future)
    assert bulkhead.hung == 2
    with pytest.raises(BusyError, match="2 earlier calls hang"):
        bulkhead.run(lambda: 5)
    forever.set()
    until(lambda: bulkhead.hung == 0)
    assert bulkhead.run(lambda: 5).result(WAIT) == 5


def test_threads_are_used_again_and_never_more_than_its_size() -> None:
    bulkhead, names, lock = Bulkhead(3), set(), threading.Lock()

    def work() -> None:
        with lock:
            names.add(threading.get_ident())
        time.sleep(0.005)

    for future in [bulkhead.run(work) for _ in range(30)]:
        future.result(WAIT)
    assert 1 <= len(names) <= 3


def test_what_has_never_answered_gets_few_threads() -> None:
    bulkhead, running = Bulkhead(5, untried=2), threading.Semaphore(0)
    release = threading.Event()

    def work() -> None:
        running.release()
        release.wait(WAIT)

    futures = [bulkhead.run(work) for _ in range(5)]
    assert all(running.acquire(timeout=WAIT) for _ in range(2))
    assert not running.acquire(timeout=0.05)
    bulkhead.trust()
    assert all(running.acquire(timeout=WAIT) for _ in range(3))
    release.set()
    for future in futures:
        future.result(WAIT)


def test_an_error_of_any_kind_is_the_futures() -> None:
    def end() -> None:
        raise SystemExit(3)

    bulkhead = Bulkhead(1)
    assert isinstance(bulkhead.run(end).exception(WAIT), SystemExit)
    assert bulkhead.run(lambda: 5).result(WAIT) == 5


def test_hung_calls_keep_nobody_else_waiting(forever: threading.Event) -> None:
    """More of them than the event loop's own executor has threads."""
    stuck = as_expert(hanging("function", forever), name="stuck", cost=1.0)
    quick = as_expert(lambda question: "5", name="quick", cost=1.0)
    bad = create_der_graph([stuck], agent=ScriptedAgent("stuck")).compile()
    good = create_der_graph([quick], agent=ScriptedAgent("quick")).compile()

    async def main() -> str:
        hung = [
            asyncio.create_task(bad.ainvoke(a_human("Q"), context=DERContext(deadline=WAIT)))
            for _ in range(40)
        ]
        await asyncio.sleep(0.05)
        state = await asyncio.wait_for(good.ainvoke(a_human("2 + 3?")), WAIT)
        for task in hung:
            task.cancel()
        await asyncio.gather(*hung, return_exceptions=True)
        return str(state["answer"])

    assert asyncio.run(main()) == "5"


# Ends of the program ------------------------------------------------------------------------------


class Exits(BaseException):
    """Raised by nobody's `except Exception`."""


class ExitingChat(FakeListChatModel):
    """An asynchronous chat model that raises what it was given, whole and streamed."""

    error: BaseException

    def _call(self, *given: Any, **more: Any) -> str:
        raise self.error

    async def _agenerate(self, *given: Any, **more: Any) -> ChatResult:
        raise self.error

    async def _astream(self, *given: Any, **more: Any) -> AsyncIterator[ChatGenerationChunk]:
        raise self.error
        yield


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("model", ["function", "coroutine", "chat"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SystemExit(3), "exit"),
        (KeyboardInterrupt(), "exit"),
        (asyncio.CancelledError(), "cancelled"),
        (StopIteration(), "error"),
        (MemoryError(), "error"),
    ],
)
def test_what_would_end_the_program_ends_the_call(
    error: BaseException, kind: str, model: str, asynchronous: bool
) -> None:
    def raises(question: str) -> str:
        raise error

    async def raises_later(question: str) -> str:
        raise error

    models: dict[str, Any] = {"function": raises, "coroutine": raises_later}
    bad = as_expert(
        models.get(model) or ExitingChat(responses=[], error=error), name="bad", cost=1.0
    )
    good, _ = scripted_expert("good", "5")
    graph = create_der_graph([bad, good], agent=ScriptedAgent("bad", "good")).compile()

    async def streamed() -> dict[str, Any]:
        state: Any = {}
        async for mode, part in graph.astream(
            a_human("2 + 3?"), stream_mode=["messages", "values"]
        ):
            state = part if mode == "values" else state
        return dict(state)

    if asynchronous:
        results = [asyncio.run(graph.ainvoke(a_human("2 + 3?"))), asyncio.run(streamed())]
        if model == "chat" and kind == "cancelled" and sys.version_info < (3, 11):
            kind = "error"  # LangChain takes it for a result, and stumbles over it
    else:
        results = [graph.invoke(a_human("2 + 3?"))]
    for result in results:
        assert result["answer"] == "5"
        assert result["route"][0]["answer"]["failure"] == kind


@pytest.mark.parametrize("signalled", [True, False])
def test_ctrl_c_is_not_the_experts(signalled: bool) -> None:
    """A loop that was made by hand has no handler of its own: the signal raises wherever it is."""

    async def interrupted(question: str) -> str:
        if signalled:
            signal.raise_signal(signal.SIGINT)
        raise KeyboardInterrupt

    expert = as_expert(interrupted, name="interrupted", cost=1.0)
    loop = asyncio.new_event_loop()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        task = loop.create_task(expert.aask([HumanMessage("2 + 3?")]))
        if signalled:
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(task)
            while not task.done():  # each of the tasks inside one another raises it once more
                with contextlib.suppress(KeyboardInterrupt):
                    loop.run_until_complete(asyncio.sleep(0))
        else:
            assert loop.run_until_complete(task)["failure"] == "exit"
    finally:
        signal.signal(signal.SIGINT, before)
        loop.close()


def test_when_a_caller_leaves_nothing_is_recorded() -> None:
    """The caller's own cancellation is not the expert's failure."""
    begun = asyncio.Event()

    async def waits(question: str) -> str:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    expert = as_expert(waits, name="waits", cost=1.0)
    graph = create_der_graph([expert], agent=ScriptedAgent("waits")).compile()

    async def main() -> None:
        for _ in range(4):
            begun.clear()
            task = asyncio.create_task(graph.ainvoke(a_human("2 + 3?")))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert expert.health.view()["state"] == "closed"


# Clients ------------------------------------------------------------------------------------------


def test_clients_do_not_ask_again_unless_they_were_told_to() -> None:
    openai = pytest.importorskip("langchain_openai")
    plain = openai.ChatOpenAI(model="m", api_key="not-a-key", temperature=0.5)
    changed: Any = without_retries(plain, 30.0)
    assert (changed.max_retries, changed.request_timeout, changed.temperature) == (0, 30.0, 0.5)
    assert changed.root_client.max_retries == 0
    assert changed.root_async_client.max_retries == 0
    assert plain.root_client.max_retries == 2  # the user's own object is left alone
    own = openai.ChatOpenAI(model="m", api_key="not-a-key", max_retries=5)
    assert without_retries(own) is own
    timed: Any = without_retries(openai.ChatOpenAI(model="m", api_key="k", timeout=7))
    assert (timed.max_retries, timed.request_timeout) == (0, 7)
    bound: Any = without_retries(plain.bind(stop=["x"]))
    assert (bound.bound.max_retries, bound.kwargs) == (0, {"stop": ["x"]})
    function = RunnableLambda(str)
    assert without_retries(function) is function


# On the loop, or in a thread ----------------------------------------------------------------------


async def later(messages: Any) -> AIMessage:
    return AIMessage("5")


class HalfNative(GenericFakeChatModel):
    async def _agenerate(self, *args: Any, **more: Any) -> Any:
        return self._generate(*args, **more)


class StreamsOnLoop(GenericFakeChatModel):
    async def _astream(self, *args: Any, **more: Any) -> Any:
        for word in ("six", " seven"):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))


class Native(HalfNative):
    async def _astream(self, *args: Any, **more: Any) -> Any:
        for chunk in self._stream(*args, **more):
            yield chunk


def graph_of(node: Any) -> Any:
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("work", node)
    builder.add_edge(START, "work")
    return builder.compile()


@pytest.mark.parametrize(
    ("model", "on_loop"),
    [
        (RunnableLambda(lambda m: "5"), False),
        (RunnableLambda(lambda m: "5", later), True),
        (RunnableLambda(later), True),
        (RunnableLambda(later) | RunnableLambda(lambda m: "5"), False),
        (RunnableLambda(later).with_retry(), True),
        (RunnableLambda(later).with_fallbacks([RunnableLambda(lambda m: "5")]), False),
        (GenericFakeChatModel(messages=iter([])), False),
        (FakeListChatModel(responses=["5"]), False),
        (HalfNative(messages=iter([])), False),  # its stream would run in the loop's executor
        (StreamsOnLoop(messages=iter([])), False),  # unless it is streamed
        (Native(messages=iter([])), True),
        (graph_of(later), True),
        (graph_of(lambda state: {}), False),
        (graph_of(RunnableLambda(lambda state: {})), False),
    ],
)
def test_what_runs_on_the_event_loop(model: Any, on_loop: bool) -> None:
    assert runs_on_loop(model) is on_loop


def test_a_model_that_only_streams_on_the_loop_streams_there() -> None:
    model = StreamsOnLoop(messages=iter([AIMessage("5")]))
    assert runs_on_loop(model.with_retry(), streamed=True)
    expert = Expert("half", model, cost=1.0)
    graph: Any = create_der_graph([expert], agent=ScriptedAgent("half")).compile()

    async def streamed() -> list[str]:
        asked = graph.astream({"messages": [("user", "?")]}, stream_mode="messages")
        return [chunk.text async for chunk, _ in asked if isinstance(chunk, AIMessageChunk)]

    assert "".join(asyncio.run(streamed())) == "six seven"
    said = asyncio.run(graph.ainvoke({"messages": [("user", "?")]}))
    assert said["messages"][-1].text == "5"


def test_all_hung_is_said_as_such(forever: threading.Event) -> None:
    stuck = as_expert(hanging("function", forever), name="stuck", cost=1.0)
    graph = create_der_graph([stuck], agent=ScriptedAgent("stuck")).compile()
    with pytest.raises(AllExpertsFailedError, match=r"stuck: deadline: no answer within 0\.\d+ s"):
        graph.invoke(a_human("2 + 3?"), context=DERContext(deadline=0.3))
    assert stuck.health.view()["hung"] == 1
    forever.set()
    until(lambda: stuck.health.view()["hung"] == 0)


def test_a_graph_that_can_only_be_awaited_is_known_by_its_innermost_node() -> None:
    async def later(state: MessagesState) -> dict[str, Any]:
        return {}

    def now(state: MessagesState) -> dict[str, Any]:
        return {}

    def a_graph(node: Any) -> Any:
        builder = StateGraph(MessagesState)
        builder.add_node("node", node)
        builder.add_edge(START, "node")
        return builder.compile()

    assert is_only_awaited(a_graph(later))
    assert is_only_awaited(a_graph(a_graph(later)))
    assert not is_only_awaited(a_graph(now))
    assert not is_only_awaited(a_graph(a_graph(now)))
