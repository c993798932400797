"""A planned choice: its probabilities and its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from der_graph.policies.planning.knowledge import Knowledge
from der_graph.policies.planning.tables import Floats, Ints, mean_skill
from der_graph.policies.planning.tree import Worth

_SHARPNESS = 0.02  # of probabilities: a choice worth this much less has 1/e of the weight


def probabilities(
    mask: Sequence[bool], experts: Ints, worth: Floats, end: float, best: int
) -> list[float]:
    """A soft maximum of the worths, with the chosen one the most probable."""
    score = np.full(len(mask), -np.inf)
    score[experts] = worth
    score[-1] = end
    score[~np.array(mask, dtype=np.bool_)] = -np.inf
    if not np.isfinite(score).any():
        score[best] = 0.0
    share = np.exp((score - score.max()) / _SHARPNESS)
    share[best] = share.max()
    found: list[float] = (share / share.sum()).tolist()
    return found


def explanation_of(
    known: Knowledge, kind: int, best: int, experts: Ints, worth: Worth, value: float, may_end: bool
) -> dict[str, Any]:
    """What a trace shows; see `Planner`."""
    worths = {
        known.names[e]: round(float(w), 4)
        for e, w in zip(experts.tolist(), worth.ask.tolist(), strict=True)
        if np.isfinite(w)
    }
    if may_end:
        worths["END"] = round(worth.end, 4)
    right, gain = round(worth.end, 4), round(float(value) - worth.end, 4)
    found: dict[str, Any] = {
        "agent": "planner",
        "kind": known.kind_names[kind] if known.kind_names else kind,
        "source": None,
        "skill": None,
        "right_now": right,
        "expected_gain": gain,
        "worth": worths,
    }
    if best == len(known.names):
        return {
            **found,
            "why": f"the answer is right with probability {right:.2f}: no call is worth more",
        }
    skill = round(float(mean_skill(known.logit[kind][[best]], known.spread)[0]), 3)
    source = known.source[kind][best]
    so_far = f"the answer so far is right with probability {right:.2f}; " if may_end else ""
    why = f"{so_far}{known.names[best]} is right on {skill:.2f} of such questions ({source})"
    if may_end:
        why += f", asking gains {gain:.3f} after its price"
    return {**found, "source": source, "skill": skill, "why": why}
