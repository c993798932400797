"""Coroutines of callers without an event loop: one loop for all, which nothing in it takes along."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from asyncio import CancelledError
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human
from langchain_core.runnables import RunnableLambda
from provider_stub import provider

from der_graph import create_der_graph
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability import StreamClosedError, threads
from der_graph.nodes.reliability.threads import waited_for


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no loop that is blocked."""
    monkeypatch.setattr(threads, "_PROMPT", 60.0)


async def this_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_calls_share_one_loop() -> None:
    with ThreadPoolExecutor(4) as pool:
        loops = list(pool.map(lambda _: waited_for(this_loop()), range(4)))
    assert len(set(loops)) == 1


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), ValueError("no"), StreamClosedError(), CancelledError()],
)
def test_what_ends_a_call_does_not_end_the_loop(error: BaseException) -> None:
    async def fails() -> None:
        raise error

    async def inside() -> None:
        await asyncio.create_task(fails())

    home = waited_for(this_loop())
    of_tasks = sys.version_info < (3, 11)  # Python 3.10 keeps no class of a task's cancellation
    kind = CancelledError if of_tasks and isinstance(error, StreamClosedError) else type(error)
    for work in (fails, inside):
        with pytest.raises(kind):
            waited_for(work())
        assert waited_for(this_loop()) is home


def test_a_call_that_blocks_its_loop_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, release = threading.Event(), threading.Event()

    async def blocks() -> None:
        begun.set()
        release.wait()

    home = waited_for(this_loop())
    hung = threading.Thread(target=lambda: waited_for(blocks()), daemon=True)
    hung.start()
    begun.wait()
    monkeypatch.setattr(threads, "_PROMPT", 0.1)
    assert waited_for(this_loop()) is not home
    monkeypatch.setattr(threads, "_PROMPT", 60.0)
    assert waited_for(this_loop()) is not home
    release.set()
    hung.join()
    while waited_for(this_loop()) is not home:
        """It is not back yet."""


def test_a_loop_that_was_blocked_finds_no_fault_with_what_went_elsewhere(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, begun, go = waited_for(this_loop()), threading.Event(), threading.Event()

    async def blocks() -> None:
        begun.set()
        go.wait(5)

    async def elsewhere() -> Any:
        seen = threading.Event()
        home.call_soon_threadsafe(seen.set)  # after what could not begin there
        go.set()
        seen.wait(5)  # so that this is still going then
        return asyncio.get_running_loop()

    blocked = threading.Thread(target=lambda: waited_for(blocks()), daemon=True)
    blocked.start()
    begun.wait(5)
    monkeypatch.setattr(threads, "_PROMPT", 0.1)
    assert waited_for(elsewhere()) is not home
    blocked.join(5)
    assert not caplog.records


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", ["function", "runnable"])
def test_connections_outlive_a_call(kind: str, together: bool) -> None:
    httpx = pytest.importorskip("httpx")
    body = {"model": "m", "messages": []}
    with provider("42", keep_alive=True) as stub:
        client = httpx.AsyncClient()

        async def asks(question: Any) -> str:
            said = (await client.post(f"{stub.url}/chat/completions", json=body)).json()
            return str(said["choices"][0]["message"]["content"])

        model: Any = asks if kind == "function" else RunnableLambda(asks)
        graph = create_der_graph([as_expert(model, name="a", cost=1.0)], agent=ScriptedAgent("a"))
        app = graph.compile()
        asked = [a_human("6 * 7?")] * 4
        found = app.batch(asked) if together else [app.invoke(each) for each in asked]
        assert [each["answer"] for each in found] == ["42"] * 4
        assert len(stub.requests) == 4
        waited_for(client.aclose())


@pytest.mark.parametrize("ending", ["computes", "hangs"])
def test_a_program_ends_beside_work_that_was_given_up(ending: str) -> None:
    """Torch in the middle of something is waited for: else the process is aborted. Who hangs is not."""
    program = """
import sys, threading, time
import torch
from der_graph.nodes.reliability.threads import in_thread

began = threading.Event()

class Model(torch.nn.Module):
    def forward(self, rows):
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            rows @ rows
            began.set()

def computes():
    Model()(torch.ones(700, 700))

def hangs():
    began.set()
    time.sleep(600)

in_thread({"computes": computes, "hangs": hangs}[sys.argv[1]])
began.wait(60)
"""
    given = [sys.executable, "-c", program, ending]
    ended = subprocess.run(given, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
