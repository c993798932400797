"""Which directions of a question's vector say who will be right, fitted so that training sees no own label.

    vectors, outcomes ──ridge, cross-fitted──> predicted outcomes ──principal axes──> a few question features

Principal axes of the vectors themselves follow what texts are about; these follow what changes the outcome
of a route. Every training question gets its features from a fit without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FOLDS = 5
_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # of the ridge, to choose from


class Ridge(NamedTuple):
    """A linear prediction of many outcomes: `mean + (vector - centre) @ weights`."""

    centre: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]

    def predict(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """(m, d) -> (m, outcomes)."""
        predicted: npt.NDArray[np.float64] = self.mean + (vectors - self.centre) @ self.weights
        return predicted


class Fitted(NamedTuple):
    """A ridge fit.

    Attributes:
        ridge: Fitted on all questions.
        held_out: (questions, outcomes) predicted for each by a fit without it.
    """

    ridge: Ridge
    held_out: npt.NDArray[np.float64]


class QuestionAxes(NamedTuple):
    """Question features that say how routes will end.

    Attributes:
        mean: (d,) of the vectors.
        axes: (d, dims) to project the centred vector on.
        held_out: (questions, dims) features of the training questions, each from a fit without it.
    """

    mean: Floats
    axes: Floats
    held_out: Floats


def folds_of(questions: Sequence[str], seed: int = 0) -> npt.NDArray[np.int64]:
    """(questions,) fold of each; the same question always goes with itself."""
    number = {text: i for i, text in enumerate(dict.fromkeys(questions))}
    draw = np.random.default_rng(seed).permutation(len(number)) % FOLDS
    fold: npt.NDArray[np.int64] = draw[[number[text] for text in questions]]
    return fold


def fit_ridge(
    vectors: npt.NDArray[np.floating],
    outcomes: npt.NDArray[np.floating],
    fold: npt.NDArray[np.int64],
) -> Fitted:
    """Fit outcomes on vectors, with the strength that predicts best what it has not seen."""
    x, y = vectors.astype(np.float64), outcomes.astype(np.float64)
    best = (np.inf, _STRENGTHS[0], np.broadcast_to(y.mean(axis=0), y.shape))
    parts = [f for f in range(FOLDS) if (fold == f).any() and (fold != f).any()]
    decomposed = {f: _decompose(x[fold != f], y[fold != f]) for f in parts}
    for strength in _STRENGTHS:
        held_out = np.tile(y.mean(axis=0), (len(y), 1))
        for f in parts:
            held_out[fold == f] = _ridge(decomposed[f], strength).predict(x[fold == f])
        error = float(((held_out - y) ** 2).mean())
        if error < best[0]:
            best = (error, strength, held_out)
    return Fitted(_ridge(_decompose(x, y), best[1]), best[2])


def question_axes(
    vectors: npt.NDArray[np.floating],
    outcomes: npt.NDArray[np.floating],
    fold: npt.NDArray[np.int64],
    dims: int,
) -> QuestionAxes:
    """Find the directions that matter.

    Args:
        vectors: (questions, d).
        outcomes: (questions, routes) quality at the end of each route.
        fold: (questions,) fold of each.
        dims: Features wanted; those that predict nothing are zero.
    """
    ridge, held_out = fit_ridge(vectors, outcomes, fold)
    centred = held_out - ridge.mean
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:dims]
    scores = centred @ directions.T
    wanted = (outcomes - ridge.mean) @ directions.T
    explained = (2 * scores * wanted - scores**2).mean(
        axis=0
    )  # of the variance, on unseen questions
    kept = explained > 0
    scale = np.where(kept, 1.0 / np.maximum(scores.std(axis=0), 1e-6), 0.0)
    # What predicts little is shown small.
    scale *= (
        np.sqrt(np.maximum(explained, 0.0) / max(float(explained.max(initial=0.0)), 1e-12)) ** 0.5
    )
    axes = np.zeros((vectors.shape[1], dims), dtype=np.float32)
    features = np.zeros((len(vectors), dims), dtype=np.float32)
    axes[:, : len(scale)] = ridge.weights @ directions.T * scale
    features[:, : len(scale)] = scores * scale
    return QuestionAxes(ridge.centre.astype(np.float32), 1.5 * axes, 1.5 * features)


_Parts = tuple[npt.NDArray[np.float64], ...]


def _decompose(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> _Parts:
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    values, axes = np.linalg.eigh((x - centre).T @ (x - centre))
    return centre, mean, values, axes, axes.T @ ((x - centre).T @ (y - mean))


def _ridge(parts: _Parts, strength: float) -> Ridge:
    centre, mean, values, axes, rotated = parts
    return Ridge(centre, mean, axes @ (rotated / (np.maximum(values, 0.0) + strength)[:, None]))
