"""The features of the experts in many situations: price, what each did on the route, and what it is worth.

    profiles, prices, answers so far ──> (n, experts, features)

`der_graph.policies.observation.features` says what each of them means.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.policies.observation.call_costs import CostScale
from der_graph.policies.observation.evidence import Evidence, Floats
from der_graph.policies.observation.features import EXPERT_FEATURES, UNIT

_AT = {name: i for i, name in enumerate(EXPERT_FEATURES)}
_SAID = slice(_AT["said_value"], _AT["hedged"] + 1)
_DEAREST = 20.0  # costs of the mean expert: beyond it the logarithm tells more
_BOUND = 5.0  # of the comparisons: beyond it nobody would be asked, however much better


class Profiles(NamedTuple):
    """What is known of the experts beforehand.

    Attributes:
        costs: (experts,) price of one call.
        skill: (experts,) quality of each alone.
        skill_here: (n, experts) the same near the question.
        expected: (n, experts) probability of being right on the question, after the answers so far.
        costs_here: (n, experts) expected cost of a call on the question.
        scale: What prices count in; the cost of asking everyone once where left out.
    """

    costs: Floats
    skill: Floats
    skill_here: Floats
    expected: Floats
    costs_here: Floats
    scale: CostScale | None = None

    @property
    def total(self) -> float:
        """Cost that is worth one unit of quality at a price of 1."""
        return max(float(self.costs.sum() if self.scale is None else self.scale.total), 1e-12)


def expert_features(
    profiles: Profiles,
    masks: npt.NDArray[np.bool_],
    weights: Floats,
    seen: Evidence,
    *,
    verbosity: Floats,
    right_now: Floats,
    affinity: Floats | None,
) -> Floats:
    """Every feature of `EXPERT_FEATURES`.

    Args:
        profiles: Prices and profiles.
        masks: (n, experts) may the expert be asked?
        weights: (n,) price of cost, >= 0.
        seen: The answers.
        verbosity: (n, L) how long each answer is for its expert.
        right_now: (n,) probability that the last answer is right.
        affinity: (n, experts) cosine of the question and the expert's description; None without any.

    Returns:
        (n, experts, features).
    """
    n, experts = masks.shape
    block = np.zeros((n, experts, len(EXPERT_FEATURES)), dtype=np.float32)
    share = profiles.costs / profiles.total
    scale = profiles.scale
    usual = share * (experts if scale is None else scale.experts)  # in costs of the mean expert
    block[:, :, _AT["cost"]] = (usual if scale is None else np.minimum(usual, _DEAREST)) / 2
    block[:, :, _AT["log_cost"]] = np.log10(np.maximum(usual, 1e-3))
    rank = np.argsort(np.argsort(profiles.costs, kind="stable"), kind="stable")
    block[:, :, _AT["skill_per_cost_rank"]] = rank / max(1, experts - 1)
    block[:, :, _AT["skill"]] = profiles.skill
    block[:, :, _AT["skill_here"]] = profiles.skill_here
    block[:, :, _AT["allowed"]] = masks
    charge = np.minimum(weights, 1e3)[:, None] * (profiles.costs_here / profiles.total)
    if scale is not None:  # experts that are far dearer than any in training
        charge = np.minimum(charge, _BOUND)
    block[:, :, _AT["charge"]] = charge
    block[:, :, _AT["expected"]] = profiles.expected
    net = profiles.expected - charge
    block[:, :, _AT["net"]] = np.maximum(net, -_BOUND)
    block[:, :, _AT["lead"]] = np.clip((net - _best_other(net, masks)) / UNIT, -_BOUND, _BOUND)
    block[:, :, _AT["gain"]] = np.clip((net - right_now[:, None]) / UNIT, -_BOUND, _BOUND)
    if affinity is not None:
        block[:, :, _AT["affinity"]] = affinity
    _on_the_route(block, seen, verbosity)
    return block


def best_gain(block: Floats, masks: npt.NDArray[np.bool_]) -> Floats:
    """The largest gain of an expert that may be asked: (n,); 0 where there is none."""
    gain = np.where(masks, block[:, :, _AT["gain"]], -np.inf).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(gain), gain, 0.0).astype(np.float32)


def _best_other(net: Floats, masks: npt.NDArray[np.bool_]) -> Floats:
    """The best of all others that may be asked: (n, experts); an expert's own where it is the only one."""
    allowed = np.where(masks, net, -np.inf)
    first = allowed.argmax(axis=1)
    rows = np.arange(len(net))
    best = np.repeat(allowed[rows, first][:, None], net.shape[1], axis=1)
    allowed[rows, first] = -np.inf
    best[rows, first] = allowed.max(axis=1)
    return np.where(np.isfinite(best), best, net)


def _on_the_route(block: Floats, seen: Evidence, verbosity: Floats) -> None:
    """Fill in what each expert did so far."""
    agrees = seen.agrees
    slots = np.arange(seen.expert.shape[1])
    before = np.where(seen.good & (slots < seen.last[:, None]), slots, -1).max(axis=1)
    for slot in range(seen.expert.shape[1]):  # in order: a later answer of an expert is what counts
        rows = np.flatnonzero((seen.expert[:, slot] >= 0) & (seen.good | seen.failed)[:, slot])
        at = seen.expert[rows, slot]
        is_last, agree = seen.last[rows] == slot, agrees[rows, slot]
        good = seen.good[rows, slot]
        block[rows, at, _AT["asked"]] = 1.0
        block[rows, at, _AT["failed"]] = seen.failed[rows, slot]
        block[rows, at, _AT["is_last"]] = is_last
        block[rows, at, _AT["agrees_with_last"]] = agree
        block[rows, at, _AT["disagrees_with_last"]] = good & ~agree & ~is_last
        block[rows, at, _AT["verbosity"]] = verbosity[rows, slot]
        block[rows, at, _AT["was_before_last"]] = before[rows] == slot
        if seen.looks is not None:
            block[rows, at, _SAID] = seen.looks[rows, slot]
