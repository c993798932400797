"""What every route brings: the answers to the training questions along a tree of routes.

    questions x routes ──asked level by level──> answers, qualities, costs

A tree holds routes as sequences of experts, a parent always before its children, and the outcome of each on
every question. A small pool has all its routes in the tree; of a large one those of a shortlist of experts
(`shortlist.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import chain
from math import perm

import numpy as np
import numpy.typing as npt

from der_graph.nodes.values import is_refusal
from der_graph.policies.answers import AnswerSource, Outcome, Request
from der_graph.policies.answers.stream import AnswerStream
from der_graph.state import Answer

Route = tuple[int, ...]
Levels = list[list[Route]]  # by length
Floats = npt.NDArray[np.float32]

FULL = 6
"""Experts in a tree, at most; of larger pools there is a shortlist."""
MOST_STATES = 300_000
"""Questions times routes that can still go on; longer routes are left out where there would be more."""
_BLOCK = 2_000  # questions that go down the routes together


@dataclass(frozen=True, eq=False)
class RouteTree:
    """Routes and what they bring.

    Attributes:
        routes: Sequences of experts; the empty one first, parents before children.
        outcomes: [route][question]: the last answer of the route; none for the empty route.
        experts: Number of experts in the pool.
        longest: Most experts on a route.
    """

    routes: list[Route]
    outcomes: list[list[Outcome]]
    experts: int
    longest: int

    @cached_property
    def position(self) -> dict[Route, int]:
        """Where each route is in the tree."""
        return {route: i for i, route in enumerate(self.routes)}

    @cached_property
    def depth(self) -> npt.NDArray[np.int64]:
        """(routes,) experts asked."""
        return np.array([len(route) for route in self.routes])

    @cached_property
    def children(self) -> npt.NDArray[np.int64]:
        """(routes, experts): the route with one expert more; -1 where the tree does not have it."""
        table = np.full((len(self.routes), self.experts), -1, dtype=np.int64)
        for i, route in enumerate(self.routes[1:], start=1):
            table[self.position[route[:-1]], route[-1]] = i
        return table

    def over(self, chosen: Sequence[int]) -> RouteTree:
        """The same tree in a pool of those experts alone; the tree must know no others."""
        at = {expert: i for i, expert in enumerate(chosen)}
        routes = [tuple(at[expert] for expert in route) for route in self.routes]
        return RouteTree(routes, self.outcomes, len(chosen), self.longest)

    @cached_property
    def inner(self) -> npt.NDArray[np.int64]:
        """The routes from which the tree goes on."""
        return np.flatnonzero((self.children >= 0).any(axis=1))

    @cached_property
    def quality(self) -> Floats:
        """(questions, routes): quality of the answer that stands at the end; 0 for the empty route.

        A failed call leaves the answer before it standing.
        """
        n = len(self.outcomes[1])
        table = np.zeros((n, len(self.routes)), dtype=np.float32)
        for i, route in enumerate(self.routes[1:], start=1):
            before = table[:, self.position[route[:-1]]]
            failed = np.array([o.answer["error"] is not None for o in self.outcomes[i]])
            table[:, i] = np.where(failed, before, [o.quality for o in self.outcomes[i]])
        return table

    @cached_property
    def cost(self) -> Floats:
        """(questions, routes): cost of the last call of each route, in the pool's unit."""
        n = len(self.outcomes[1])
        table = np.zeros((n, len(self.routes)), dtype=np.float32)
        for i in range(1, len(self.routes)):
            table[:, i] = [o.answer["cost"] for o in self.outcomes[i]]
        return table

    @cached_property
    def along(self) -> list[list[int]]:
        """[route]: positions of the routes that lead to it, itself last."""
        return [[self.position[r[: k + 1]] for k in range(len(r))] for r in self.routes]

    @cached_property
    def value(self) -> npt.NDArray[np.int64]:
        """(questions, routes): value of the last answer by number; equal ones are equal within a question.

        An answer without a value has a number of its own; the empty route has 0.
        """
        table = np.zeros((len(self.outcomes[1]), len(self.routes)), dtype=np.int64)
        codes: list[dict[object, int]] = [{} for _ in table]
        for i in range(1, len(self.routes)):
            for q, outcome in enumerate(self.outcomes[i]):
                value = outcome.answer["value"]
                said: object = (i,) if value is None else value
                table[q, i] = codes[q].setdefault(said, len(codes[q]))
        return table

    @cached_property
    def answered(self) -> npt.NDArray[np.int64]:
        """(questions, routes): answers along each route; failed calls are none."""
        return self._along(lambda answer: answer["error"] is None)

    @cached_property
    def may_end(self) -> npt.NDArray[np.bool_]:
        """(questions, routes): is there an answer that is no refusal? Else END waits; see `RouteRules`."""
        refusal = cache(is_refusal)  # many routes bring the same texts
        told = self._along(lambda a: a["error"] is None and not refusal(a["text"]))
        return np.asarray(told > 0)

    def _along(self, counts: Callable[[Answer], bool]) -> npt.NDArray[np.int64]:
        """(questions, routes): how many answers along each route count."""
        table = np.zeros((len(self.outcomes[1]), len(self.routes)), dtype=np.int64)
        for i, route in enumerate(self.routes[1:], start=1):
            here = [counts(outcome.answer) for outcome in self.outcomes[i]]
            table[:, i] = table[:, self.position[route[:-1]]] + here
        return table

    def answers(self, route: int, question: int) -> list[Answer]:
        """The answers along a route."""
        return [self.outcomes[i][question].answer for i in self.along[route]]


