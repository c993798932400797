r"""Experts that copy: two whose wrong answers are the same more often than chance are not two witnesses.

    values of wrong answers ──pairs, shrunk──> probability that one gives the other's answer

Expert j is taken to give i's answer with probability w, and its own otherwise. Among questions on which both
are wrong they then agree with probability (w a + (1 - w) b c) / (w a + (1 - w) b), where a is how often i is
wrong, b how often both would be on their own, and c the chance. w is told from how often they do agree, where
that is surely more than chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from der_graph.policies.planning.tables import (
    HARDNESS_WEIGHT,
    Floats,
    hardness,
    sigmoid,
)

_PRIOR = 20.0  # pairs that the chance counts for
_SURE = 2.0  # standard deviations above chance, times two
_LEAST = 0.1  # a weaker copy is none
_MOST_EXPERTS = 200  # in larger pools pairs are not looked at


def copies_of(
    quality: Floats,
    values: Sequence[Sequence[str | None]],
    logit: Floats,
    chance: float,
    spread: float,
) -> Floats | None:
    """Who copies whom.

    Args:
        quality: (Q, N) of first answers; NaN unknown.
        values: [question][expert].
        logit: (Q, N) log-odds at d = 0.
        chance: How often two wrong answers have one value.
        spread: Standard deviation of d.

    Returns:
        (N, N) symmetric, in [0, 0.95], 0 on the diagonal; None where nobody does.
    """
    experts = quality.shape[1]
    if not len(quality) or not 1 < experts <= _MOST_EXPERTS:
        return None
    both, alike = np.zeros((2, experts, experts))
    for row, said in zip(quality, values, strict=True):
        numbers: dict[str, int] = {}
        code = np.array([-1 if v is None else numbers.setdefault(v, len(numbers)) for v in said])
        wrong = (row < 0.5) & (code >= 0)
        pair = wrong[:, None] & wrong[None, :]
        both += pair
        alike += pair & (code[:, None] == code[None, :])
    # Taken to be what is known for sure: the mean of a Beta posterior less some deviations.
    n = both + _PRIOR
    rate = (alike + _PRIOR * chance) / n
    rate = rate - _SURE * np.sqrt(rate * (1.0 - rate) / n)
    failing = 1.0 - sigmoid(logit.mean(axis=0)[:, None] + hardness(spread))
    one = failing @ HARDNESS_WEIGHT
    together = (failing * HARDNESS_WEIGHT) @ failing.T
    excess = together * (rate - chance)
    weight = excess / np.maximum(one[:, None] * (1.0 - rate) + excess, 1e-9)
    weight = np.where((rate > chance) & (both > 0), np.clip(weight, 0.0, 0.95), 0.0)
    weight = np.minimum(weight, weight.T)
    weight[weight < _LEAST] = 0.0
    np.fill_diagonal(weight, 0.0)
    return weight if weight.any() else None
