"""The features of a route as a whole: how far it is, what it cost, and what its answers are worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from der_graph.policies.observation.evidence import Evidence, Floats, log_odds, look_of
from der_graph.policies.observation.features import STATE_FEATURES
from der_graph.state import Situation

_AT = {name: i for i, name in enumerate(STATE_FEATURES)}
_LAST_LOOKS = slice(_AT["has_value"], _AT["hedges"] + 1)


def state_features(
    situations: Sequence[Situation],
    seen: Evidence,
    weights: Floats,
    *,
    total: float,
    verbosity: Floats,
    skill: Floats,
    skill_here: Floats,
    right_now: Floats,
    chance: Floats | None,
    question_length: Floats | None,
) -> Floats:
    """Every feature of `STATE_FEATURES` but `similarity`, which needs embeddings, and `best_gain`.

    Args:
        situations: n of them.
        seen: Their answers.
        weights: (n,) price of cost, >= 0.
        total: Cost of asking everyone once.
        verbosity: (n, L) how long each answer is for its expert.
        skill: (experts,) quality of each expert alone.
        skill_here: (n, experts) the same on questions like this one.
        right_now: (n,) probability that the last answer is right.
        chance: (n,) how often two wrong answers to the question are the same; None where it is not known.
        question_length: Mean and deviation of the log of a question's characters; None for not known.

    Returns:
        (n, features).
    """
    n = len(situations)
    state = np.zeros((n, len(STATE_FEATURES)), dtype=np.float32)
    steps = np.array([s.max_steps for s in situations])
    good, has = seen.good.sum(axis=1), seen.last >= 0
    state[:, _AT["step"]] = good / steps
    state[:, _AT["steps_left"]] = steps - good == 1
    state[:, _AT["calls_left"]] = np.clip((steps - good) / 5.0, 0.0, 1.0)
    state[:, _AT["spent"]] = np.array([s.spent for s in situations]) / total
    left = [np.inf if s.max_cost is None else s.max_cost - s.spent for s in situations]
    state[:, _AT["budget_left"]] = np.clip(np.array(left) / total, 0.0, 1.0)
    state[:, _AT["log_price"]] = np.log10(np.maximum(weights, 1e-4))
    state[:, _AT["answered"]] = has
    state[:, _AT["failures"]] = seen.failed.sum(axis=1)
    if question_length is not None:
        characters = np.log1p([len(s.question) for s in situations])
        scaled = (characters - question_length[0]) / question_length[1]
        state[:, _AT["question_length"]] = np.clip(scaled, -3.0, 3.0)
    if not has.any():
        return state
    agreeing = seen.agrees.sum(axis=1)
    distinct = np.where(seen.good, seen.value, -1).max(axis=1) + 1  # numbered from 0 in each row
    rows = np.flatnonzero(has)
    state[:, _AT["agreeing"]] = agreeing / np.maximum(good - 1, 1)
    state[:, _AT["backed"]] = agreeing > 0
    state[:, _AT["distinct"]] = distinct / np.maximum(good, 1)
    everywhere = np.broadcast_to(log_odds(skill), skill_here.shape)
    state[:, _AT["weight_of_evidence"]] = seen.weight(everywhere, chance) / 3.0
    state[:, _AT["evidence_here"]] = seen.weight(log_odds(skill_here), chance) / 3.0
    state[:, _AT["right_now"]] = right_now
    state[rows, _AT["verbosity"]] = verbosity[rows, seen.last[rows]]
    state[:, _AT["mean_verbosity"]] = verbosity.sum(axis=1) / np.maximum(good, 1)
    last = [
        situations[row].answers[slot]
        for row, slot in zip(rows.tolist(), seen.last[rows].tolist(), strict=True)
    ]
    state[rows, _LAST_LOOKS] = [look_of(answer) for answer in last]
    for row, answer in zip(rows.tolist(), last, strict=True):
        if answer["logprob"] is not None:
            state[row, _AT["logprob"]] = max(-3.0, answer["logprob"])
            state[row, _AT["knows_logprob"]] = 1.0
    return state
