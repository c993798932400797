"""Whom to plan for in a pool that is too large to plan for all: the best by themselves, and for others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from der_graph.policies.planning.belief import (
    Told,
    ask,
    believe,
)
from der_graph.policies.planning.tables import Floats, Ints, Tables, sigmoid

MOST = 8
"""Experts planned for."""


def candidates(
    tables: Tables,
    told: Sequence[Told],
    mask: npt.NDArray[np.bool_],
    costs: Floats,
    price: float,
) -> Ints:
    """The most promising experts of a large pool.

    Args:
        tables: What is believed of all.
        told: The answers so far.
        mask: (N,) who may be asked.
        costs: (N,) of each, in units of asking everyone.
        price: Quality given up for that.

    Returns:
        (K,) in the pool's order, K at most `MOST`.
    """
    asked = [answer.expert for answer in told]
    open_to = mask.copy()
    open_to[asked] = False
    free = np.flatnonzero(open_to)
    if len(free) <= MOST:
        return free if len(free) else np.zeros(1, dtype=np.int64)
    nodes = believe(tables, told)
    right = nodes.joint.sum(axis=2)[0] @ sigmoid(tables.logit[free][:, None] + tables.hardness).T
    if len(tables.right_shift) > 1:
        right = np.maximum(right, ask(tables, nodes, free).right.sum(axis=(2, 3))[0])
        # Somebody may be worth asking for what others make of it.
        led = tables.wrong_shift[tables.step_context[0, free].max(axis=1)][:, free]
        led = np.maximum(led, tables.right_shift[tables.claim_context[free]][:, free])
        after = sigmoid(tables.logit[free] + led).max(axis=1)
        right = np.stack([right, np.maximum(right, after - 0.05)])
    else:
        right = right[None]
    chosen: dict[int, None] = {}
    scores = [r - p * costs[free] for r in right for p in _around(price)]
    ranks = [np.argsort(-score, kind="stable")[:MOST].tolist() for score in scores]
    for place in range(MOST):
        for rank in ranks:
            if len(chosen) < MOST:
                chosen.setdefault(rank[place])
    return free[sorted(chosen)]


def _around(price: float) -> tuple[float, ...]:
    """Prices whose best experts are candidates: an expert that is cheap or good for a part of a plan."""
    return (price, 0.2 * price, 4.0 * price + 0.01)
