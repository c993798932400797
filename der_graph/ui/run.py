"""What stands behind the page: the models while they load, and the routes that pages are watching.

    Ensemble.load (a thread) ──> graph          Watched: one route, in a task that can be stopped

Gradio's event loop is never blocked: loading has a thread, experts have threads of their own, and what a
route says is gathered while the page is busy drawing, so a fast model makes larger updates instead of a
longer queue.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from der_graph.errors import DERError
from der_graph.graph import create_der_graph
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.reliability import in_thread
from der_graph.pool.pool import Pool, preload
from der_graph.state import DERContext

log = logging.getLogger("der_graph.ui")


@dataclass
class Ensemble:
    """Pool and agent behind a page.

    Attributes:
        pool: The experts.
        load_agent: Gives the agent; called in the thread that loads.
        on_failure: Called when loading has failed.
        note: Where loading is, for people.
        failure: Why loading failed, or None.
    """

    pool: Pool
    load_agent: Callable[[], RoutingAgent]
    on_failure: Callable[[], None] = lambda: None
    note: str = "loading the agent"
    failure: Exception | None = None
    graph: Any = None
    agent: RoutingAgent | None = None
    _settled: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _started: bool = False

    @property
    def settled(self) -> bool:
        """Is loading over, for good or ill?"""
        return self._settled.is_set()

    def start(self) -> None:
        """Begin loading in the background, once."""
        with self._lock:
            if self._started:
                return
            self._started = True
        in_thread(self._load)

    def _load(self) -> None:
        try:
            agent = self.load_agent()
            graph = create_der_graph(self.pool, agent=agent, stream_tokens="final")
            preload(agent, self.pool, self._tell)
            self.agent, self.graph = agent, graph.compile(name="der")
            self.note = "ready"
        except Exception as error:
            self.failure = error
            self.note = f"the models could not be loaded: {words_of(error)}"
            self.on_failure()
        finally:
            self._settled.set()

    def _tell(self, line: str) -> None:
        self.note = line

    async def notes(self) -> AsyncGenerator[str, None]:
        """What loading says, until it is over."""
        told = ""
        while True:
            settled = self.settled  # read first, so that the last note is not missed
            if self.note != told:
                told = self.note
                yield told
            if settled:
                return
            await asyncio.sleep(0.1)


class Watched:
    """One question of one page, and the task that answers it.

    Args:
        ensemble: Who answers.
        messages: The conversation as pairs of role and text; the question last.
        context: Settings of the request.
    """

    def __init__(
        self, ensemble: Ensemble, messages: Sequence[tuple[str, str]], context: DERContext
    ) -> None:
        self._ensemble = ensemble
        self._messages = list(messages)
        self._context = replace(context, stream_tokens="final")
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Stop the route, from any thread: what an expert is generating ends within one token."""
        self._loop.call_soon_threadsafe(self._task.cancel)

    @property
    def stopped(self) -> bool:
        """Was it stopped?"""
        return self._task.cancelled()

    async def _run(self) -> None:
        try:
            async for note in self._ensemble.notes():
                self._parts.put_nowait(("note", note))
            if self._ensemble.failure is not None:
                raise self._ensemble.failure
            stream = self._ensemble.graph.astream(
                {"messages": self._messages},
                {"run_name": "der ui"},
                context=self._context,
                stream_mode=["messages", "custom"],
            )
            async with aclosing(stream):
                async for part in stream:
                    self._parts.put_nowait(part)
        finally:
            self._parts.put_nowait(None)

    async def batches(self) -> AsyncGenerator[list[tuple[str, Any]], None]:
        """What has come since the last batch; ends when the route does, or was stopped.

        Close it to stop the route.

        Raises:
            Exception: What ended the route, if it was not the agent.
        """
        try:
            over = False
            while not over:
                batch = [await self._parts.get()]
                while not self._parts.empty():
                    batch.append(self._parts.get_nowait())
                over = batch[-1] is None
                if parts := [part for part in batch if part is not None]:
                    yield parts
            await asyncio.wait([self._task])
            error = None if self._task.cancelled() else self._task.exception()
            if error is not None:
                raise error
        finally:
            self._task.cancel()


def words_of(error: BaseException) -> str:
    """What a person is told about an error; what is nobody's mistake goes to the log, with its traceback."""
    if isinstance(error, DERError):
        return str(error)
    log.error("internal error", exc_info=error)
    return f"internal error ({type(error).__name__}); the log of the program says more"
