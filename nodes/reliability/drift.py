"""An expert that has become bad, noticed in service: from disagreement with the others, and from feedback.

    answers of a route ──do they agree as often as they should?──> evidence per expert ──> suspected, or not

A route is read in the order of its answers, as an agent decides by the answers so far whom it asks next. Each
answer joins one of those before it, or none. How probable that is depends on who they are, and whether they
agree; it is known from profiles, or learnt from the first answers. In service it is more or less than that,
as hard questions get more answers and later experts read earlier ones; by how much is learnt too, of all.

How much more probable would it be, if one expert were bad? For each that is asked (a likelihood ratio):

    the new one is bad          it agrees half as often
    one before it is bad        what that one said tells nothing: the new one agrees with the others as if it
                                had not been asked, and with that one, where it is alone, half as often

So where two differ and a third joins the first, the second is accused twice: by differing, and because the
question that they differ on was not hard after all. The logarithms are added up for each expert, and never
fall below zero (Page's CUSUM test). Above a limit the expert is suspected: a warning, a metric, and it is
asked as rarely as one that fails.
Knows nothing of agents.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from der_graph.nodes.reliability.copying import BeginsAnew
from der_graph.state import Answer, good_answers

log = logging.getLogger("der_graph.reliability")

LIMIT = 11.0
"""Evidence, in nats, above which an expert is suspected; larger: later, and fewer false alarms."""

WORSE = 0.5
"""Share of its agreement, or of its quality, that is left of an expert that has become bad."""

RECHECK = 20
"""A suspected expert is let through in one of so many decisions, to show whether it is well again."""

_LEARNT = 30  # routes of an expert from which its agreement in service is learnt in any case
_CALM = 0.5  # evidence against an expert below which it is learnt from later ones too
_FEW = 5.0  # observations of one kind that are learnt from in any case
_SHARED = 20.0  # observations that the agreement of all counts for, where no profile is known
_KNOWN = 25.0  # observations that a profile counts for
_NEW = 5.0  # routes of an expert after which an observation counts half
_WARM = 30  # observations from which service is learnt before anybody is blamed
_LEAST, _MOST = 0.05, 0.97  # agreement that is believed in; where there is less, nothing is told
_REMEMBERED = 10_000  # routes whose feedback is still put down to their expert
_RATED = -1  # in place of an expert


_Kind = Literal["one", "agreed", "split", "joined"]
"""Of an answer: after one other, after several that agree, or that differ; or an answer that was joined."""


class _Shift:
    """How much more often, in log-odds, something happens in service than was known."""

    def __init__(self) -> None:
        self.seen, self._by = 0, 0.0

    def of(self, usual: float) -> float:
        """A probability as it is in service."""
        usual = min(max(usual, 0.01), 0.99)
        return 1 / (1 + (1 - usual) / usual * math.exp(-self._by))

    def learn(self, usual: float, happened: bool) -> None:
        """Learn from one event."""
        rate = max(0.01, 1 / (4 + 0.2 * self.seen))
        self.seen += 1
        self._by += rate * (happened - self.of(usual))


class LastNames:
    """Numbers by name, of the last so many names; its memory does not grow.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self._digests = np.zeros(size, np.uint64)  # of names; 0 for none
        self._numbers = np.zeros(size, np.int32)
        self._next = 0

    def put(self, name: str, number: int) -> None:
        """Remember a number; the oldest one is forgotten."""
        self._digests[self._digests == _digest(name)] = 0
        self._digests[self._next], self._numbers[self._next] = _digest(name), number
        self._next = (self._next + 1) % len(self._digests)

    def change(self, name: str, number: int) -> None:
        """Remember another number of a name that is remembered, for as long as the name."""
        self._numbers[self._digests == _digest(name)] = number

    def get(self, name: str) -> int | None:
        """The number of a name; None where it is forgotten."""
        at = np.flatnonzero(self._digests == _digest(name))
        return int(self._numbers[at[0]]) if len(at) else None


def _digest(name: str) -> np.uint64:
    text = name.encode("utf-8", "surrogatepass")
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") or 1)


