"""Is DER better, or was it luck? Paired tests against every other method, also at equal cost.

    qualities and costs, question by question ──compare──> differences with intervals and p-values

The curve of one agent over its knob is compared with a method at the method's own cost. Between two
points of the knob a system can take either price at random, so its expected quality there is the
interpolation of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from der_graph.policies.report_parts import Comparison, EqualCost, Estimate
from der_graph.policies.statistics import (
    bootstrap_intervals,
    holm,
    mcnemar_p,
    paired_difference,
    permutation_p,
)

Floats = NDArray[np.float64]


class Scores(NamedTuple):
    """What a method got, question by question; arrays of shape (n,).

    Attributes:
        quality: In [0, 1].
        cost: In the pool's unit.
    """

    quality: Floats
    cost: Floats


def compare(
    der: Scores,
    others: Mapping[str, Scores],
    curve: Mapping[str, Scores],
    *,
    seed: int = 0,
) -> list[Comparison]:
    """Compare DER with other methods on the same questions.

    Args:
        der: DER at its default price.
        others: Other methods, by name.
        curve: DER at every point of its knob, by name.
        seed: Of resampling.

    Returns:
        One comparison per method, in the order given; p-values are adjusted for all of them together.
    """
    p_values = [permutation_p(der.quality, other.quality, seed=seed) for other in others.values()]
    found = []
    adjusted = holm(p_values)
    for (name, other), p, p_holm in zip(others.items(), p_values, adjusted, strict=True):
        table = np.stack([der.quality - other.quality, der.cost - other.cost], axis=1)
        quality, cost = bootstrap_intervals(table, seed=seed)
        binary = bool(np.isin([der.quality, other.quality], (0.0, 1.0)).all())
        found.append(
            Comparison(
                method=name,
                difference=Estimate(**quality._asdict()),
                cost_difference=Estimate(**cost._asdict()),
                better=int(np.sum(der.quality > other.quality)),
                worse=int(np.sum(der.quality < other.quality)),
                p=p,
                p_holm=p_holm,
                mcnemar_p=mcnemar_p(der.quality, other.quality) if binary else None,
                equal_cost=at_equal_cost(curve, other, seed=seed),
            )
        )
    return found


def at_equal_cost(curve: Mapping[str, Scores], other: Scores, *, seed: int = 0) -> EqualCost | None:
    """Compare DER's curve with a method at the method's mean cost.

    Args:
        curve: DER at every point of its knob, by name.
        other: The method.
        seed: Of resampling.

    Returns:
        The comparison; None where the curve does not reach that cost.
    """
    points = sorted(curve.items(), key=lambda item: float(item[1].cost.mean()))
    costs = [float(scores.cost.mean()) for _, scores in points]
    wanted = float(other.cost.mean())
    if not costs or not costs[0] <= wanted <= costs[-1]:
        return None
    upper = int(np.searchsorted(costs, wanted))
    lower = max(0, upper - 1)
    gap = costs[upper] - costs[lower]
    share = (wanted - costs[lower]) / gap if gap > 0 else 1.0
    quality = (1 - share) * points[lower][1].quality + share * points[upper][1].quality
    difference = paired_difference(quality, other.quality, seed=seed)
    return EqualCost(
        lower=points[lower][0],
        upper=points[upper][0],
        quality=float(quality.mean()),
        difference=Estimate(**difference._asdict()),
        p=permutation_p(quality, other.quality, seed=seed),
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the (cost, quality) points that no other beats at the same cost or less, by cost."""
    front: list[int] = []
    best = -np.inf
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            front.append(i)
            best = points[i][1]
    return front
