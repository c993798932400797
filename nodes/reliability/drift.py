"""An expert that has become bad, noticed in service: from disagreement with the others, and from feedback.

    answers of a route ──do they agree as often as they should?──> evidence per expert ──> suspected, or not

How often two experts come to the same value is known from their profiles, or learnt from the first
answers. Each answer beside another then speaks for "as ever" or for "agrees half as often", and what
speaks for the latter is added up and never falls below zero (Page's CUSUM test). Above a limit the expert
is suspected: a warning, a metric, and it is asked as rarely as one that fails. Knows nothing of agents.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping, Sequence

log = logging.getLogger("der_graph.reliability")

LIMIT = 7.0
"""Evidence, in nats, above which an expert is suspected; larger: later, and fewer false alarms."""

WORSE = 0.5
"""Share of its agreement, or of its quality, that is left of an expert that has become bad."""

RECHECK = 20
"""A suspected expert is let through once in so many decisions, so that it can show that it is well again."""

_LEARNT = 40.0  # pairs whose agreement is learnt where no profile says it
_KNOWN = 60.0  # pairs that a profile counts for
_LEAST, _MOST = 0.05, 0.97  # agreement that is believed in


class DriftWatch:
    """Adds up evidence against each expert. Safe in threads.

    Args:
        names: The experts.
        agreement: (experts, experts) how often two of them agree where they are well; learnt if left out.
        quality: (experts,) how often each is right where it is well, for feedback; 0.5 if left out.
        limit: Evidence above which an expert is suspected.
    """

    def __init__(
        self,
        names: Sequence[str],
        agreement: Sequence[Sequence[float]] | None = None,
        quality: Sequence[float] | None = None,
        *,
        limit: float = LIMIT,
    ) -> None:
        self.names = list(names)
        self._limit = limit
        self._lock = threading.Lock()
        self._evidence = dict.fromkeys(self.names, 0.0)
        self._suspected: set[str] = set()
        self._looks = 0
        known = {} if agreement is None else dict(enumerate(agreement))
        # Agreements and pairs seen, as counts.
        self._pairs: dict[tuple[str, str], list[float]] = {}
        for i, first in enumerate(self.names):
            for j, second in enumerate(self.names):
                if i in known:
                    self._pairs[first, second] = [_KNOWN * float(known[i][j]), _KNOWN]
                else:
                    self._pairs[first, second] = [1.0, 2.0]
        self._learns = not known
        given = [0.5] * len(self.names) if quality is None else quality
        self._quality = dict(zip(self.names, map(float, given), strict=True))

    @property
    def suspected(self) -> frozenset[str]:
        """The experts that have become bad, as far as can be seen."""
        return frozenset(self._suspected)

    def evidence(self, name: str) -> float:
        """What speaks against an expert, in nats; at least 0."""
        return self._evidence[name]

    def set_aside(self) -> frozenset[str]:
        """The suspected experts, for one decision: now and then nobody, so that they are looked at again."""
        if not self._suspected:
            return frozenset()
        with self._lock:
            self._looks += 1
            return frozenset() if self._looks % RECHECK == 0 else frozenset(self._suspected)

    def note(self, values: Mapping[str, str | None]) -> list[str]:
        """Note the answers of a route.

        Args:
            values: What each expert's answer came to, by name; None for nothing that can be compared.

        Returns:
            The experts that are suspected from now on.
        """
        given = {name: value for name, value in values.items() if value is not None}
        if len(given) < 2:
            return []
        with self._lock:
            told = {}
            for name, value in given.items():
                # Those that are suspected are no witnesses.
                others = [each for each in given if each != name and each not in self._suspected]
                if others:
                    steps = [
                        self._blame(name, each, self._step(name, each, value == given[each]))
                        for each in others
                    ]
                    told[name] = sum(steps) / math.sqrt(len(steps))  # they are not independent
            return self._add(told)

    def feedback(self, name: str, good: bool) -> list[str]:
        """Note what a user thought of an expert's answer."""
        with self._lock:
            return self._add({name: _against(self._quality[name], good)})

    def _blame(self, name: str, other: str, step: float) -> float:
        """The part of a disagreement put down to one of the two: more where more speaks against it."""
        if step <= 0:
            return step
        return step / (1 + math.exp(self._evidence[other] - self._evidence[name]))

    def _step(self, name: str, other: str, agree: bool) -> float:
        counts = self._pairs[name, other]
        told = 0.0
        if not self._learns or counts[1] >= _LEARNT / 2:
            told = _against(counts[0] / counts[1], agree)
        if self._learns and counts[1] < _LEARNT:
            counts[0] += agree
            counts[1] += 1.0
        return told

    def _add(self, told: Mapping[str, float]) -> list[str]:
        new = []
        for name, step in told.items():
            evidence = max(0.0, min(self._evidence[name] + step, 2 * self._limit))
            self._evidence[name] = evidence
            if evidence >= self._limit and name not in self._suspected:
                self._suspected.add(name)
                new.append(name)
            elif evidence == 0.0 and name in self._suspected:
                self._suspected.discard(name)
                log.warning("expert '%s': agrees with the others again", name)
        for name in new:
            log.warning("expert '%s': agrees with the others far less than it used to", name)
            # What was held against the others may have been its doing.
            for other in told:
                if other not in self._suspected:
                    self._evidence[other] = 0.0
        return new


def _against(usual: float, agree: bool) -> float:
    """How much one observation speaks for "half as often" instead of "as ever", in nats."""
    usual = min(max(usual, _LEAST), _MOST)
    return math.log(WORSE) if agree else math.log((1 - WORSE * usual) / (1 - usual))
