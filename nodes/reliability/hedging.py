"""A call that takes its time, and another one beside it: the first good answer is taken.

    call ──longer than usual──> another beside it ──the first that is good──> taken; the other is given up

As in "The Tail at Scale" (Dean and Barroso, 2013): what waits for the slowest of its calls is quick if a few
of them are made twice. Knows nothing of experts.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any, Generic, TypeVar

from der_graph.errors import ExpertError, PoolError
from der_graph.nodes.reliability.calls import looked_at
from der_graph.nodes.reliability.health import Health
from der_graph.nodes.reliability.threads import STOPS, Cancel, in_thread

Hedge = float | str
"""Seconds after which a call is slow, or a percentile of its own times, such as `"p95"`."""

_PERCENTILE = re.compile(r"p([1-9]\d?)")
_PATIENCE = 2.0  # times the usual seconds, where nothing was measured yet

Result = TypeVar("Result")


class OvertakenError(ExpertError):
    """A call was given up because the other one had answered."""

    failure_kind = "overtaken"

    def __init__(self) -> None:
        super().__init__("overtaken: the other expert had answered")


@dataclass(frozen=True)
class Raced(Generic[Result]):
    """What came of a call and the one beside it.

    Attributes:
        first: Result of the call; None if it was given up.
        second: Result of the other; None if it was given up, or not made.
        made: Was the other one made?
    """

    first: Result | None
    second: Result | None
    made: bool


def check_hedge(hedge: Any) -> None:
    """Check a setting.

    Raises:
        PoolError: If it is neither a percentile nor seconds above 0.
    """
    if isinstance(hedge, str) and _PERCENTILE.fullmatch(hedge):
        return
    number = isinstance(hedge, (int, float)) and not isinstance(hedge, bool)
    if not number or not 0 < hedge < float("inf"):
        raise PoolError(
            f"hedge is {hedge!r}; give a percentile of an expert's own times such as 'p95', or a number of "
            "seconds above 0"
        )


def patience(hedge: Hedge, health: Health, usual: float | None) -> float | None:
    """Seconds after which a call is slow; None where nobody knows.

    Args:
        hedge: The setting.
        health: What is known of who is called.
        usual: Its usual seconds in its owner's words, or None.
    """
    if not isinstance(hedge, str):
        return float(hedge)
    known = health.percentile(int(hedge[1:]))
    if known is None and usual is not None:
        return _PATIENCE * usual
    return known


def race(
    first: Callable[[], Result],
    second: Callable[[], Result],
    after: float,
    good: Callable[[Result], bool],
    made: Callable[[], None],
) -> Raced[Result]:
    """Make a call, and another beside it if it takes its time; both in threads of their own.

    Args:
        first: The call.
        second: The other one.
        after: Seconds after which the other one is made.
        good: Is a result one that can be taken? Else the other is waited for.
        made: Told when the other one is made.

    Raises:
        BaseException: What either of them raises.
    """
    stops = (Cancel(), Cancel())  # of one's own each: who is given up ends at the next token
    try:
        one = _begun(first, stops[0])
        if concurrent.futures.wait({one}, after).done:
            return Raced(one.result(), None, False)
        made()
        two = _begun(second, stops[1])
        left = {one, two}
        while left:
            done, left = concurrent.futures.wait(left, None, concurrent.futures.FIRST_COMPLETED)
            if any([good(each.result()) for each in done]):
                break
        for stop in stops:
            stop.why = str(OvertakenError())
        return Raced(_result(one, left), _result(two, left), True)
    finally:
        for stop in stops:
            stop.set()


def _result(call: Future[Result] | asyncio.Future[Result], left: Collection[Any]) -> Result | None:
    return None if call in left else call.result()


def _begun(work: Callable[[], Result], stop: Event) -> Future[Result]:
    context = copy_context()
    context.run(STOPS.set, (*STOPS.get(), stop))
    return in_thread(partial(context.run, work))


async def arace(
    first: Callable[[], Awaitable[Result]],
    second: Callable[[], Awaitable[Result]],
    after: float,
    good: Callable[[Result], bool],
    made: Callable[[], None],
) -> Raced[Result]:
    """Make a call, and another beside it, as tasks of the caller's loop; see `race`."""
    tasks, why = [asyncio.ensure_future(first())], None
    try:
        done, _ = await asyncio.wait(tasks, timeout=after)
        if done:
            return Raced(tasks[0].result(), None, False)
        made()
        tasks.append(asyncio.ensure_future(second()))
        left = set(tasks)
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            if any([good(each.result()) for each in done]):
                break
        why = OvertakenError()
        return Raced(_result(tasks[0], left), _result(tasks[1], left), True)
    finally:
        give_up(tasks, why)


def give_up(calls: Iterable[asyncio.Future[Any]], why: Exception | None = None) -> None:
    """Cancel those that are not done; nobody wants to know what comes of them.

    Args:
        calls: The calls.
        why: What traces say of them.
    """
    for each in calls:
        if not each.done():
            each.cancel(why)
        each.add_done_callback(looked_at)
