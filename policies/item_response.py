"""How good an expert is, told from few questions: item response theory with the experts known so far.

    others' results ──> how easy each question is ──> 30 that tell much ──answers──> results on all of them

Experts mostly fail on the same questions. How many of the others are right on a question says how easy it is,
and a logistic curve over that, fitted to the new expert's few results, says how often it would be right on
every other one. The curve starts from what the expert's price makes expect, as experts that cost more are
mostly better. On the recorded pool, each of eleven experts taken for the new one in turn, 30 questions chosen
and read so tell its skill up to 0.042 (root mean square error); 30 at random, averaged, up to 0.088: it takes
over 100 of these for as much. Knows nothing of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_LEAST_RESULTS = 5  # fewer say nothing on how an expert's results go with the others'
_SPREAD = 0.5  # prior deviation of ability, besides what few experts leave open, and of the slope
_STEPS = 15  # of Newton's method; it converges in less than ten

_Doubles = npt.NDArray[np.float64]


def ease(quality: npt.NDArray[np.float32]) -> _Doubles:
    """How easy questions are for the experts known so far.

    Args:
        quality: (questions, experts); NaN unknown.

    Returns:
        (questions,) share of the experts that are right, pulled towards one half; NaN where none is known.
    """
    known = ~np.isnan(quality)
    count = known.sum(axis=1)
    share = (np.where(known, quality, 0.0).sum(axis=1) + 0.5) / (count + 1.0)
    return np.where(count > 0, share, np.nan).astype(np.float64)


def choose_questions(easy: _Doubles, count: int, rng: np.random.Generator) -> list[int]:
    """Draw questions, each as probably as it tells experts apart.

    Args:
        easy: (questions,) see `ease`; NaN counts as average.
        count: How many; all if there are fewer.
        rng: Of the draw.

    Returns:
        Positions in order.
    """
    telling = easy * (1.0 - easy)
    telling = np.where(
        np.isnan(telling), 0.25 if np.isnan(telling).all() else np.nanmean(telling), telling
    )
    drawn = rng.choice(len(easy), min(count, len(easy)), replace=False, p=telling / telling.sum())
    return sorted(drawn.tolist())


def completed(
    quality: npt.NDArray[np.float32],
    results: npt.NDArray[np.float32],
    costs: Sequence[float] | npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """One expert's results on all questions, of its results on some and of the others' on all.

    Args:
        quality: (questions, others); NaN unknown.
        results: (questions,); NaN where it was not asked.
        costs: (others + 1,) price of one call of each, its own last.

    Returns:
        (questions,) in [0, 1]; as given where it was asked, and NaN still where no other expert's result is
        known, or everywhere if the results are too few to say.
    """
    easy = ease(quality)
    usable = ~np.isnan(easy)
    asked = usable & ~np.isnan(results)
    if asked.sum() < _LEAST_RESULTS:
        return results
    logit = np.log(np.where(usable, easy, 0.5) / (1.0 - np.where(usable, easy, 0.5)))
    start = np.array([_expected_ability(quality[usable], logit[usable], np.asarray(costs)), 1.0])
    spread = np.array([_SPREAD + 1.0 / quality.shape[1], _SPREAD])
    curve = _fit(logit[asked], results[asked].astype(np.float64), start, spread)
    guess = np.where(usable, _right(curve, logit), np.nan)
    return np.where(np.isnan(results), guess, results).astype(np.float32)


def _right(curve: _Doubles, logit: _Doubles) -> _Doubles:
    """Probability of being right on questions: ability + slope * how easy each is."""
    result: _Doubles = 1.0 / (1.0 + np.exp(-(curve[0] + curve[1] * logit)))
    return result


def _fit(logit: _Doubles, results: _Doubles, start: _Doubles, spread: _Doubles) -> _Doubles:
    """Most probable ability and slope, from a normal prior."""
    at, curve, precision = np.stack([np.ones_like(logit), logit]), start, np.diag(spread**-2.0)
    for _ in range(_STEPS):
        right = _right(curve, logit)
        slope = at @ (results - right) - precision @ (curve - start)
        bend = (at * (right * (1.0 - right))) @ at.T + precision
        curve = curve + np.linalg.solve(bend, slope)
    return curve


def _expected_ability(
    quality: npt.NDArray[np.float32], logit: _Doubles, costs: npt.NDArray[np.floating[Any]]
) -> float:
    """What the price tells of an expert before it is asked: a line through the others' abilities."""
    logs = np.log(np.maximum(costs / max(float(costs.mean()), 1e-12), 1e-3))
    alike, alone = np.array([0.0, 1.0]), np.array([3.0, 1e-3])  # ability alone; the slope stays 1
    abilities = []
    for column in quality.T:
        known = ~np.isnan(column)
        abilities.append(_fit(logit[known], column[known].astype(np.float64), alike, alone)[0])
    beside = logs[:-1] - logs[:-1].mean()
    # One observation of "price says nothing": a line through two experts would say anything.
    line = float(beside @ np.array(abilities)) / (float(beside @ beside) + 1.0)
    return float(np.mean(abilities) + line * (logs[-1] - logs[:-1].mean()))
