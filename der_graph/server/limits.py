"""What the operator allows: ceilings of one request, and limits of a key by the minute and the day.

    DERContext ──Ceilings.bound──> the same, or less      key ──KeyLimits──> in, or 429

Counts are kept in memory, so they begin anew with the process; several workers count each for itself. A clock
that is put back, or forward and back, gives nobody a day's budget twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from der_graph.errors import ServerError
from der_graph.server.failures import RequestError
from der_graph.state import DERContext

MINUTE = 60.0
DAY = 86400.0


@dataclass(frozen=True)
class Ceilings:
    """Default and upper bound of what a request may set; None for no bound.

    Attributes:
        deadline: Seconds for the whole route.
        max_cost: Cost of the route, in the pool's unit.
        max_steps: Calls of experts.

    Raises:
        ServerError: If a bound is not above 0.
    """

    deadline: float | None = None
    max_cost: float | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("deadline", "max_cost", "max_steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ServerError(f"{name} is {value}; it must be a number above 0, or left out")

    def bound(self, context: DERContext) -> DERContext:
        """The settings of a request, none of them above its ceiling."""
        return replace(
            context,
            deadline=lower(context.deadline, self.deadline),
            max_cost=lower(context.max_cost, self.max_cost),
            max_steps=lower(context.max_steps, self.max_steps),
        )


Number = TypeVar("Number", int, float)


def lower(wanted: Number | None, ceiling: Number | None) -> Number | None:
    """The smaller of two bounds, where None is no bound."""
    if wanted is None or ceiling is None:
        return ceiling if wanted is None else wanted
    return min(wanted, ceiling)


def out_of_budget(now: float | None = None) -> RequestError:
    """The error for a key whose budget of the day does not pay for a request."""
    return RequestError(
        429,
        "this key's budget of the day is spent, or set aside for running requests",
        code="insufficient_quota",
        retry_after=max(1, round(DAY - (time.time() if now is None else now) % DAY)),
    )


class KeyLimits:
    """What every key may ask for; without keys, everybody together.

    Args:
        requests_per_minute: Most requests in any 60 s, or None.
        cost_per_day: Most cost in a day of UTC, in the pool's unit, or None.
        now: Seconds since 1970.
        clock: Seconds, by a clock that nobody puts back.

    Raises:
        ServerError: If a limit is not above 0.
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        cost_per_day: float | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (
            ("requests_per_minute", requests_per_minute),
            ("cost_per_day", cost_per_day),
        ):
            if value is not None and not 0 < value < float("inf"):
                raise ServerError(f"{name} is {value}; it must be a number above 0, or left out")
        self._requests_per_minute = requests_per_minute
        self._cost_per_day = cost_per_day
        self._now, self._clock = now, clock
        self._asked: dict[str, deque[float]] = {}
        self._day, self._turned = 0, clock()
        self._spent: dict[str, float] = {}
        self._reserved: dict[str, float] = {}

    def enter(self, key: str) -> None:
        """Count a request.

        Raises:
            RequestError: 429 if there were too many within a minute.
        """
        most = self._requests_per_minute
        if most is None:
            return
        now, asked = self._clock(), self._asked.setdefault(key, deque())
        while asked and asked[0] <= now - MINUTE:
            asked.popleft()
        if len(asked) >= most:
            wait = max(1, round(asked[0] + MINUTE - now + 0.5))
            raise RequestError(
                429,
                f"{most} requests were made within a minute; try again in {wait} s",
                code="rate_limit_exceeded",
                retry_after=wait,
            )
        asked.append(now)

    def reserve(self, key: str, at_most: float) -> float | None:
        """Set money aside for a request, so that those that run at the same time do not spend it as well.

        Args:
            key: Whose request it is.
            at_most: What the request can cost.

        Returns:
            What it may cost; None where there is no limit. Give it back with `settle`.

        Raises:
            RequestError: 429 if nothing is left today.
        """
        if self._cost_per_day is None:
            return None
        self._turn()
        left = self._cost_per_day - self._spent.get(key, 0.0) - self._reserved.get(key, 0.0)
        if left <= 0:
            raise out_of_budget(self._now())
        share = min(left, at_most)
        self._reserved[key] = self._reserved.get(key, 0.0) + share
        return share

    def settle(self, key: str, share: float | None, cost: float) -> None:
        """Give back what a request had set aside, and note what it cost."""
        if share is None:
            return
        self._turn()
        self._reserved[key] = max(0.0, self._reserved.get(key, 0.0) - share)
        self._spent[key] = self._spent.get(key, 0.0) + cost

    def _turn(self) -> None:
        """Begin a new day."""
        day, at = int(self._now() // DAY), self._clock()
        # An earlier one is a clock that was put back. It was wrong before if it says so for a day.
        if day > self._day or (day < self._day and at - self._turned >= DAY):
            self._day, self._turned = day, at
            self._spent.clear()
