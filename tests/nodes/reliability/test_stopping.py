"""Nobody listens any more: models stop at their next token."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, parent_of
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from tiny_models import Gate, save_tiny

from der_graph import ChatDER, Expert, create_der_graph
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability import stoppable
from der_graph.nodes.reliability.threads import STOPS


@pytest.fixture
def local(tmp_path: Path) -> tuple[Any, Gate]:
    """A graph with one local model that would speak for 60 tokens."""
    chat = HuggingFaceChat(model=str(save_tiny(tmp_path / "m")), generation={"max_new_tokens": 60})
    expert = Expert("tiny", chat, cost=1.0)
    return create_der_graph([expert], agent=ScriptedAgent("tiny")), Gate(chat)


@pytest.fixture
def told(local: tuple[Any, Gate], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the model go on as soon as it has been told that the stream is closed."""

    class Told(threading.Event):
        def set(self) -> None:
            super().set()
            local[1].closing.set()

    monkeypatch.setattr("der_graph.nodes.reliability.threads.Event", Told)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("nested", [False, True])
def test_closing_a_stream_stops_the_model(local: tuple[Any, Gate], nested: bool) -> None:
    builder, gate = local
    if nested:
        stream: Any = stoppable(
            parent_of(builder).stream(a_human("hello"), stream_mode="messages", subgraphs=True)
        )
    else:
        stream = builder.compile().stream(a_human("hello"), stream_mode="messages")
    next(stream)
    stream.close()
    assert gate.settled() <= 4  # the one that ran is the last


def test_closing_an_asynchronous_stream_stops_the_model(local: tuple[Any, Gate]) -> None:
    builder, gate = local

    async def read_one() -> None:
        stream: Any = builder.compile().astream(a_human("hello"), stream_mode="messages")
        await anext_(stream)
        await stream.aclose()
        gate.closing.set()

    asyncio.run(read_one())
    assert gate.settled() <= 4


async def anext_(stream: Any) -> Any:
    return await stream.__anext__()


@pytest.mark.parametrize("streaming", [False, True])
def test_cancelling_a_task_stops_the_model(local: tuple[Any, Gate], streaming: bool) -> None:
    builder, gate = local
    graph = builder.compile()

    async def read() -> None:
        if streaming:
            async for _ in graph.astream(a_human("hello"), stream_mode="messages"):
                pass
        else:
            await graph.ainvoke(a_human("hello"))

    async def cancelled() -> None:
        task = asyncio.ensure_future(read())
        while gate.steps < 4:  # it waits at the gate
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.closing.set()

    asyncio.run(cancelled())
    assert gate.settled() <= 4


