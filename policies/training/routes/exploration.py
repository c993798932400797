"""Which routes of chat models to try, where trying all of them would cost too much.

    some questions ──pairs, longer routes: the promising ones again and again──> what each adds
    all questions  ──a teacher over imputed routes──> its routes, asked for real, and once more

First every short route is tried on a few questions, and those that add something on more of them. What is
not known is then imputed (`imputation.py`), the best choices over all routes are worked out, and the routes
that they lead to are asked for real: what looked good by chance alone does not stay so. Half of the calls go
to each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from der_graph.policies.answers import AnswerSource, Outcome, Request
from der_graph.policies.answers.source import Key
from der_graph.policies.answers.stream import AnswerStream
from der_graph.policies.training.routes.shortlist import NO_GAIN, Gain, gain_of, pairs_of
from der_graph.policies.training.routes.tree import Route
from der_graph.state import Answer

Choose = Callable[[], Iterable[tuple[int, Route]]]
"""Gives the routes that look best by what is known: question and experts, most wanted first."""

ROUNDS = 3  # of asking what looks best
_BREADTH = 0.5  # share of the calls for trying routes on some questions
_LEVELS = (0.5, 0.35, 0.15)  # of that, for routes of two, three and four calls
_FEWEST = 4  # questions on which a route is tried at first
_MOST = 60  # and in the end
_STEADY = 20  # answers after others' that are an expert's own again, from which on it is known not to react
_HALVINGS = 2  # times that routes are tried; the second time the better half of them
_CROWD = 0.25  # share of the calls for choosing the experts of a crowd
_DOUBT = 8  # answers as many as which a gain must be seen on to count half


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
        self._experts = sorted(experts)
        self._longest = min(longest, len(experts))
        self._random = np.random.default_rng(seed)
        self._tried: dict[Route, dict[int, list[Outcome]]] = {}
        self._first = source.first_answers()
        self._asked: set[Key] = source.asked_after_others()
        self.left = max(0, calls - len(self._asked))
        # By expert: answers after another one's, and whether one of them was not its own again.
        self._reactions = dict.fromkeys(self._experts, 0)
        self._reacts = dict.fromkeys(self._experts, False)

    def together(self, useful: Sequence[int]) -> npt.NDArray[np.float64]:
        """[i, j]: what j gains by reading i's answer.

        For a crowd of which only some can be explored: pairs are tried on some questions, within a share
        of the calls.

        Args:
            useful: All experts, those that are of most use by themselves first: where not all pairs can be
                tried, theirs are.
        """
        calls = int(self.left * _CROWD)
        most = calls // _FEWEST
        pairs = pairs_of(self._source, useful[: most // len(useful) + 1])
        self._random.shuffle(pairs)
        rank = {expert: place for place, expert in enumerate(useful)}
        pairs.sort(key=lambda pair: min(rank[pair[0]], rank[pair[1]]))
        self._halving(pairs[:most], calls, reading=True)
        gains = np.zeros((len(useful), len(useful)))
        for i, j in self._tried.keys() & set(pairs):
            count = len(self._tried[i, j])
            gains[i, j] = self._gain((i, j)).reading * count / (count + _DOUBT)
        return gains

    def narrow_to(self, experts: Sequence[int]) -> None:
        """Explore routes of these alone from now on."""
        self._experts = sorted(experts)
        self._longest = min(self._longest, len(experts))

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
            room = self.left // (ROUNDS - number)
            if room >= _FEWEST:  # else it is not worth working out
                self._ask(list(choose()), room)

    def _halving(
        self, routes: Sequence[Route], calls: int, *, reading: bool = False
    ) -> list[Route]:
        """Try routes on a few questions, the better half of them on more, and so on; better ones first.

        Args:
            routes: Which.
            calls: New answers, at most.
            reading: Are they good by what their last experts gain by reading, or by all that these add?
        """

        def promise(route: Route) -> float:
            gain = self._gain(route)
            return gain.reading if reading else gain.total

        n, until = len(self._source.examples), self.left - calls
        kept = list(routes)
        self._random.shuffle(kept)
        at, turn = 0, 0
        order = self._random.permutation(n).tolist()
        while kept and turn < _HALVINGS and self.left > until:
            room = (self.left - until) // (_HALVINGS - turn)
            each = min(n, _MOST, max(min(_FEWEST, n), room // len(kept)))
            # Each route on questions of its own, as far as they go: together they say more. All routes on one
            # question before any on the next, should the calls not go that far.
            wanted = [
                (order[(at + i * each + k) % n], route)
                for k in range(each)
                for i, route in enumerate(kept)
            ]
            at += each * len(kept)
            self._ask(wanted, self.left - until)
            kept.sort(key=lambda r: -promise(r))
            turn += 1
            if turn < _HALVINGS:
                kept = kept[: (len(kept) + 1) // 2]
        ranked = sorted((r for r in routes if r in self._tried), key=lambda r: -promise(r))
        return [r for r in ranked if promise(r) > 0]

    def _gain(self, route: Route) -> Gain:
        """What its last expert adds, as far as it was tried."""
        found = self._tried.get(route, {})
        if not found:
            return NO_GAIN
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
        """Ask along routes, the first ones first, as far as the calls go.

        A route is begun if the calls pay for all of it, whatever comes of those under way; where one needs
        fewer, the next begins. So which are begun does not depend on who answers first.
        """
        steady = frozenset(filter(self._steady, self._experts))
        stream = AnswerStream(self._source)
        waiting = deque(_Walk(question, route) for question, route in wanted)
        begun: list[_Walk] = []
        new: set[Key] = set()
        # Beginnings of routes, as two that share one are asked once; and those that may still take a call.
        seen: set[tuple[int, Route]] = set()
        promised: set[tuple[int, Route]] = set()

        def begin() -> None:
            while waiting:
                walk = waiting[0]
                self._take_known(walk, steady)
                more = {part for part in walk.parts() if part not in seen}
                if len(new) + len(promised) + len(more) > room:
                    return
                begun.append(waiting.popleft())
                seen.update(more)
                promised.update(more)
                ask(walk)

        def ask(walk: _Walk) -> None:
            if walk.left:
                promised.discard(walk.parts()[0])
                key = stream.ask(walk.request(), partial(heard, walk))
                if key not in self._asked:
                    new.add(key)

        def heard(walk: _Walk, answer: Answer) -> None:
            walk.asked.append(walk.request())
            walk.answers.append(answer)
            open_ = walk.parts()
            known = self._take_known(walk, steady)
            promised.difference_update(open_[:known])
            ask(walk)
            begin()

        begin()
        stream.run()
        self.left -= len(new)
        self._asked |= new
        for walk in begun:
            self._note(walk, steady)

    def _take_known(self, walk: _Walk, steady: Collection[int]) -> int:
        """Take the steps whose answers are those that experts give alone, and return their number."""
        before = walk.left
        while walk.left:
            route = walk.route[: len(walk.answers) + 1]
            if _answered(walk.answers) and not self._known(route, steady):
                break
            walk.asked.append(None)
            walk.answers.append(self._first[walk.question][route[-1]].answer)
        return before - walk.left

    def _note(self, walk: _Walk, steady: Collection[int]) -> None:
        """Note how good the answers of a route are, and who reacts to what it is shown."""
        outcomes: list[Outcome] = []
        for length, request in enumerate(walk.asked, start=1):
            route = walk.route[:length]
            alone = self._first[walk.question][route[-1]]
            if request is None:
                outcomes.append(alone)
            else:
                outcomes += self._source.ask([request])
            if length == 1:
                continue
            self._tried.setdefault(route, {})[walk.question] = list(outcomes)
            if _answered(walk.answers[: length - 1]) and not self._known(route, steady):
                self._reactions[route[-1]] += 1
                said = outcomes[-1].answer["text"]
                self._reacts[route[-1]] |= said != alone.answer["text"]


@dataclass
class _Walk:
    """A route on a question, as far as it has got.

    Attributes:
        question: By position.
        route: Experts, by position.
        answers: Of the first of them.
        asked: What each was asked; None where its answer is the one that it gives alone.
    """

    question: int
    route: Route
    answers: list[Answer] = field(default_factory=list)
    asked: list[Request | None] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Experts still to be asked."""
        return len(self.route) - len(self.answers)

    def parts(self) -> list[tuple[int, Route]]:
        """The question and each longer beginning of the route, up to all of it."""
        done = len(self.answers)
        return [(self.question, self.route[:k]) for k in range(done + 1, len(self.route) + 1)]

    def request(self) -> Request:
        """To the next one."""
        return Request(self.question, self.route[len(self.answers)], list(self.answers))


def _answered(answers: Sequence[Answer]) -> bool:
    """Is there one that the next expert reads?"""
    return any(answer["error"] is None for answer in answers)


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
