r"""What the answers of a route say: is the last one right, and would the others be?

    expected, before any answer ──answers that agree or differ──> probability of each value, of each expert

The model is that of item response theory with one unknown, how much easier or harder the question is than it
looks, d ~ N(0, `SPREAD`^2): given d, expert i is right with logit(p_i) = a * logit(expected_i) + d, each on
its own. (a widens the logits so that, with d unknown, each is right as often as expected.) All right answers
have one value. A wrong answer has the value of another wrong one with a probability `chance`, that of the
training questions nearby. So two weak experts that agree are probably right, as wrong answers differ; and
whoever is not asked yet is more probably right where answers agree, and less where they do not. An expert
that repeats itself is one witness. Experts that read an earlier answer before they agree with it count as if
they had not: how much that is worth in a pool, the network learns from the other features.

On test folds of the recorded pool the log loss of "is the last answer right?" after three answers is 0.391,
without d and `chance` 0.431; that of the experts not asked yet 0.468, and 0.518 (`benchmarks/beliefs.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from der_graph.policies.observation.evidence import Evidence, Floats, log_odds

SPREAD = 1.2
"""Standard deviation of d, in log-odds; anything from 1 to 1.5 does on the recorded pool."""
_POINTS = 9  # of the integral over d
_D, _WEIGHT = np.polynomial.hermite_e.hermegauss(_POINTS)
_D, _LOG_WEIGHT = SPREAD * _D, np.log(_WEIGHT / _WEIGHT.sum())
_WIDER = float(np.sqrt(1.0 + np.pi * SPREAD**2 / 8.0))


class Belief(NamedTuple):
    """What to believe after the answers of n routes.

    Attributes:
        right_now: (n,) probability that the last answer is right; 0 where there is none.
        expected: (n, experts) probability of each expert being right, were it asked now for the first time.
    """

    right_now: Floats
    expected: Floats


def believe(seen: Evidence, expected: Floats, chance: Floats | None) -> Belief:
    """Weigh the answers.

    Args:
        seen: The answers of n routes.
        expected: (n, experts) probability of each expert being right, before any answer.
        chance: (n,) how often two wrong answers to such a question have one value, in (0, 1). None for agents
            from before it was known: the answers are then taken as independent, and tell nothing of others.
    """
    if chance is None:
        return Belief(seen.belief(log_odds(expected)), expected)
    n, slots = seen.expert.shape
    logit = _WIDER * log_odds(expected).astype(np.float64)
    said = seen.good & (seen.expert >= 0)
    counts = said & ~seen.repeats
    if not counts.any():
        return Belief(np.zeros(n, dtype=np.float32), expected)
    own = logit[np.arange(n)[:, None], np.maximum(seen.expert, 0)]
    at = own[:, None, :] + _D[None, :, None]  # (n, points, L)
    wrong = np.where(counts[:, None, :], -np.logaddexp(0.0, at), 0.0).sum(axis=2)  # log: all are
    # An answer without a value agrees with itself alone.
    value = np.where(seen.value >= 0, seen.value, -1 - np.arange(slots))
    equal = (value[:, :, None] == value[:, None, :]) & said[:, :, None] & counts[:, None, :]
    same = equal & counts[:, :, None]
    others = np.maximum(same.sum(axis=2) - 1, 0)  # (n, L) that have a slot's value, too
    first = counts & ~(np.tril(np.ones((slots, slots), dtype=np.bool_), -1) & same).any(axis=2)
    coincidence = np.log(chance.astype(np.float64))[:, None]
    together = (others * first).sum(axis=1)[:, None] * coincidence  # were all of them wrong
    # log(p / (1 - p)) is `at`: what it adds that those with a slot's value are right
    adds = np.einsum("nkl,ngl->ngk", same.astype(np.float64), at)
    adds -= (others * coincidence)[:, None, :]
    likelihood = np.where(first[:, None, :], adds, -np.inf)
    nobody = np.zeros((n, _POINTS, 1))
    joint = np.concatenate([likelihood, nobody], axis=2) + (wrong + together)[:, :, None]
    joint += _LOG_WEIGHT[None, :, None]
    joint = np.exp(joint - joint.max(axis=(1, 2), keepdims=True))
    joint /= joint.sum(axis=(1, 2), keepdims=True)
    rows = np.arange(n)
    stands_for = equal[rows, np.maximum(seen.last, 0)].argmax(
        axis=1
    )  # the first slot of that value
    known = said[rows, seen.last] & (seen.last >= 0)  # not of an expert that has left the pool
    right_now = np.where(known, joint[rows, :, stands_for].sum(axis=1), 0.0)
    after = joint.sum(axis=2)
    later = np.zeros(expected.shape)
    for g in range(_POINTS):  # point by point: the pool may be large
        later += after[:, [g]] / (1.0 + np.exp(-(logit + _D[g])))
    # The integral is an approximation: without an answer, and so in any batch, what was expected stays.
    later = np.where(counts.any(axis=1, keepdims=True), later, expected)
    return Belief(right_now.astype(np.float32), later.astype(np.float32))
