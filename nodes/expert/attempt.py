"""One question to one expert: at most two calls, held to their time and reported to the expert's health.

    with attempt:  ──made(call)──> result ──answer──> Answer, and when to call once more

Knows nothing of prompts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage
from langgraph.errors import GraphBubbleUp, ParentCommand

from der_graph.errors import AllExpertsFailedError, ExpertError
from der_graph.nodes.providers.chat import BEGUN
from der_graph.nodes.reliability import (
    FailureKind,
    Fallback,
    call_limit,
    failure_of,
    is_passing,
    is_stale,
    unless_late,
)
from der_graph.nodes.reliability.call_limits import TooLongError
from der_graph.nodes.reliability.deadline import Limit
from der_graph.state import Answer

if TYPE_CHECKING:
    from der_graph.nodes.expert.expert import Expert

_RETRY_WAIT = 0.5
_LONGEST_RETRY_WAIT = 5.0


class Attempt:
    """One question to one expert: two calls at the most, their limit, and what its health is told of them.

    Entered once for every call, which then has what is left of the time. Calls are numbered, and health is
    told once of each: a call that was given up may still fail later.

    Args:
        expert: Who is asked.
        time_left: As in `Expert.ask`.
        fallback: As in `Expert.ask`.
        insist: As in `Expert.ask`.
        spoken: As in `Expert.ask`.
        settings: As in `Expert.ask`.
    """

    def __init__(
        self,
        expert: Expert,
        time_left: float | None,
        fallback: Fallback,
        insist: bool,
        spoken: Callable[[], bool],
        settings: Mapping[str, Any] | None,
    ) -> None:
        self._settings = settings
        self._expert, self._health = expert, expert.health
        self._insist, self._spoken = insist, spoken
        self._time_left, self._fallback = time_left, fallback
        self._alone = fallback == "none"
        self._start = self._began = time.perf_counter()
        self._may_retry = self._may_wait = self._alone
        self._lock = threading.Lock()
        self._heard = threading.Event()
        # Numbers: of this call, and of the last that health was told of.
        self._call = self._told_call = 0
        self.told: dict[str, Any] = {}
        self.limit = Limit(None)

    @property
    def begun(self) -> bool:
        """Has an answer begun, were it only by a thought? It is charged then, and the call not made again."""
        return self._spoken() or self._heard.is_set()

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        token = BEGUN.set(self._heard)
        try:
            yield
        finally:
            BEGUN.reset(token)

    def __enter__(self) -> None:
        self._call += 1
        self._began = time.perf_counter()
        left = self._time_left
        if left is not None:
            left -= self._began - self._start
        expert = self._expert
        limit = expert.time_limit(left, self._fallback)
        self.told = call_limit(expert.model, limit.seconds if limit.deadline else None)
        # A model that was told the time left ends in time by itself.
        self.limit = Limit(None) if self.told and expert.timeout is None else limit

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Not the expert's: the caller has left, or the graph is interrupted.
        if error is not None and self._first_told(self._call):
            self._health.breaker.leave()

    def made(self, work: Callable[[], Any]) -> Any:
        """Make the call where the breaker lets it through; gives what the model gave or raised."""
        number = self._call
        if not self._enter():
            return self._shut(number)
        try:
            with self._hearing():
                try:
                    return work()
                except RuntimeError as error:
                    if self.begun or not is_stale(error):
                        raise
                    return work()
        except Exception as error:
            return self._raised(error, number)

    async def amade(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """As `made`."""
        number = self._call
        if not self._enter():
            return self._shut(number)
        try:
            with self._hearing():
                try:
                    return await work()
                except RuntimeError as error:
                    if self.begun or not is_stale(error):
                        raise
                    return await work()
        except Exception as error:
            return self._raised(error, number)

    def _first_told(self, number: int) -> bool:
        """Is this the first that health is told of a call?"""
        with self._lock:
            first, self._told_call = number > self._told_call, max(number, self._told_call)
            return first

    def _raised(self, error: Exception, number: int) -> Any:
        if isinstance(error, TooLongError):  # not a failure: what it said until then is the answer
            return AIMessage(error.text)
        error = _as_failure(error)
        # At once, and not when the caller's turn comes: others may be about to make the same call.
        if not isinstance(error, GraphBubbleUp) and self._first_told(number):
            failure = failure_of(error)
            self._health.failed(
                failure.kind, limit=self.limit.seconds, retry_after=failure.retry_after
            )
        return error

    def _enter(self) -> bool:
        """May the call be made? Where there is nobody else it may, but not before a provider wants it."""
        seen = self._health.breaker.view()
        asked_to_wait = seen.kind == "rate_limit" and 0 < seen.retry_in <= _LONGEST_RETRY_WAIT
        insist = self._insist or (self._alone and not (self._may_wait and asked_to_wait))
        return self._health.breaker.enter(insist=insist)

    def _shut(self, number: int) -> Exception:
        self._first_told(number)
        return self._health.breaker.refused()

    def answer(self, result: Any) -> tuple[Answer, float | None]:
        """The answer, and the seconds after which the call should be made once more; None for not at all."""
        if isinstance(result, GraphBubbleUp):
            raise result
        now = time.perf_counter()
        seconds = now - self._start
        result = unless_late(result, now - self._began, self.told)
        try:
            answer = self._expert.answer_from(
                result, seconds, spoken=self.begun, settings=self._settings
            )
        except Exception as error:  # a message with odd metadata
            answer = self._expert.answer_from(error, seconds)
        first = self._first_told(self._call)
        if "failure" not in answer:
            self._health.answered(seconds)
            return answer, None
        kind: Any = answer["failure"]
        if first:
            self._health.failed(kind, limit=self.limit.seconds)
        wait = self._pause(kind, result, seconds)
        self._may_wait = False
        self._may_retry = self._may_retry and kind == "open"
        return answer, wait

    def _pause(self, kind: FailureKind, result: Any, spent: float) -> float | None:
        asked = failure_of(result).retry_after if isinstance(result, BaseException) else None
        if kind == "open":  # the call was not made
            again = self._may_wait and asked is not None
        else:
            again = self._may_retry and is_passing(kind)
            again &= not isinstance(result, AllExpertsFailedError)  # they were asked again already
        if not again or self.begun:
            return None
        wait = _RETRY_WAIT if asked is None else max(asked, 0.1)
        late = self.limit.seconds is not None and spent + wait >= self.limit.seconds
        return None if late or wait > _LONGEST_RETRY_WAIT else wait


def _as_failure(error: Exception) -> Exception:
    """A hand-over is one: LangGraph would look for its destination among the nodes of the route."""
    if not isinstance(error, ParentCommand):
        return error
    goto = error.args[0].goto
    failed = ExpertError(
        f"it hands over to {str(goto)[:100]!r} (Command.PARENT), and an expert can only answer; hand over in "
        "a node of the graph around this one"
    )
    failed.failure_kind = "error"
    return failed
