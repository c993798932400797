"""A method over its knob, question by question: its quality at any mean cost between its points."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.policies.evaluation.statistics import paired_difference, permutation_p

Floats = npt.NDArray[np.float64]
DIGITS = 6
COMPARED_AT = (30.0, 45.0, 47.0, 55.0, 100.0)
"""Costs at which DER is compared with routers, question by question."""


class Curve(NamedTuple):
    """A condition over its knob; arrays of shape (prices, questions), means over seeds."""

    quality: Floats
    cost: Floats
    calls: Floats

    def ends(self) -> tuple[float, float]:
        """The cheapest and the dearest mean cost of the knob."""
        means = self.cost.mean(axis=1)
        return float(means.min()), float(means.max())

    def at(self, cost: float) -> tuple[Floats, Floats, Floats]:
        """Quality, cost and calls of every question at a mean cost, or at the end that is nearest to it."""
        means = self.cost.mean(axis=1)
        order = np.argsort(means, kind="stable")
        means = means[order]
        upper = int(np.searchsorted(means, np.clip(cost, means[0], means[-1])))
        lower = max(0, upper - 1)
        gap = means[upper] - means[lower]
        share = float(np.clip((cost - means[lower]) / gap, 0, 1)) if gap > 0 else 1.0
        low, high = order[lower], order[upper]
        return tuple((1 - share) * table[low] + share * table[high] for table in self)

    def means(self) -> list[list[float]]:
        """(cost, quality) of every price, by cost."""
        pairs = zip(self.cost.mean(axis=1), self.quality.mean(axis=1), strict=True)
        return [[round(float(c), DIGITS), round(float(q), DIGITS)] for c, q in sorted(pairs)]


def curve_of(points: npt.ArrayLike) -> Curve:
    """The curve of (prices, 3, questions): quality, cost and calls."""
    return Curve(*np.asarray(points, dtype=np.float64).transpose(1, 0, 2))


def differences(curves: dict[str, Curve]) -> list[dict[str, Any]]:
    """DER minus every other method, paired by question.

    Methods with a knob at some costs that both reach. Those without at their own cost, or DER's dearest if
    that is less; and not if they are cheaper than it ever is: to be better for more money says nothing.

    Args:
        curves: By method, `der` among them; every one over the same questions.
    """
    der = curves["der"]
    low, high = der.ends()
    found = []
    for name, other in curves.items():
        once = len(other.cost) == 1
        ends = other.ends()
        if once and ends[0] < low:
            continue
        for cost in (min(high, ends[0]),) if once else COMPARED_AT:
            if once or (max(low, ends[0]) <= cost <= min(high, ends[1]) and name != "der"):
                mine, theirs = der.at(cost), other.at(cost)
                gap = paired_difference(mine[0], theirs[0], seed=0)
                found.append(
                    {"method": name, "cost": round(cost, DIGITS), "difference": gap._asdict(),
                     "other_cost": round(float(theirs[1].mean()), DIGITS),
                     "p": permutation_p(mine[0], theirs[0], seed=0)}
                )  # fmt: skip
    return found
