"""A first teacher: what each choice is worth, by induction from the end of the routes to their beginning.

    tree, question features ──per route, from long to short──> Q(question, route, choice) at every price

At the end of a route its quality is known. One step earlier a ridge regression predicts, from the question
and from which answers agree and what they look like, what each choice brings; the best predicted choice is
taken, and what it really brought is handed one step back (Longstaff and Schwartz 2001). Every question's
choices are those of a fit without it, so that the utilities reported are those on unseen questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.policies.observation.evidence import appearance
from der_graph.policies.training.routes.axes import FOLDS
from der_graph.policies.training.routes.tree import RouteTree

Floats = npt.NDArray[np.float32]

_STRENGTH = 20.0  # of the ridge
_RARE = 8  # a pattern of answers seen less often has no column of its own


class Worth(NamedTuple):
    """What choices are worth.

    Attributes:
        prices: (prices,) prices of cost.
        choices: (questions, inner routes, experts + 1, prices): predicted utility from here on, END last;
            -inf where the tree does not have the choice, or the rules do not allow it. Fitted without the
            question.
        utility: (questions, prices): what the best predicted choices brought.
    """

    prices: Floats
    choices: Floats
    utility: Floats


def backward_induction(
    tree: RouteTree,
    features: Floats,
    fold: npt.NDArray[np.int64],
    prices: Sequence[float],
    total: float,
) -> Worth:
    """Work out what every choice is worth.

    Args:
        tree: Routes and outcomes.
        features: (questions, dims) of the questions, fitted without their own outcomes.
        fold: (questions,) fold of each.
        prices: Prices of cost.
        total: Cost of asking everyone once.
    """
    n, charged = len(features), np.asarray(prices, dtype=np.float32)
    looks = Looks(tree)
    row = {int(route): i for i, route in enumerate(tree.inner)}
    choices = np.full((n, len(row), tree.experts + 1, len(charged)), -np.inf, dtype=np.float32)
    value = np.repeat(tree.quality[:, :, None], len(charged), axis=2)
    for route in sorted(row, key=lambda r: -int(tree.depth[r])):
        asked = np.flatnonzero(tree.children[route] >= 0)
        children = tree.children[route, asked]
        fee = tree.cost[:, children, None] * charged / total
        brings = value[:, children] - fee
        if route:  # END
            here = np.repeat(tree.quality[:, route, None, None], len(charged), axis=2)
            brings = np.concatenate([brings, here], axis=1)
        design = _design(looks, features, route)
        flat = brings.reshape(n, -1).astype(np.float64)
        predicted = np.tile(flat.mean(axis=0), (n, 1))
        for f in range(FOLDS):
            held, rest = fold == f, fold != f
            if held.any() and rest.any():
                mean = flat[rest].mean(axis=0)
                predicted[held] = mean + design[held] @ _solve(design[rest], flat[rest] - mean)
        shaped = predicted.reshape(brings.shape)
        if route:
            shaped[~tree.may_end[:, route], -1] = -np.inf
        at = [*asked.tolist(), tree.experts] if route else asked.tolist()
        choices[:, row[route], at] = shaped
        value[:, route] = np.take_along_axis(brings, shaped.argmax(axis=1)[:, None], axis=1)[:, 0]
    return Worth(charged, choices, value[:, 0])


class Looks:
    """Who agrees with whom along the routes of a tree, and what the answers look like.

    Args:
        tree: Routes and outcomes.

    Attributes:
        along: As the tree's.
        value: As the tree's.
        kind: (questions, routes) what the last answer looks like, by number.
    """

    def __init__(self, tree: RouteTree) -> None:
        self.along, self.value = tree.along, tree.value
        self.kind = np.zeros_like(self.value)
        kinds: dict[tuple[object, ...], int] = {}
        for i in range(1, len(tree.routes)):
            for q, outcome in enumerate(tree.outcomes[i]):
                answer = outcome.answer
                look = appearance(answer["text"], answer["value"])
                kind = (*look[:3], look[4], look[3] > 0.6, answer["error"] is not None)
                self.kind[q, i] = kinds.setdefault(kind, len(kinds))
        self.kinds = max(len(kinds), 1)


def _design(looks: Looks, features: Floats, route: int) -> npt.NDArray[np.float64]:
    """(questions, columns): question, answers, and both together."""
    n = len(features)
    columns: list[npt.NDArray[np.floating]] = [np.ones((n, 1)), features]
    along = looks.along[route]
    if along:
        value, kind = looks.value[:, along], looks.kind[:, along]
        steps = len(along)
        pairs = [value[:, i] == value[:, j] for i in range(steps) for j in range(i)]
        each = [kind[:, i] == k for i in range(steps) for k in range(looks.kinds)]
        last = [kind[:, -1] == k for k in range(looks.kinds)]
        first = np.stack(
            [(value[:, [i]] == value[:, : i + 1]).argmax(axis=1) for i in range(steps)]
        )
        keys = list(map(tuple, np.concatenate([first.T, kind], axis=1).tolist()))
        common = [key for key, count in Counter(keys).items() if count >= _RARE]
        patterns = np.array([[key == c for c in common] for key in keys]).reshape(n, -1)
        alone = np.concatenate([np.stack([*each, *pairs], axis=1), patterns], axis=1)
        together = np.concatenate([np.stack([*pairs, *last], axis=1), patterns], axis=1)
        together = together[:, together.any(axis=0)]
        columns.append(alone[:, alone.any(axis=0)].astype(np.float64))
        columns.append((together[:, :, None] * features[:, None, :]).reshape(n, -1))
    return np.concatenate(columns, axis=1).astype(np.float64)


def _solve(
    design: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    rows, columns = design.shape
    if columns > rows:
        gram = design @ design.T + _STRENGTH * np.eye(rows)
        solved: npt.NDArray[np.float64] = design.T @ np.linalg.solve(gram, wanted)
        return solved
    gram = design.T @ design + _STRENGTH * np.eye(columns)
    return np.asarray(np.linalg.solve(gram, design.T @ wanted), dtype=np.float64)
