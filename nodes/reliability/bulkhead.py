"""Threads of one expert's own, and a bound: what hangs there harms nobody else.

    work ──run──> Future, from one of at most `size` threads; the surplus waits
    a caller that gives up ──abandon──> the thread is counted as hung until it comes back

Not a `ThreadPoolExecutor`: that one waits for its threads when the program ends, so that one hung call would
keep it from ending. Coroutines need no thread; they take a place (`places`). Knows nothing of experts.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, TypeVar

from der_graph.nodes.reliability.concurrency import Slots
from der_graph.nodes.reliability.copying import renew_in_children

Result = TypeVar("Result")

SIZE = 64
"""Most calls of one expert at the same time, where nothing else is said."""

UNTRIED = 8
"""Most calls at the same time of one that has not answered yet."""

_IDLE = 30.0  # seconds after which a thread without work ends


class BusyError(RuntimeError):
    """All threads hang, so that waiting for one would be in vain."""

    failure_kind = "busy"


class Bulkhead:
    """A bounded number of threads and places.

    Args:
        size: How many of each; at least 1.
        untried: How many of them there are until `trust` is called: what has never answered may be dead, and
            then no more than these find out by trying.
    """

    def __init__(self, size: int = SIZE, untried: int = UNTRIED) -> None:
        self._whole, self.size = size, min(size, untried)
        self.places = Slots(self.size)
        self._begin_without_threads()
        renew_in_children(self._begin_without_threads)

    def _begin_without_threads(self) -> None:
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._threads = self._waiting = 0
        self._abandoned: set[Future[Any]] = set()

    def __reduce__(self) -> tuple[type[Bulkhead], tuple[int]]:
        return Bulkhead, (self._whole,)  # a copy in another process has threads of its own

    def trust(self) -> None:
        """It has answered: let it have all its threads and places."""
        if self.size == self._whole:
            return
        with self._changed:
            more, self.size = self._whole - self.size, self._whole
            for _ in range(min(len(self._work), more)):
                self._begin()
        self.places.grow(more)

    @property
    def hung(self) -> int:
        """Threads whose callers have given up, and which have not come back."""
        return len(self._abandoned)

    def run(self, work: Callable[[], Result]) -> Future[Result]:
        """Do something in one of the threads, in the caller's context.

        Returns:
            Its future. What the work raises is the future's, `SystemExit` and the like included.

        Raises:
            BusyError: If all threads hang.
        """
        future: Future[Result] = Future()
        context = copy_context()
        with self._changed:
            if self.hung >= self.size:
                raise BusyError(f"{self.hung} earlier calls hang, and no more are begun")
            self._work.append((future, lambda: context.run(work)))
            if len(self._work) > self._waiting and self._threads < self.size:
                self._begin()
            else:
                self._changed.notify()
        return future

    def _begin(self) -> None:
        self._threads += 1
        threading.Thread(target=self._serve, name="der-graph-call", daemon=True).start()

    def abandon(self, future: Future[Any]) -> None:
        """Nobody waits for this work any more: it is not begun, or its thread counts as hung till its end."""
        with self._changed:
            if not future.cancel() and not future.done():
                self._abandoned.add(future)

    def _serve(self) -> None:
        while (given := self._next()) is not None:
            future, work = given
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
                with self._changed:
                    self._abandoned.discard(future)
            del given, future, work  # what they hold may be large, and the next may be long

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            while not self._work:
                self._waiting += 1
                came = self._changed.wait(_IDLE)
                self._waiting -= 1
                if not came and not self._work:
                    self._threads -= 1
                    return None
            return self._work.popleft()
