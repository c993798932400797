"""What a call is expected to cost: learnt from what calls did cost, where they are charged by what they use.

    first answers ──fit_call_costs──> sizes of calls, how dear each question was ──expected_costs──> costs

The price that a pool file names is the most that a call may cost, for budgets; by tokens, real calls cost a
small part of it. Sizes are kept and not costs, so that other prices need no other answers. Knows nothing of
texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.nodes.reliability.charge import CallSize, Charge

Floats = npt.NDArray[np.float32]


class CostScale(NamedTuple):
    """What a price of cost counts in: fixed in training, so that a price means the same over every pool.

    Attributes:
        total: Cost that is worth one unit of quality at a price of 1: of asking everyone once, in training.
        experts: How many experts that were.
        unit: What costs counted, such as `usd`; empty where it is not known.
    """

    total: float
    experts: int
    unit: str = ""


def fit_call_costs(
    sizes: Sequence[Sequence[CallSize | None]], charges: Sequence[Charge]
) -> dict[str, Floats]:
    """Learn from first answers; empty if every call costs the same.

    Args:
        sizes: [question][expert]: what the call used; None for a failed one, or where nobody counted.
        charges: How the calls of each expert are charged.

    Returns:
        `call_size` (4, experts): mean size, NaN unknown; and `probe_cost` (questions, experts): cost of the
        call in means of its expert, NaN unknown.
    """
    if all(charge.fixed for charge in charges):
        return {}
    none = CallSize(*[np.nan] * 4)
    table = np.array([[size or none for size in row] for row in sizes], dtype=np.float64)
    known = ~np.isnan(table[:, :, 0])
    counts = known.sum(axis=0)
    means = np.where(known[:, :, None], table, 0.0).sum(axis=0) / np.maximum(counts, 1)[:, None]
    means[counts == 0] = np.nan
    ratios = np.full(known.shape, np.nan)
    for i, charge in enumerate(charges):
        usual = charge.of(CallSize(*means[i])) if counts[i] else 0.0
        if not charge.fixed and usual > 0:
            ratios[known[:, i], i] = [
                charge.of(CallSize(*size)) / usual for size in table[known[:, i], i]
            ]
    return {"call_size": means.T.astype(np.float32), "probe_cost": ratios.astype(np.float32)}


def expected_costs(
    costs: Sequence[float], charges: Sequence[Charge], sizes: Floats | None
) -> list[float]:
    """Expected cost of a call of each expert.

    Args:
        costs: What a call costs, or costs at most.
        charges: How calls are charged; none if every call costs what `costs` says.
        sizes: (4, experts) mean size of a call, NaN unknown; None for none known.
    """
    if sizes is None or not charges:
        return [float(cost) for cost in costs]
    return [
        float(cost) if charge.fixed or np.isnan(size[0]) else charge.of(CallSize(*map(float, size)))
        for cost, charge, size in zip(costs, charges, sizes.T, strict=True)
    ]
