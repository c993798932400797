"""An event loop that stays, for coroutines whose callers have none.

    coroutine ──waited_for──> its result, from one loop for all such calls of the process

Clients keep connections open, which belong to the loop that opened them. Of a loop for each call, as of
`asyncio.run`, the next call would find a dead connection. Knows nothing of experts.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any, TypeVar

from der_graph.nodes.reliability.threads import in_thread, resolve_futures

Result = TypeVar("Result")

_PROMPT = 1.0  # seconds within which a loop that is not blocked begins something


def waited_for(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in another thread, and wait for it: the caller's may run an event loop already.

    The context goes along, so that what is called is traced below the caller's run, and LangGraph's writer
    finds its stream.
    """
    context = copy_context()
    future = _home.begin(work, context)
    if future is None:
        future = in_thread(lambda: context.run(asyncio.run, work))
    return future.result()


class HomeLoop:
    """A loop in a thread of its own, begun with the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._blocked = False

    def begin(self, work: Coroutine[Any, Any, Result], context: Context) -> Future[Result] | None:
        """Begin something; None if the loop cannot: something in it blocks, instead of awaiting."""
        with self._lock:
            if self._loop is None:
                self._loop = loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_serve, args=(loop,), name="der-graph-loop", daemon=True
                ).start()
        loop = self._loop
        future: Future[Result] = Future()
        begun = threading.Event()

        def start() -> None:
            if future.set_running_or_notify_cancel():
                begun.set()
                loop.create_task(work).add_done_callback(
                    lambda task: resolve_futures([future], lambda: [task.result()])
                )

        if self._blocked:
            return None
        loop.call_soon_threadsafe(start, context=context)
        if begun.wait(_PROMPT) or not future.cancel():
            return future
        self._blocked = True
        loop.call_soon_threadsafe(setattr, self, "_blocked", False)
        return None


_home = HomeLoop()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        # What tries to end the program ends its task, and the task's future says so.
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()
