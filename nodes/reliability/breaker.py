"""Memory of failures: an expert that fails again and again is not asked for a while.

    closed ──3 failures in a row, or Retry-After──> open ──cooldown──> half open ──one probe──> closed
                                                      ^──────── failed: twice the cooldown ────────┘

The libraries that there are (pybreaker, aiobreaker, purgatory) guard one call by an exception. What is wanted
here is a question, "may it be asked?", which changes nothing and becomes a mask for the agent; one probe at a
time over threads and event loops; and a cooldown that the provider names. None of them has these. Knows
nothing of experts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from der_graph.errors import ExpertError

log = logging.getLogger("der_graph.reliability")

BreakerState = Literal["closed", "half_open", "open"]

FAILURES = 3
COOLDOWN = 10.0
LONGEST_COOLDOWN = 300.0
_LONGEST_PROBE = 120.0  # a probe that has not come back by then does not keep others from trying


class OpenError(ExpertError):
    """A call that the breaker did not let through."""

    failure_kind = "open"


class BreakerView(NamedTuple):
    """A breaker as others see it.

    Attributes:
        state: `closed`, `open`, or `half_open`: the next call is a probe.
        kind: Kind of the last failure, or None.
        retry_in: Seconds until it may be asked again; 0 unless it is open.
        failures: Failures in a row.
    """

    state: BreakerState
    kind: str | None
    retry_in: float
    failures: int


class Breaker:
    """Decides whether an expert may be asked, by what its last calls came to. Safe in threads.

    Args:
        name: The expert's, for the log.
        failures: Failures in a row that open it.
        cooldown: Seconds that it stays open at first; twice as long after every probe that fails.
        longest: Longest cooldown in seconds.
        clock: Gives seconds.
    """

    def __init__(
        self,
        name: str = "",
        *,
        failures: int = FAILURES,
        cooldown: float = COOLDOWN,
        longest: float = LONGEST_COOLDOWN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._needed, self._first, self._longest, self._clock = failures, cooldown, longest, clock
        self._lock = threading.Lock()
        self._failures = 0
        self._kind: str | None = None
        self._open = False
        self._until = 0.0
        self._cooldown = cooldown
        self._probe: float | None = None  # when the probe began
        self._log_level = logging.WARNING  # of what it says now

    def allows(self) -> bool:
        """May it be asked now? Asking this changes nothing."""
        return not self._open or self._may_probe()

    def enter(self, *, insist: bool = False) -> bool:
        """Begin a call; gives whether it may be made. It then ends in `success`, `failure` or `leave`.

        Args:
            insist: Make the call whatever the state.
        """
        if not self._open:
            return True
        with self._lock:
            if not self._open or insist:
                return True
            if not self._may_probe():
                return False
            self._probe = self._clock()
            return True

    def success(self) -> None:
        """A call was answered."""
        if not self._failures and not self._open:
            return
        with self._lock:
            was_open, self._open = self._open, False
            self._failures, self._kind, self._cooldown, self._probe = 0, None, self._first, None
        if was_open:
            log.log(self._log_level, "expert '%s': answers again", self.name)

    def failure(self, kind: str, retry_after: float | None = None) -> None:
        """A call failed.

        Args:
            kind: Kind of the failure.
            retry_after: Seconds that the provider asked to wait: it is open at once, for as long. A date that
                has passed asks for no wait.
        """
        retry_after = retry_after or None
        with self._lock:
            self._failures += 1
            self._kind = kind
            now = self._clock()
            probed, was_open = self._probe is not None, self._open
            if was_open and probed:
                self._cooldown = min(2 * self._cooldown, self._longest)
            self._probe = None
            if not was_open and self._failures < self._needed and retry_after is None:
                return
            if was_open and not probed and retry_after is None:
                return  # begun before it opened: nothing new
            self._open = True
            wait = self._cooldown if retry_after is None else retry_after
            self._until = max(self._until if was_open else 0.0, now + wait)
            # Where a provider's limit is reached, moments like these come and go with every few calls.
            moment = kind == "rate_limit" and wait < self._first
            self._log_level = logging.INFO if moment else logging.WARNING
            level = self._log_level
        log.log(
            level,
            "expert '%s': not asked for %.3g s after %d failures in a row (%s)",
            self.name, wait, self._failures, kind,
        )  # fmt: skip

    def leave(self) -> None:
        """A call ended in a way that says nothing about the expert."""
        if self._probe is not None:
            with self._lock:
                self._probe = None

    def view(self) -> BreakerView:
        """Its state now."""
        with self._lock:
            left = max(0.0, self._until - self._clock()) if self._open else 0.0
            state: BreakerState = "closed" if not self._open else "open" if left else "half_open"
            return BreakerView(state, self._kind, left, self._failures)

    def refused(self) -> OpenError:
        """What a call comes to that it does not let through."""
        error = OpenError(f"not asked: it failed {self._failures} times in a row ({self._kind})")
        if self._kind == "rate_limit":
            error.retry_after = self.view().retry_in
        return error

    def _may_probe(self) -> bool:
        now = self._clock()
        free = self._probe is None or now - self._probe > _LONGEST_PROBE
        return now >= self._until and free
