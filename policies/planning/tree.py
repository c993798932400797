r"""All that may happen on the rest of a route, and the best plan through it.

    beliefs now ──who is asked, what comes of it──> tree ──price, budget, time──> worth of each choice

A node is what has been seen; its children are one expert's possible answers: the value of a class that is
there, a new value, or a step. What a node is worth is the best of ending there (the probability that the last
answer is right) and of asking somebody (the mean over the answers, less the price of the call): exact dynamic
programming, to the depth. All nodes of a level are one array. The tree knows nothing of the price, so that a
sweep of prices, budgets and lists costs a backward pass each, a millisecond or less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.policies.planning.belief import (
    Nodes,
    Told,
    after_any_claim,
    after_claim,
    after_step,
    ask,
    believe,
    right_mass,
    with_candidates,
)
from der_graph.policies.planning.tables import (
    Floats,
    Ints,
    Tables,
)

_RARE = 1e-3
"""Answers less probable than this are not planned for; what they were worth counts as nothing."""


class Bounds(NamedTuple):
    """What a plan may use, beside the price.

    Attributes:
        allowed: (K,) candidates that may be asked.
        cost: What may be spent from here on.
        seconds: Time from here on.
    """

    allowed: npt.NDArray[np.bool_]
    cost: float = float("inf")
    seconds: float = float("inf")


class Worth(NamedTuple):
    """What the choices at the root are worth.

    Attributes:
        end: Probability that the last answer is right; 0 without one.
        ask: (K,) of each candidate, with the best plan after it; minus infinity where it may not be asked.
    """

    end: float
    ask: Floats


@dataclass(frozen=True, eq=False)
class _Level:
    """Nodes of one depth.

    Attributes:
        end: (n,) worth of ending here.
        mass: (n,) probability of being here, if those on the path are asked.
        free: (n, K) candidates not asked yet.
        spent: (n,) cost of the path from the root.
        seconds: (n,) its time.
        parent: (n,) `node * K + candidate` of the level above.
        last_right: (n, K) worth of asking and then ending, on the last level; else None.
    """

    end: Floats
    mass: Floats
    free: npt.NDArray[np.bool_]
    spent: Floats
    seconds: Floats
    parent: Ints
    last_right: Floats | None


class Tree:
    """A tree from one situation.

    Args:
        tables: The beliefs before any answer.
        told: The answers so far.
        experts: (K,) who may be asked.
        costs: (K,) of each.
        seconds: (K,) of each; 0 where unknown.
        depth: Most calls to come, at least 1.
    """

    def __init__(
        self,
        tables: Tables,
        told: Sequence[Told],
        experts: Ints,
        costs: Floats,
        seconds: Floats,
        depth: int,
    ) -> None:
        self.experts, self._costs, self._seconds = experts, costs, seconds
        nodes = with_candidates(tables, believe(tables, told), told, experts)
        asked = {answer.expert for answer in told}
        free = np.array([[expert not in asked for expert in experts.tolist()]])
        zero = np.zeros(1)
        place = _Place(free, zero, zero, np.zeros(1, dtype=np.int64))
        self._levels: list[_Level] = []
        for left in range(min(depth, max(1, int(free.sum()))), 0, -1):
            last = right_mass(tables, nodes, experts) if left == 1 else None
            self._levels.append(
                _Level(
                    nodes.right,
                    nodes.mass,
                    place.free,
                    place.spent,
                    place.seconds,
                    place.parent,
                    last,
                )
            )
            if left > 1:
                nodes, place = _children(tables, nodes, place, self)

    def solve(self, price: float, bounds: Bounds) -> Worth:
        """The best plan.

        Args:
            price: Quality given up for one unit of cost.
            bounds: What it may use.
        """
        k = len(self.experts)
        below, parent = np.zeros(0), np.zeros(0, dtype=np.int64)
        for level in reversed(self._levels):
            if level.last_right is not None:  # the deepest one
                worth = level.last_right
            else:
                sums = np.bincount(parent, below, minlength=len(level.end) * k)
                worth = sums.astype(np.float64).reshape(-1, k)
            worth = worth - price * level.mass[:, None] * self._costs
            fits = level.free & bounds.allowed
            if np.isfinite(bounds.cost):
                fits = fits & (level.spent[:, None] + self._costs <= bounds.cost)
            if np.isfinite(bounds.seconds):
                fits = fits & (level.seconds[:, None] + self._seconds <= bounds.seconds)
            worth = np.where(fits, worth, -np.inf)
            below = np.maximum(level.end, worth.max(axis=1, initial=-np.inf))
            parent = level.parent
        return Worth(float(self._levels[0].end[0]), worth[0])

    def costs_of(self, candidate: Ints) -> tuple[Floats, Floats]:
        """Cost and seconds of candidates by position."""
        return self._costs[candidate], self._seconds[candidate]


class _Place(NamedTuple):
    """Where nodes are in the tree; see `_Level`."""

    free: npt.NDArray[np.bool_]
    spent: Floats
    seconds: Floats
    parent: Ints


class _Outcome(NamedTuple):
    """One kind of answer of every candidate at every node; see `Nodes`."""

    joint: Floats
    classes: Ints
    last: Ints
    context: Ints
    possible: npt.NDArray[np.bool_]


def _children(tables: Tables, nodes: Nodes, place: _Place, tree: Tree) -> tuple[Nodes, _Place]:
    """The next level."""
    experts = tree.experts
    shape = (len(nodes.last), len(experts))
    outcomes = _outcomes(tables, nodes, experts, shape)
    # A claim may open a class that a step does not.
    width = max(outcome.joint.shape[3] for outcome in outcomes)
    parts = [_chosen(outcome, nodes, place, width) for outcome in outcomes]
    joint = np.concatenate([part[0] for part in parts])
    classes, last, context, at = (np.concatenate([part[i] for part in parts]) for i in range(1, 5))
    node, candidate = at // shape[1], at % shape[1]
    free = place.free[node].copy()
    free[np.arange(len(node)), candidate] = False
    costs, seconds = tree.costs_of(candidate)
    copied = source = None
    if nodes.copied is not None and nodes.source is not None and tables.copies is not None:
        weight = tables.copies[experts[candidate][:, None], experts[None, :]]
        better = weight > nodes.copied[node]
        copied = np.where(better, weight, nodes.copied[node])
        source = np.where(better, last[:, None], nodes.source[node])
    return (
        Nodes(joint, classes, last, context, copied, source),
        _Place(free, place.spent[node] + costs, place.seconds[node] + seconds, at),
    )


def _outcomes(
    tables: Tables, nodes: Nodes, experts: Ints, shape: tuple[int, int]
) -> list[_Outcome]:
    split = ask(tables, nodes, experts)
    every = np.ones(shape, dtype=np.bool_)
    claim_context = np.broadcast_to(tables.claim_context[experts], shape)
    classes = np.broadcast_to(nodes.classes[:, None], shape)
    found: list[_Outcome] = []
    if tables.comparable:
        new = after_claim(tables, nodes, split, experts, 0)
        # The new class takes the first column that is free.
        joint = np.zeros_like(new)
        joint[..., :-1] = new[..., :-1]
        column = nodes.classes + 1
        rows = np.arange(shape[0])
        joint[rows, :, :, column] = new[..., -1]
        found.append(_Outcome(joint, classes + 1, classes + 1, claim_context, every))
        for k in range(1, nodes.joint.shape[2]):
            joint = after_claim(tables, nodes, split, experts, k)
            there = np.broadcast_to((nodes.classes >= k)[:, None], shape)
            found.append(_Outcome(joint, classes, np.full(shape, k), claim_context, there))
    else:
        one = np.ones(shape, dtype=np.int64)
        found.append(_Outcome(after_any_claim(split), one, one, claim_context, every))
    for form in range(tables.steps.shape[2]):
        share = tables.steps[nodes.context[:, None], experts[None, :], form]
        if not share.any():
            continue
        joint = after_step(tables, nodes, split, experts, form)
        context = tables.step_context[nodes.context[:, None], experts[None, :], form]
        found.append(_Outcome(joint, classes, np.zeros_like(context), context, share > 0))
    return found


def _chosen(
    outcome: _Outcome, nodes: Nodes, place: _Place, width: int
) -> tuple[Floats, Ints, Ints, Ints, Ints]:
    """The nodes of an outcome that can come about: joint, classes, last, context, parent."""
    mass = outcome.joint.sum(axis=(2, 3))
    real = outcome.possible & place.free & (mass > _RARE * nodes.mass[:, None])
    at = np.flatnonzero(real)
    joint = outcome.joint.reshape(-1, *outcome.joint.shape[2:])[at]
    wider = np.zeros((len(at), joint.shape[1], width))
    wider[..., : joint.shape[2]] = joint
    return (
        wider,
        outcome.classes.reshape(-1)[at],
        outcome.last.reshape(-1)[at],
        outcome.context.reshape(-1)[at],
        at,
    )