class DriftWatch(BeginsAnew):
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
        self._evidence = dict.fromkeys(self.names, 0.0)
        self._suspected: set[str] = set()
        self._rng = random.Random(0)
        self._liked = _Shift()
        self._agreeing: dict[str, _Shift] = {kind: _Shift() for kind in get_args(_Kind)}
        self._routes = LastNames(_REMEMBERED)
        table = {} if agreement is None else dict(enumerate(agreement))
        self._known = {
            (first, second): float(table[i][j])
            for i, first in enumerate(self.names)
            for j, second in enumerate(self.names)
            if i in table
        }
        self._own = {name: _Shift() for name in self.names}  # how readily each agrees, if not known
        self._compared = dict.fromkeys(self.names, 0)  # routes
        # Agreements and observations, by kind, expert, and the other one where there is one other.
        self._seen: dict[tuple[_Kind, str, str], list[float]] = {}
        given = [0.5] * len(self.names) if quality is None else quality
        self._quality = dict(zip(self.names, map(float, given), strict=True))
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()

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
            again = self._rng.random() < 1 / RECHECK
            return frozenset() if again else frozenset(self._suspected)

    def note(self, values: Mapping[str, str | None]) -> list[str]:
        """Note the answers of a route.

        Args:
            values: What each expert's answer came to, by name, in the order in which they were asked;
                None for nothing that can be compared.

        Returns:
            The experts that are suspected from now on.
        """
        given = {name: value for name, value in values.items() if value is not None}
        if len(given) < 2:
            return []
        with self._lock:
            told: dict[str, float] = {}
            # Those that are suspected are no witnesses: they are compared with all the others.
            order = sorted(given, key=lambda name: name in self._suspected)
            witnesses = [name for name in order if name not in self._suspected]
            for place, name in enumerate(order):
                before = {each: given[each] for each in witnesses[:place]}
                for each, step in self._compare(name, given[name], before):
                    told[each] = told.get(each, 0.0) + step
            for name in told:
                self._compared[name] += 1
            return self._add(told)

    def ended(self, key: str, answers: Sequence[Answer]) -> None:
        """Note a route that has ended; nothing where its end is replayed (time travel, a resumed run).

        Args:
            key: What feedback will name it by.
            answers: Its answers; the last good one counts.
        """
        good = good_answers(list(answers))
        if good and good[-1]["expert"] in self.names:
            with self._lock:
                if self._routes.get(key) is not None:
                    return
                self._routes.put(key, self.names.index(good[-1]["expert"]))
        self.note({answer["expert"]: answer["value"] for answer in good})

    def rated(self, key: str, score: float) -> None:
        """Note what a user thought of a route; nothing where it is too old, or the user said so before.

        Args:
            key: As in `ended`.
            score: How good the answer was, from 0 to 1.
        """
        with self._lock:
            expert = self._routes.get(key)
            if expert is not None:
                self._routes.change(key, _RATED)
        if expert not in (None, _RATED):
            self.feedback(self.names[expert], score >= 0.5)

    def feedback(self, name: str, good: bool) -> list[str]:
        """Note what a user thought of an expert's answer."""
        with self._lock:
            usual = self._quality[name]
            warm = self._liked.seen >= _WARM / 2
            told = _against(self._liked.of(usual), good) if warm else 0.0
            self._liked.learn(usual, good)
            return self._add({name: told}) if warm else []

    def view(self) -> dict[str, dict[str, Any]]:
        """State for people and monitors, by expert: plain data."""
        return {
            name: {"suspected": name in self._suspected, "evidence": round(self._evidence[name], 2)}
            for name in self.names
        }

    def _compare(
        self, name: str, value: str, before: Mapping[str, str]
    ) -> Iterator[tuple[str, float]]:
        """What an answer speaks against whom, given those before it."""
        if not before:
            return
        joins = self._joins(name, before)
        warm = self._agreeing[self._kind(before)].seen >= _WARM
        seen = min(self._compared[each] for each in [name, *before])
        sure = seen / (seen + _NEW)  # less where an expert is new
        if warm:
            yield name, sure * _against(sum(joins.values()), value in joins)
        if name not in self._suspected:
            for each in before:
                yield each, sure * self._without(name, value, before, each, joins, warm)
        self._learn(name, value, before)

    def _without(
        self,
        name: str,
        value: str,
        before: Mapping[str, str],
        each: str,
        joins: Mapping[str, float],
        warm: bool,
    ) -> float:
        """How much more probable, in nats, an answer is if one of those before it is bad.

        Args:
            name: Whose answer it is.
            value: What it came to.
            before: The answers before it.
            each: Which of them may be bad.
            joins: How probable the answer joins each of them, all being well.
            warm: Is it known how often answers join any? If not, only whom it joins tells.
        """
        now = sum(joins.values())
        if now < _LEAST:
            return 0.0
        rest = {other: said for other, said in before.items() if other != each}
        then = self._joins(name, rest) if rest else {}
        said = before[each]
        if said not in then:
            then[said] = min(WORSE * joins[said], (1 - sum(then.values())) / 2)
        if value in joins:
            told = math.log(then[value] / joins[value])
            return told if warm else told + math.log(now / sum(then.values()))
        return math.log((1 - sum(then.values())) / (1 - now)) if warm else 0.0

    def _kind(self, before: Mapping[str, str]) -> _Kind:
        """Of an answer after others."""
        if len(before) == 1:
            return "one"
        return "agreed" if len(set(before.values())) == 1 else "split"

    def _key(self, kind: _Kind, name: str, before: Mapping[str, str]) -> tuple[_Kind, str, str]:
        """What an answer is counted under: its pair after one other, else its expert."""
        if kind != "one":
            return kind, name, ""
        first, second = sorted([name, *before])
        return kind, first, second

    def _joins(self, name: str, before: Mapping[str, str]) -> dict[str, float]:
        """How probable it is that an answer joins each of those before it, by what they say."""
        groups: dict[str, list[str]] = {}
        for each, said in before.items():
            groups.setdefault(said, []).append(each)
        kind = self._kind(before)
        # Of what is new: as known, but as often as all do in service.
        known = self._agreeing[kind].of(self._usual(name, before))
        usual = min(self._rate(self._key(kind, name, before), known), _MOST)
        share = {said: self._usual(name, members) for said, members in groups.items()}
        total = sum(share.values())
        liked = {
            said: sum(self._rate(("joined", m, ""), share[said] / total) for m in members)
            / len(members)
            for said, members in groups.items()
        }
        total = sum(liked.values())
        return {said: usual * part / total for said, part in liked.items()}

    def _rate(self, key: tuple[_Kind, str, str], known: float) -> float:
        """How often something happens, from what is known and what was seen."""
        happened, seen = self._seen.get(key, (0.0, 0.0))
        weight = _KNOWN if self._known else _SHARED
        return (happened + weight * known) / (seen + weight)

    def _count(self, key: tuple[_Kind, str, str], happened: bool, who: Collection[str]) -> None:
        """Count what was seen, where those that it tells of are still learnt."""
        counts = self._seen.setdefault(key, [0.0, 0.0])
        if counts[1] < _FEW or all(self._learns(each) for each in who):
            counts[0] += happened
            counts[1] += 1.0

    def _learn(self, name: str, value: str, before: Mapping[str, str]) -> None:
        """Learn how often answers agree in service from one of them."""
        kind = self._kind(before)
        agrees = value in before.values()
        self._agreeing[kind].learn(self._usual(name, before), agrees)
        who = [name, *before] if kind == "one" else [name]
        self._count(self._key(kind, name, before), agrees, who)
        if kind == "split" and agrees:
            for each, said in before.items():
                self._count(("joined", each, ""), said == value, [each])
        if kind == "one":
            (other,) = before
            self._learn_own(name, other, agrees)

    def _usual(self, name: str, others: Collection[str]) -> float:
        """How often an expert agrees with one of the others where all are well."""
        own, known = self._own, self._known
        each = [known[name, o] if known else own[name].of(own[o].of(0.5)) for o in others]
        return max(0.01, sum(each) / len(each))

    def _learn_own(self, name: str, other: str, agree: bool) -> None:
        usual = self._agreeing["one"].of(0.5)
        for_name, for_other = self._own[other].of(usual), self._own[name].of(usual)
        for each, without in ((name, for_name), (other, for_other)):
            if self._learns(each):
                self._own[each].learn(without, agree)

    def _learns(self, name: str) -> bool:
        """Is an expert's agreement still learnt? One that may have become bad teaches that it is as ever."""
        return self._compared[name] < _LEARNT or self._evidence[name] < _CALM

    def _add(self, told: Mapping[str, float]) -> list[str]:
        for name, step in told.items():
            self._evidence[name] = max(0.0, min(self._evidence[name] + step, 2 * self._limit))
            if self._evidence[name] == 0.0 and name in self._suspected:
                self._suspected.discard(name)
                log.warning("expert '%s': agrees with the others again", name)
        trusted = {name: self._evidence[name] for name in told if name not in self._suspected}
        worst = max(trusted.values(), default=0.0)
        new = [name for name, against in trusted.items() if against == worst >= self._limit]
        self._suspected.update(new)
        for name in new:
            log.warning("expert '%s': agrees with the others far less than it used to", name)
            # What was held against the others may have been its doing.
            for other in told:
                if other not in self._suspected:
                    self._evidence[other] = 0.0
        return new


def _against(usual: float, agree: bool) -> float:
    """How much one observation speaks for "half as often" instead of "as ever", in nats."""
    if usual < _LEAST:
        return 0.0
    usual = min(usual, _MOST)
    return math.log(WORSE) if agree else math.log((1 - WORSE * usual) / (1 - usual))