def collect_tree(source: AnswerSource, experts: Sequence[int], longest: int) -> RouteTree:
    """Ask along the routes of some experts, without repeats.

    Args:
        source: The training questions.
        experts: Which experts, by position.
        longest: Most experts on a route; fewer where there would be too many routes.
    """
    chosen = sorted(experts)
    levels = _all_routes(len(source.examples), chosen, min(longest, len(chosen)))
    found = _outcomes(source, levels)
    routes = [route for level in levels for route in level]
    outcomes = [[], *(found[route] for route in routes)]
    return RouteTree([(), *routes], outcomes, len(source.experts), len(levels))


def calls_of_all_routes(source: AnswerSource, experts: Sequence[int], longest: int) -> int:
    """New answers a question that all routes take beyond first ones, at most."""
    reading = sum(source.reads_answers(i) for i in experts)
    return sum(reading * perm(len(experts) - 1, k) for k in range(1, min(longest, len(experts))))


def _all_routes(questions: int, chosen: Sequence[int], longest: int) -> Levels:
    """All routes, but for the longest where they would be too many."""
    levels: Levels = [[()]]
    while len(levels) <= longest and not _too_many(levels, questions):
        levels.append(_longer(levels[-1], chosen))
    return levels[1:]


def _too_many(levels: Levels, questions: int) -> bool:
    return len(levels) > 2 and sum(map(len, levels)) * questions > MOST_STATES


def _longer(routes: Sequence[Route], chosen: Sequence[int]) -> list[Route]:
    return [(*route, j) for route in routes for j in chosen if j not in route]


def _outcomes(source: AnswerSource, levels: Levels) -> dict[Route, list[Outcome]]:
    """The last outcome of every route on every question."""
    if any(source.at_once(route[0]) for route in levels[0]):
        _ask_as_they_come(source, levels)
    n = len(source.examples)
    found: dict[Route, list[Outcome]] = {route: [] for level in levels for route in level}
    for start in range(0, n, _BLOCK):
        block = range(start, min(n, start + _BLOCK))
        along: dict[Route, list[list[Answer]]] = {(): [[] for _ in block]}
        for level in levels:
            requests = [
                Request(question, route[-1], answers)
                for route in level
                for question, answers in zip(block, along[route[:-1]], strict=True)
            ]
            asked = source.ask(requests)
            for k, route in enumerate(level):
                found[route] += asked[k * len(block) : (k + 1) * len(block)]
            if level is not levels[-1]:  # nobody reads the last answers
                along = {
                    route: [
                        [*before, outcome.answer]
                        for before, outcome in zip(
                            along[route[:-1]], found[route][start:], strict=True
                        )
                    ]
                    for route in level
                }
    return found


def _ask_as_they_come(source: AnswerSource, levels: Levels) -> None:
    """Ask along all routes, each going on as soon as its own last answer is there."""
    stream = AnswerStream(source)
    longer: dict[Route, list[Route]] = {}
    for route in chain(*levels):
        longer.setdefault(route[:-1], []).append(route)

    def heard(question: int, route: Route, before: list[Answer], answer: Answer) -> None:
        go_down(question, route, [*before, answer])

    def go_down(question: int, route: Route, answers: list[Answer]) -> None:
        for next_ in longer.get(route, ()):
            request = Request(question, next_[-1], answers)
            stream.ask(request, partial(heard, question, next_, answers))

    for question in range(len(source.examples)):
        go_down(question, (), [])
    stream.run()
