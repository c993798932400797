r"""How good experts are: from their size or price alone, from a few questions, from many.

    size or price ──curve──> prior log-odds ──results on questions──> log-odds, and how sure they are

The prior is a line over the logarithm of the size, `SIZE_CURVE`. It was fitted by least squares to the
log-odds of the mean results of the eleven models (2.6 to 72.7 billion parameters) on the 1,562 training
questions of the recorded pool (GSM8K, CRUX, MATH level 5): intercept -0.49, slope 0.72, deviation of the
experts around it 0.25. Few results are read by item response theory: all experts fail more often on hard
questions, so a result counts by what the others did on the same question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.errors import DataError
from der_graph.policies.planning.tables import (
    HARDNESS_WEIGHT,
    SPREAD,
    Floats,
    hardness,
    sigmoid,
)

Hint = float | Mapping[str, float]
"""Probability of being right, in [0, 1]; or that for each kind of question, by name."""

CHANCE = 0.1
"""How often two wrong answers have one value, where nothing is known."""
_PAIRS = 20.0  # pairs of wrong answers that `CHANCE` counts for
SPREADS = (0.4, 0.6, 0.8, 1.2, 1.6, 2.0, 2.5, 3.0)
"""Spreads of the hardness of questions that are tried."""
_SPREAD_PRIOR = 10.0  # log-likelihood for a spread e times the usual one
_STEPS = 40  # of expectation and maximisation
_TOLERANCE = 1e-4  # in log-odds


class Curve(NamedTuple):
    """Prior log-odds of being right: `intercept + slope * log10(size)`.

    Attributes:
        intercept: Log-odds at size 1.
        slope: What ten times the size adds.
        spread: Standard deviation of experts around it.
    """

    intercept: float
    slope: float
    spread: float


SIZE_CURVE = Curve(-0.49, 0.72, 0.4)
"""By billions of parameters. The spread is wider than found: other pools differ more than one family tree."""
PRICE_CURVE = Curve(0.3, 0.6, 0.7)
"""By the price of a call over the pool's geometric mean: prices tell less than sizes. Assumed, not fitted."""
_WIDEST = 2.0  # decades of price that still make a difference, to each side


def prior_skill(costs: Sequence[float], *, sizes: Sequence[float | None] | None = None) -> Floats:
    """What to expect of experts of whom only size or price is known.

    Args:
        costs: (N,) price of one call of each, in any unit.
        sizes: (N,) billions of parameters; None where unknown.

    Returns:
        (N,) probability of being right.
    """
    known = [None] * len(costs) if sizes is None else list(sizes)
    if all(size is not None and size > 0 for size in known) and known:
        line, at = SIZE_CURVE, np.log10(np.array(known, dtype=np.float64))
    else:
        line = PRICE_CURVE
        price = np.asarray(costs, dtype=np.float64)
        paid = price > 0
        middle = float(np.log10(price[paid]).mean()) if paid.any() else 0.0
        # What costs nothing says nothing: the middle.
        at = np.where(paid, np.log10(np.where(paid, price, 1.0)) - middle, 0.0)
        at = np.clip(at, -_WIDEST, _WIDEST)
    return sigmoid(line.intercept + line.slope * at)


def kinds_named(hints: Sequence[Hint | None]) -> list[str]:
    """The kinds of question that hints name, in order."""
    return list(dict.fromkeys(k for hint in hints if isinstance(hint, Mapping) for k in hint))