@pytest.mark.usefixtures("told")
def test_what_was_given_up_is_no_answer(local: tuple[Any, Gate]) -> None:
    """A run that goes on later asks the expert again: half an answer is none."""
    builder, gate = local
    graph = builder.compile(checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    stream: Any = graph.stream(a_human("hello"), config, stream_mode="messages")
    next(stream)
    stream.close()
    assert gate.settled() <= 4
    assert not graph.get_state(config).values.get("route")
    assert graph.get_state(config).next == ("tiny",)
    result = graph.invoke(None, config)
    undisturbed = builder.compile().invoke(a_human("hello"))
    assert result["answer"] == undisturbed["answer"]
    assert result["route"][0]["answer"]["output_tokens"] > 4
    assert [step["choice"] for step in result["route"]] == ["tiny", "END"]


def test_any_model_that_streams_is_left_at_its_next_token(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    left = threading.Event()

    class Told(threading.Event):
        def set(self) -> None:
            super().set()
            left.set()

    class Endless(GenericFakeChatModel):
        def _stream(self, *args: Any, **more: Any) -> Iterator[Any]:
            for chunk in super()._stream(*args, **more):
                if len(given) == 3:
                    assert left.wait(10)
                given.append(str(chunk.text))
                yield chunk

    monkeypatch.setattr("der_graph.nodes.reliability.threads.Event", Told)
    expert = Expert("far", Endless(messages=iter([AIMessage(" ".join(["word"] * 50))])), cost=1.0)
    graph = create_der_graph([expert], agent=ScriptedAgent("far")).compile()
    stream: Any = graph.stream(a_human("hello"), stream_mode="messages")
    next(stream)
    stream.close()
    assert len(given) <= 4


def test_errors_and_results_pass_through() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    stream = stoppable(numbers())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="no more"):
        next(stream)
    assert list(stoppable([1, 2])) == [1, 2]


class Late(Exception):
    """What a limit of time raises."""


def too_late(*_: Any) -> None:
    raise Late


def patient(
    go: threading.Event, handled: threading.Event, *, signalled: int
) -> tuple[Expert, threading.Event]:
    """An expert that sends a signal and answers much later, and whether it did."""
    waited = threading.Event()

    def answer(text: str) -> str:
        # Python overlooks a signal that comes between its last look and the moment it begins to wait for a
        # lock; people press Ctrl-C again.
        for _ in range(20):
            os.kill(os.getpid(), signalled)
            if handled.wait(0.5):
                break
        if not go.wait(20):
            waited.set()
        return "late"

    return as_expert(answer, name="patient", cost=1.0), waited


def way_of(name: str, expert: Expert) -> Iterable[Any]:
    """A stream in which the expert is asked."""
    if name == "chat":
        return ChatDER(experts=[expert]).stream("hello")
    other = as_expert(lambda text: "other", name="other", cost=9.0)
    parallel = 2 if name == "parallel" else 1
    agent = ScriptedAgent("patient")
    der = create_der_graph([expert, other], agent=agent, parallel=parallel).compile()
    return der.stream(a_human("hello"), stream_mode=["messages", "custom"])


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Windows wakes no thread that waits")
@pytest.mark.parametrize("way", ["messages", "parallel", "chat"])
@pytest.mark.parametrize("number", ["SIGINT", "SIGALRM"])
def test_a_signal_ends_a_stream_at_once(way: str, number: str) -> None:
    """Ctrl-C, or a limit of time, while an expert keeps the reader waiting."""
    signalled, go, handled = getattr(signal, number), threading.Event(), threading.Event()

    def handle(*_: Any) -> None:
        handled.set()
        raise Late

    before = signal.signal(signalled, handle)
    try:
        expert, waited = patient(go, handled, signalled=signalled)
        with pytest.raises(Late):
            list(way_of(way, expert))
        assert not waited.is_set()
        assert signal.getsignal(signalled) is handle
    finally:
        go.set()
        signal.signal(signalled, before)


def test_a_handler_that_raises_nothing_ends_nothing() -> None:
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        seen.append(number)

    def another(number: int, frame: Any) -> None:
        seen.append(-number)

    def numbers() -> Iterator[bool]:
        signal.raise_signal(signal.SIGINT)
        yield STOPS.get()[-1].is_set()
        signal.signal(signal.SIGINT, another)  # from now on
        yield STOPS.get()[-1].is_set()

    before = signal.signal(signal.SIGINT, note)
    try:
        assert list(stoppable(numbers())) == [False, False]
        assert seen == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is another
    finally:
        signal.signal(signal.SIGINT, before)


def test_streams_in_other_threads_leave_signals_alone() -> None:
    seen: list[Any] = []

    def numbers() -> Iterator[int]:
        seen.append(signal.getsignal(signal.SIGINT))
        yield 1

    thread = threading.Thread(target=lambda: seen.append(list(stoppable(numbers()))))
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT), [1]]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Windows wakes no thread that waits")
def test_nobody_is_asked_once_more_when_the_stream_is_closed() -> None:
    asked: list[str] = []

    def away(text: str) -> str:
        asked.append(text)
        os.kill(os.getpid(), signal.SIGALRM)
        raise ConnectionError("nobody there")

    before = signal.signal(signal.SIGALRM, too_late)
    try:
        with pytest.raises(Late):
            list(way_of("messages", as_expert(away, name="patient", cost=1.0)))
        assert len(asked) == 1
    finally:
        signal.signal(signal.SIGALRM, before)
