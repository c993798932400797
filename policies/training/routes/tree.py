"""What every route brings: the answers to the training questions along a tree of routes.

    questions x routes ──asked level by level──> answers, qualities, costs

A tree holds routes as sequences of experts, a parent always before its children, and the outcome of each on
every question. A small pool has all its routes in the tree; of a large one the experts that promise something
(`choose_experts`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from der_graph.policies.answers import AnswerSource, Outcome, Request
from der_graph.state import Answer

Route = tuple[int, ...]
Floats = npt.NDArray[np.float32]

FULL = 6
"""Experts in a tree, at most; larger pools are reduced to those that promise most."""
MOST_STATES = 300_000
"""Questions times routes that can still go on; longer routes are left out where there would be more."""
_PROBED = 40  # questions on which pairs of a large pool are tried
_PRICES = (0.02, 0.1, 0.4, 1.5)  # at which an expert may be useful


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

    def answers(self, route: int, question: int) -> list[Answer]:
        """The answers along a route."""
        experts = self.routes[route]
        along = [self.position[experts[: k + 1]] for k in range(len(experts))]
        return [self.outcomes[i][question].answer for i in along]


def collect_tree(source: AnswerSource, experts: Sequence[int], longest: int) -> RouteTree:
    """Ask along every route of some experts without repeats.

    Args:
        source: The training questions.
        experts: Which experts, by position.
        longest: Most experts on a route.
    """
    n, pool = len(source.examples), len(source.experts)
    chosen = sorted(experts)
    longest = min(longest, len(chosen))
    routes: list[Route] = [()]
    outcomes: list[list[Outcome]] = [[]]
    position: dict[Route, int] = {(): 0}
    along: dict[Route, list[list[Answer]]] = {(): [[] for _ in range(n)]}
    for depth in range(1, longest + 1):
        inner = sum(len(list(itertools.permutations(chosen, k))) for k in range(depth))
        if depth > 2 and inner * n > MOST_STATES:
            return RouteTree(routes, outcomes, pool, depth - 1)
        new = list(itertools.permutations(chosen, depth))
        requests = [Request(q, r[-1], along[r[:-1]][q]) for r in new for q in range(n)]
        asked = source.ask(requests)
        after: dict[Route, list[list[Answer]]] = {}
        for i, route in enumerate(new):
            mine = asked[i * n : (i + 1) * n]
            position[route] = len(routes)
            routes.append(route)
            outcomes.append(mine)
            if depth < longest:
                before = along[route[:-1]]
                after[route] = [[*before[q], mine[q].answer] for q in range(n)]
        along = after
    return RouteTree(routes, outcomes, pool, longest)


def choose_experts(
    source: AnswerSource,
    predicted: npt.NDArray[np.floating],
    costs: Sequence[float],
    most: int = FULL,
) -> list[int]:
    """Which experts of a large pool promise something.

    An expert does so alone, if at some price it is the best one for many questions; as a second opinion, if
    it is right where the best ones are wrong; or after another one, if it is better with its answer than
    without, or reacts to it while it is no use alone (a link of a chain).

    Args:
        source: The training questions.
        predicted: (questions, experts) quality to be expected of each alone.
        costs: Price of one call of each.
        most: How many at most.

    Returns:
        Their positions, in order.
    """
    n, pool = predicted.shape
    if pool <= most:
        return list(range(pool))
    share = np.asarray(costs) / max(sum(costs), 1e-12)
    first = np.array([[o.quality for o in row] for row in source.first_answers()])
    use = np.zeros(pool)
    for price in _PRICES:
        net = predicted - price * share
        best = net.argmax(axis=1)
        use += np.bincount(best, minlength=pool) / n
        # What a second opinion could add, were one told which of the two is right.
        alone = first[np.arange(n), best]
        adds = np.maximum(first - alone[:, None], 0.0).mean(axis=0) - price * share
        use += np.maximum(adds, 0.0)
    use += _pairs(source, first)
    return sorted(np.argsort(-use, kind="stable")[:most].tolist())


def _pairs(source: AnswerSource, first: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(experts,) what each gains by reading another's answer, or gives to who reads its own."""
    n, pool = first.shape
    some = np.random.default_rng(0).permutation(n)[:_PROBED].tolist()
    outcomes = source.first_answers()
    pairs = [(i, j) for i in range(pool) for j in range(pool) if i != j]
    requests = [Request(q, j, [outcomes[q][i].answer]) for i, j in pairs for q in some]
    asked = source.ask(requests)
    gains = np.zeros((pool, pool))
    for at, (i, j) in enumerate(pairs):
        mine = asked[at * len(some) : (at + 1) * len(some)]
        after = np.array([o.quality for o in mine])
        alone = first[some][:, j]
        changed = np.mean(
            [
                o.answer["text"] != outcomes[q][j].answer["text"]
                for o, q in zip(mine, some, strict=True)
            ]
        )
        better = float(np.maximum(after - np.maximum(alone, first[some][:, i]), 0.0).mean())
        link = 0.05 * changed if max(alone.mean(), first[:, i].mean()) < 0.5 else 0.0
        gains[i, j] = max(better, link)
    promise: npt.NDArray[np.float64] = gains.max(axis=0) + 0.5 * gains.max(axis=1)
    return promise