def with_hints(
    prior: Floats, hints: Sequence[Hint | None], kinds: Sequence[str]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The prior with what somebody says of the experts.

    Args:
        prior: (N,) probability of being right.
        hints: (N,) see `Hint`; None for nothing.
        kinds: Names of G kinds of question; one kind without names may be empty.

    Returns:
        (G, N) probabilities, and (G, N) which of them are hints.

    Raises:
        DataError: If a hint is no probability.
    """
    names = list(kinds) or [""]
    skill = np.tile(prior, (len(names), 1))
    told = np.zeros(skill.shape, dtype=np.bool_)
    for i, hint in enumerate(hints):
        if hint is None:
            continue
        given = hint if isinstance(hint, Mapping) else dict.fromkeys(names, hint)
        for value in given.values():
            if not 0.0 <= value <= 1.0:
                raise DataError(f"skill of expert {i} is {value}; it is a probability, 0 to 1")
        mean = float(np.mean(list(given.values()))) if given else float(prior[i])
        for g, name in enumerate(names):
            skill[g, i] = given.get(name, mean)
            told[g, i] = bool(given)
    return skill, told


class Estimate(NamedTuple):
    """What results say of experts.

    Attributes:
        logit: (N,) most probable log-odds at d = 0.
        precision: (N,) 1 / variance of it.
    """

    logit: Floats
    precision: Floats


def estimate(quality: Floats, prior: Floats, deviation: float) -> Estimate:
    """Skills by item response theory: the most probable ones, with the hardness of each question unknown.

    Args:
        quality: (Q, N) in [0, 1]; NaN unknown. A quality in between counts as that much of a success.
        prior: (N,) log-odds at d = 0, before.
        deviation: Standard deviation of the prior, above 0.
    """
    logit, trust = prior.copy(), np.full(len(prior), deviation**-2.0)
    known = ~np.isnan(quality)
    used = known.any(axis=1)
    quality, known = np.where(known, quality, 0.0)[used], known[used]
    precision = trust
    for _ in range(_STEPS):
        hard = hardness_of(quality, known, logit)[0]
        right = sigmoid(logit[:, None] + hardness(SPREAD))
        expected = hard @ right.T
        bend = hard @ (right * (1.0 - right)).T
        slope = np.where(known, quality - expected, 0.0).sum(axis=0) - trust * (logit - prior)
        precision = np.where(known, bend, 0.0).sum(axis=0) + trust
        move = np.clip(slope / precision, -1.0, 1.0)
        logit = logit + move
        if np.abs(move).max(initial=0.0) < _TOLERANCE:
            break
    return Estimate(logit, precision)


def hardness_of(
    quality: Floats, known: npt.NDArray[np.bool_], logit: Floats, spread: float = SPREAD
) -> tuple[Floats, float]:
    """How hard questions are, told from who was right.

    Args:
        quality: (Q, N) in [0, 1].
        known: (Q, N) which are known.
        logit: (N,) at d = 0.
        spread: Standard deviation of the hardness.

    Returns:
        (Q, D) probability of each point of d; and the log-likelihood of all results.
    """
    at = logit[:, None] + hardness(spread)
    success, failure = -np.logaddexp(0.0, -at), -np.logaddexp(0.0, at)
    fit = np.where(known, quality, 0.0) @ success + np.where(known, 1.0 - quality, 0.0) @ failure
    fit += np.log(HARDNESS_WEIGHT)
    most = fit.max(axis=1, keepdims=True)
    fit = np.exp(fit - most)
    total = fit.sum(axis=1, keepdims=True)
    return fit / total, float((np.log(total) + most).sum())


def spread_of(quality: Floats, label: npt.NDArray[np.int64], logits: Sequence[Floats]) -> float:
    """The most likely spread of the hardness of questions, within their kinds.

    Args:
        quality: (Q, N); NaN unknown.
        label: (Q,) kind of each question.
        logits: For each of `SPREADS`, (G, N) log-odds at d = 0.
    """
    known = ~np.isnan(quality)
    best, most = SPREAD, -np.inf
    for spread, logit in zip(SPREADS, logits, strict=True):
        fit = -_SPREAD_PRIOR * abs(np.log(spread / SPREAD))
        for g in np.unique(label).tolist():
            there = label == g
            fit += hardness_of(quality[there], known[there], logit[g], spread)[1]
        if fit > most:
            best, most = spread, fit
    return best


def chance_of(pairs: Floats, prior: float = CHANCE, strength: float = _PAIRS) -> float:
    """How often two wrong answers have one value, from (Q, 2) counts as `profiles.wrong_pairs` gives them."""
    count, alike = pairs.sum(axis=0).tolist() if len(pairs) else (0.0, 0.0)
    return float(np.clip((alike + strength * prior) / (count + strength), 0.005, 0.9))


def telling(logit: Floats, ease: Floats) -> Floats:
    """How much each question would tell of the experts: (Q,) Fisher information, summed over them.

    Args:
        logit: (N,) at d = 0.
        ease: (Q,) how much easier each question is than usual, in log-odds; NaN where unknown.
    """
    at = logit[None, :] + np.where(np.isnan(ease), 0.0, ease)[:, None]
    right = sigmoid(at)
    result: Floats = (right * (1.0 - right)).sum(axis=1)
    return result
