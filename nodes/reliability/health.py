"""What a process knows of one expert: may it be asked, how long does it take, does it hang.

    call ──enter──> asked, or refused by the breaker ──note──> breaker, usual seconds

One `Health` belongs to one expert and to every copy that is made of it (with tools, with a cache), so all
requests of a process share it. Knows nothing of prompts and answers.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from der_graph.nodes.reliability.breaker import Breaker, BreakerView
from der_graph.nodes.reliability.bulkhead import Bulkhead
from der_graph.nodes.reliability.failures import FailureKind, is_telling

# Seconds: a call that had less says nothing about an expert that never answered.
_SHORTEST_TRIAL = 0.25
# Times of calls: that are remembered, and that say something of percentiles.
_KEPT, _ENOUGH = 200, 20
_PATIENCE = 3.0  # times the usual seconds that a call must have had before its lateness counts


class Health:
    """Breaker, threads and usual time of one expert.

    Args:
        breaker: Remembers failures.
    """

    def __init__(self, breaker: Breaker | None = None) -> None:
        self.bulkhead = Bulkhead()
        self.breaker = breaker or Breaker()
        self.usual: float | None = None
        self._times: deque[float] = deque(maxlen=_KEPT)

    def __reduce__(self) -> tuple[type[Health], tuple[()]]:
        return Health, ()

    def answered(self, seconds: float) -> None:
        """A call was answered.

        Args:
            seconds: How long it took.
        """
        self._times.append(seconds)
        self.usual = seconds if self.usual is None else 0.9 * self.usual + 0.1 * seconds
        self.bulkhead.trust()
        self.breaker.success()

    def overtaken(self, seconds: float) -> None:
        """A call was given up because another expert had answered.

        Args:
            seconds: How long it had taken by then; it would have taken longer, but not to say so at all would
                make slow calls look rare.
        """
        self._times.append(seconds)

    def percentile(self, percent: int) -> float | None:
        """Seconds that so many percent of the last calls took at most; None where there were too few."""
        times = sorted(self._times.copy())
        if len(times) < _ENOUGH:
            return None
        return times[math.ceil(percent / 100 * len(times)) - 1]

    def failed(
        self, kind: FailureKind, *, limit: float | None = None, retry_after: float | None = None
    ) -> None:
        """A call failed.

        Args:
            kind: Kind of the failure.
            limit: Seconds that the call had, or None for any number. Requests with tiny deadlines must
                not get an expert out of the way of others.
            retry_after: Seconds that the provider asked to wait.
        """
        if kind in ("deadline", "timeout") and limit is not None:
            needed = _SHORTEST_TRIAL if self.usual is None else _PATIENCE * self.usual
            if limit < needed:
                self.breaker.leave()
                return
        if is_telling(kind):
            self.breaker.failure(kind, retry_after)
        else:
            self.breaker.leave()

    def view(self) -> dict[str, Any]:
        """State for people and monitors: plain data."""
        seen: BreakerView = self.breaker.view()
        return {
            "state": seen.state,
            "failure": seen.kind,
            "retry_in": round(seen.retry_in, 3),
            "hung": self.bulkhead.hung,
        }
