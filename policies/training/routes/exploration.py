"""Which routes of chat models to try, where trying all of them would cost too much.

    some questions ──pairs, longer routes: the promising ones again and again──> what each adds
    all questions  ──a teacher over imputed routes──> its routes, asked for real, and once more

First every short route is tried on a few questions, and those that add something on more of them. What is
not known is then imputed (`imputation.py`), the best choices over all routes are worked out, and the routes
that they lead to are asked for real: what looked good by chance alone does not stay so. Half of the calls go
to each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from der_graph.policies.answers import AnswerSource, Outcome, Request
from der_graph.policies.training.routes.tree import Route, gain_of

Choose = Callable[[], Iterable[tuple[int, Route]]]
"""Gives the routes that look best by what is known: question and experts, most wanted first."""

ROUNDS = 3  # of asking what looks best
_BREADTH = 0.5  # share of the calls for trying routes on some questions
_LEVELS = (0.5, 0.35, 0.15)  # of that, for routes of two, three and four calls
_FEWEST = 4  # questions on which a route is tried at first
_MOST = 60  # and in the end
_STEADY = 20  # answers after others' that are an expert's own again, from which on it is known not to react
_HALVINGS = 2  # times that routes are tried; the second time the better half of them
_LITTLE = 0.1  # share of a round's calls that need not be used up
_BLOCKS = 4  # of questions at once, for experts that are asked at the same time


class Explorer:
    """Asks along routes within a number of new answers.

    Args:
        source: The training questions; first answers are known.
        experts: Who may be on a route, by position.
        longest: Most experts on a route.
        calls: New answers, at most, with those that the source has beyond first ones. Those that are cached
            count like any other, so that a second run finds the same.
        seed: Of the draw of questions.
    """

    def __init__(
        self,
        source: AnswerSource,
        experts: Sequence[int],
        longest: int,
        calls: int,
        seed: int = 0,
    ) -> None:
        self._source = source
        self._stopped = False
        self._experts = sorted(experts)
        self._longest = min(longest, len(experts))
        self._random = np.random.default_rng(seed)
        self._tried: dict[Route, dict[int, list[Outcome]]] = {}
        self._first = source.first_answers()
        self._asked: set[object] = source.asked_after_others()
        self.left = max(0, calls - len(self._asked))
        # By expert: answers after another one's, and whether one of them was not its own again.
        self._reactions = dict.fromkeys(self._experts, 0)
        self._reacts = dict.fromkeys(self._experts, False)

    def broadly(self) -> None:
        """Try routes on some questions, level by level, the promising ones on more."""
        share = self.left * _BREADTH
        promising: list[Route] = [(i,) for i in self._experts]
        for part in _LEVELS[: self._longest - 1]:
            routes = [(*r, j) for r in promising for j in self._experts if j not in r]
            steady = frozenset(filter(self._steady, self._experts))
            routes = [r for r in routes if not self._known(r, steady)]
            promising = self._halving(routes, int(share * part))
            if not promising:
                return

    def best(self, choose: Choose) -> None:
        """Ask along the routes that look best, some rounds.

        Args:
            choose: Says which those are.
        """
        for number in range(ROUNDS):
            if self.left <= 0:
                return
            share = self.left // (ROUNDS - number)
            wanted, until = list(choose()), self.left - share
            while wanted and self.left - until > _LITTLE * share:
                room, count, most = self.left - until, 0, 0
                for _, route in wanted:
                    if most >= room:
                        break
                    count, most = count + 1, most + len(route) - 1
                self._ask(wanted[:count], room)
                del wanted[:count]

    def _halving(self, routes: Sequence[Route], calls: int) -> list[Route]:
        """Try routes on a few questions, the better half of them on more, and so on; better ones first."""
        n, until = len(self._source.examples), self.left - calls
        kept = list(routes)
        self._random.shuffle(kept)
        at, turn = 0, 0
        order = self._random.permutation(n).tolist()
        while kept and turn < _HALVINGS and self.left > until:
            room = (self.left - until) // (_HALVINGS - turn)
            each = min(n, _MOST, max(min(_FEWEST, n), room // len(kept)))
            wanted = []
            for route in kept:
                # Each route on questions of its own, as far as they go: together they say more.
                wanted += [(order[(at + k) % n], route) for k in range(each)]
                at += each
            self._ask(wanted, self.left - until)
            kept.sort(key=lambda r: -self._promise(r))
            turn += 1
            if turn < _HALVINGS:
                kept = kept[: (len(kept) + 1) // 2]
        ranked = sorted((r for r in routes if r in self._tried), key=lambda r: -self._promise(r))
        return [r for r in ranked if self._promise(r) > 0]

    def _promise(self, route: Route) -> float:
        """What its last expert adds, as far as it was tried."""
        found = self._tried.get(route, {})
        if not found:
            return 0.0
        before = np.array([[o.quality for o in outcomes[:-1]] for outcomes in found.values()])
        after = [outcomes[-1] for outcomes in found.values()]
        return gain_of(self._source, route[-1], after, list(found), before)

    def _steady(self, expert: int) -> bool:
        """Does it answer the same whatever it is shown, as far as is known?"""
        if not self._source.reads_answers(expert):
            return True
        return self._reactions[expert] >= _STEADY and not self._reacts[expert]

    def _known(self, route: Route, steady: Collection[int]) -> bool:
        """Does the last one say what it says alone, as far as is known?

        Whoever does not react to first answers may still react to one that was made with the help of another.
        """
        if not self._source.reads_answers(route[-1]):
            return True
        return route[-1] in steady and (len(route) <= 2 or route[-2] in steady)

    def _ask(self, wanted: Sequence[tuple[int, Route]], room: int) -> None:
        """Ask along routes as far as the calls go.

        Experts that are asked at the same time get some blocks of questions at once: while the slow calls of
        one are waited for, those of the next go on. Each block has its share of the calls, so that what is
        asked does not depend on who answers first.
        """
        steady = frozenset(filter(self._steady, self._experts))
        side_by_side = any(map(self._source.at_once, self._experts))
        blocks: list[list[tuple[int, Route]]] = [[] for _ in range(_BLOCKS if side_by_side else 1)]
        place: dict[int, int] = {}
        for each in wanted:
            blocks[place.setdefault(each[0], len(place) % len(blocks))].append(each)
        until = np.cumsum([0, *map(len, blocks)]) * room // max(len(wanted), 1)
        rooms = np.diff(until).tolist()
        threads = ThreadPoolExecutor(len(blocks), "der-explore")
        try:
            found = list(threads.map(self._along, blocks, rooms, [steady] * len(blocks)))
        except BaseException:
            self._stopped = True
            self._source.stop()
            raise
        finally:
            threads.shutdown(cancel_futures=True)
        for block, (along, asked) in zip(blocks, found, strict=True):
            self.left -= len(asked)
            self._asked |= asked
            for (question, route), outcomes in zip(block, along, strict=True):
                for length in range(2, len(outcomes) + 1):
                    self._tried.setdefault(route[:length], {})[question] = outcomes[:length]
                    read = _answered(outcomes[: length - 1])
                    if read and not self._known(route[:length], steady):
                        self._watch(question, route[length - 1], outcomes[length - 1])

    def _along(
        self, wanted: Sequence[tuple[int, Route]], room: int, steady: Collection[int]
    ) -> tuple[list[list[Outcome]], set[object]]:
        """Ask all second experts together, then all third ones: outcomes of each route, and what was new."""
        along: list[list[Outcome]] = [[] for _ in wanted]
        new: set[object] = set()
        live = list(range(len(wanted)))
        for step in range(max((len(route) for _, route in wanted), default=0)):
            live = [k for k in live if len(wanted[k][1]) > step]
            paid: list[int] = []
            requests: list[Request] = []
            for k in live:
                question, route = wanted[k]
                unread = not _answered(along[k])
                if unread or self._known(route[: step + 1], steady):
                    along[k].append(self._first[question][route[step]])
                else:
                    paid.append(k)
                    requests.append(Request(question, route[step], [o.answer for o in along[k]]))
            asked: list[int] = []
            for i, key in enumerate(self._source.keys(requests)):
                if key not in self._asked and key not in new:
                    if len(new) >= room:
                        continue
                    new.add(key)
                asked.append(i)
            if self._stopped:
                break
            outcomes = self._source.ask([requests[i] for i in asked])
            for i, outcome in zip(asked, outcomes, strict=True):
                along[paid[i]].append(outcome)
            stopped = set(paid) - {paid[i] for i in asked}
            live = [k for k in live if k not in stopped]
        return along, new

    def _watch(self, question: int, expert: int, outcome: Outcome) -> None:
        """Note whether an expert said something else than alone."""
        self._reactions[expert] += 1
        own = self._first[question][expert].answer["text"]
        self._reacts[expert] |= outcome.answer["text"] != own


def _answered(outcomes: Sequence[Outcome]) -> bool:
    """Is there an answer that the next one reads?"""
    return any(outcome.answer["error"] is None for outcome in outcomes)


def greedy_routes(
    choices: npt.NDArray[np.float32],
    children: npt.NDArray[np.int64],
    routes: Sequence[Route],
    inner: Sequence[int],
) -> list[list[Route]]:
    """[question]: the different routes of the best choices at each price.

    Args:
        choices: (questions, inner routes, experts + 1, prices) what each is worth.
        children: (routes, experts) of the tree.
        routes: Of the tree.
        inner: Those that go on.
    """
    row = {int(route): i for i, route in enumerate(inner)}
    best = choices.argmax(axis=2)
    found = []
    for question in range(len(choices)):
        mine: dict[Route, None] = {}
        for price in range(choices.shape[3]):
            at = 0
            while at in row:
                choice = int(best[question, row[at], price])
                if choice == children.shape[1]:
                    break
                at = int(children[at, choice])
            mine.setdefault(routes[at])
        found.append(list(mine))
    return found
