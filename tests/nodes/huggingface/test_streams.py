"""Streams of a local model, and how it is stopped: by closing, cancelling, and the clock."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from tiny_models import QUESTIONS, Gate, Spy, slow

from der_graph.nodes.huggingface import HuggingFaceChat


def test_an_error_while_streaming_comes_at_once(chat: HuggingFaceChat, spy: Spy) -> None:
    def broken(**_: Any) -> Any:
        raise RuntimeError("the device is gone")

    spy.original = broken
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(chat.stream("hello"))

    async def later() -> None:
        async for _ in chat.astream("hello"):
            pass

    with pytest.raises(RuntimeError, match="the device is gone"):
        asyncio.run(later())
    with pytest.raises(RuntimeError, match="the device is gone"):
        asyncio.run(chat.ainvoke("hello"))
    assert time.monotonic() - start < 30  # and not when somebody gives up waiting


def test_closing_a_stream_stops_the_model(fresh: HuggingFaceChat) -> None:
    gate = Gate(fresh)
    stream: Any = fresh.stream("hello")
    next(stream)
    stream.close()
    gate.closing.set()
    assert gate.settled() <= 4  # of 60; the one that ran is the last


@pytest.mark.parametrize("way", ["stream", "invoke", "batch"])
def test_cancelling_a_task_stops_the_model(fresh: HuggingFaceChat, way: str) -> None:
    gate = Gate(fresh)

    async def stream() -> None:
        async for _ in fresh.astream("hello"):
            pass

    async def cancelled() -> None:
        calls: dict[str, Any] = {
            "stream": stream,
            "invoke": lambda: fresh.ainvoke("hello"),
            "batch": lambda: fresh.abatch(["a", "b"]),
        }
        task = asyncio.ensure_future(calls[way]())
        while gate.steps < 4:  # it waits at the gate
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.closing.set()

    asyncio.run(cancelled())
    assert gate.settled() == 4  # of 60


def test_max_time_cuts_the_answer(fresh: HuggingFaceChat) -> None:
    slow(fresh)
    message = fresh.invoke("hello", max_time=0.1)
    assert 0 < message.usage_metadata["output_tokens"] < 30  # type: ignore[index]
    assert message.response_metadata["finish_reason"] == "length"


def test_threads_take_turns(chat: HuggingFaceChat) -> None:
    expected = [chat.invoke(question).content for question in QUESTIONS]
    found: dict[int, Any] = {}

    def ask(index: int) -> None:
        found[index] = chat.invoke(QUESTIONS[index]).content

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(8)] == expected
