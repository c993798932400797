"""Where calls wait for a busy model, to go on together.

    call ──join──> [ waiting ] ──model is free──> all that wait, in one batch

A call that finds the model free goes at once, so nothing is slower than without a line; those that come
meanwhile are the next batch: the busier the model, the larger its batches. No clock is involved, unless a
caller knows that others are on their way (`crowd`): the line then waits for a short quiet moment, so that the
first of many does not go alone. Knows nothing of models.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, Protocol

from der_graph.nodes.threads import in_thread, settle


class Cancellable(Protocol):
    """A request that its caller can give up."""

    @property
    def cancel(self) -> threading.Event | None:
        """Set when nobody waits for the answer any more."""


AnswerTogether = Callable[[Sequence[Any], None], Sequence[Any]]
"""Answers all requests in one go; a result that is an exception belongs to its request alone."""


_CROWD: ContextVar[int] = ContextVar("der_graph_crowd", default=1)

_QUIET = 0.05  # seconds without an arrival after which the others of a crowd are not waited for


@contextmanager
def crowd(number: int) -> Iterator[None]:
    """Let the lines know that so many calls are made at the same time in this context."""
    token = _CROWD.set(number)
    try:
        yield
    finally:
        _CROWD.reset(token)


class _Waiting(NamedTuple):
    request: Cancellable
    future: Future[Any]
    answer_all: AnswerTogether
    crowd: int


class WaitingLine:
    """Calls from any number of threads and event loops, answered in batches by one thread at a time.

    Args:
        quiet: Seconds without an arrival after which the others of a crowd are not waited for.
    """

    def __init__(self, quiet: float = _QUIET) -> None:
        self._line: deque[_Waiting] = deque()
        self._busy = False
        self._lock = threading.Condition()
        self._quiet = quiet

    def join(self, request: Cancellable, answer_all: AnswerTogether, at_most: int) -> Future[Any]:
        """Wait for an answer.

        Args:
            request: What to answer. Once its `cancel` is set it is not begun any more, and its future
                fails with `CancelledError`.
            answer_all: Answers this request and others that came with the same function.
            at_most: Most requests that it takes at once.

        Returns:
            The future answer.
        """
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # a caller that gives up sets `cancel`, not the future
        with self._lock:
            self._line.append(_Waiting(request, future, answer_all, _CROWD.get()))
            self._lock.notify_all()
            first, self._busy = not self._busy, True
        if first:
            in_thread(lambda: self._serve(at_most))
        return future

    def _serve(self, at_most: int) -> None:
        while part := self._next(at_most):
            answer = partial(part[0].answer_all, [each.request for each in part], None)
            settle([each.future for each in part], answer)
            del part, answer  # what they hold may be large, and the next may be long

    def _next(self, at_most: int) -> list[_Waiting]:
        with self._lock:
            self._wait_for_the_crowd(at_most)
            part: list[_Waiting] = []
            others: deque[_Waiting] = deque()
            while self._line and len(part) < at_most:
                each = self._line.popleft()
                if each.request.cancel is not None and each.request.cancel.is_set():
                    each.future.set_exception(CancelledError())
                # A copy of a model shares its line, and answers for itself.
                elif part and each.answer_all != part[0].answer_all:
                    others.append(each)
                else:
                    part.append(each)
            self._line.extendleft(reversed(others))
            self._busy = bool(part)
            return part

    def _wait_for_the_crowd(self, at_most: int) -> None:
        """Wait while more of a crowd arrive, holding the lock; not at all for calls that come alone."""
        number = 0
        while number < len(self._line) < min(at_most, max(each.crowd for each in self._line)):
            number = len(self._line)
            self._lock.wait(self._quiet)
