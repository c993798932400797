r"""What is believed of the experts on one kind of question, before any answer.

    skill, asked alone; steps; contexts; copies ──Tables──> what `model` weighs answers by

Given how hard a question is, d ~ N(0, spread^2), expert i is right with logit(p_i) = logit_i + d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NODES, _WEIGHT = np.polynomial.hermite_e.hermegauss(9)
HARDNESS_WEIGHT: Floats = _WEIGHT / _WEIGHT.sum()
"""Prior probabilities of the points of `hardness`."""
SPREAD = 2.0
"""Standard deviation of d, in log-odds, where it is not fitted: the most likely one on the recorded pool."""

_LEAST_SKILL = 0.003  # nobody is always right, or never
_MOST_LOGIT = 40.0
_HALVINGS = 40


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + exp(-logit)), without overflow."""
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * logit))
    return result


def hardness(spread: float) -> Floats:
    """(D,) points of the integral over d, in log-odds."""
    result: Floats = spread * _NODES
    return result


def at_zero(mean: Floats, spread: float = SPREAD) -> Floats:
    """Log-odds at d = 0 of experts that are right with these mean probabilities, in [0, 1]; any shape."""
    bounded = np.clip(mean, _LEAST_SKILL, 1.0 - _LEAST_SKILL)
    low = np.full(bounded.shape, -_MOST_LOGIT)
    high = -low
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        above = mean_skill(middle, spread) > bounded
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    result: Floats = 0.5 * (low + high)
    return result


def widened(spread: float) -> float:
    """How much wider log-odds at d = 0 lie than those of the means over d, about."""
    return float(np.sqrt(1.0 + np.pi * spread**2 / 8.0))


def mean_skill(logit: Floats, spread: float = SPREAD) -> Floats:
    """Mean over d of the probability of being right, for log-odds at d = 0; any shape."""
    result: Floats = sigmoid(logit[..., None] + hardness(spread)) @ HARDNESS_WEIGHT
    return result


@dataclass(frozen=True, eq=False)
class Tables:
    """What is believed of N experts on one kind of question; C contexts, F forms of steps.

    Attributes:
        logit: (N,) log-odds of being right, asked alone, at d = 0.
        chance: How often two wrong answers have one value, in (0, 1).
        steps: (C, N, F) probability of each form of step, given that the answer is not right.
        right_shift: (C, N) added to the log-odds after a right answer.
        wrong_shift: (C, N) the same after a wrong one, or a step.
        repeats: (C, N) how often a wrong answer has the value of the wrong one read; NaN for `chance`.
        claim_context: (N,) the context after each expert's claim.
        step_context: (C, N, F) the context after each expert's step.
        copies: (N, N) probability that the second expert gives the first one's answer; None for no copies.
        comparable: Do claims have values that can be compared?
        spread: Standard deviation of d, in log-odds.
    """

    logit: Floats
    chance: float
    steps: Floats
    right_shift: Floats
    wrong_shift: Floats
    repeats: Floats
    claim_context: Ints
    step_context: Ints
    copies: Floats | None = None
    comparable: bool = True
    spread: float = SPREAD

    @property
    def hardness(self) -> Floats:
        """(D,) points of d."""
        return hardness(self.spread)
