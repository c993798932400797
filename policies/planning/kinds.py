r"""Kinds of questions: those on which the same experts are good.

    question ──encoder, how it is written──> predicted log-odds of every expert ──nearest centre──> kind

Clusters of what is *predicted*, not of the questions' vectors: two topics on which the same experts are good
are one kind, and one topic with two kinds of skill is two. The prediction is a logistic regression with a
strong penalty, and every training question is given its kind by a regression that never saw it.

Needs NumPy alone: serving has no scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.policies.observation import TextEncoder
from der_graph.policies.observation.projection import principal_axes
from der_graph.policies.planning.tables import (
    Floats,
    Ints,
    sigmoid,
)

DIMENSIONS = 24
"""Principal components of the sentence vectors that the regression sees."""
COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12)
"""Numbers of kinds that are tried."""
_PENALTY = 8.0  # precision of the weights, for features of unit variance
_FOLDS = 5
_STEPS = 12  # of Newton's method
_BOUND = 4.0  # log-odds beyond this are one to the clustering
_STARTS = 4  # of k-means
_REMEMBERED = 50_000


class Fitted(NamedTuple):
    """What training questions show.

    Attributes:
        kinds: The way from a question to its kind.
        label: (Q,) kind of each training question, told without its own results.
        predicted: (Q, T) probability of each target, likewise.
    """

    kinds: Kinds
    label: Ints
    predicted: Floats


class Kinds:
    """Tells the kind of a question.

    Args:
        mean: (d,) of the training questions' vectors.
        axes: (d, components) principal axes, for components of unit variance.
        surface: (2, 6) mean and deviation of `surface_of`.
        weights: (components + 7, T) of the regressions, the constant last.
        centres: (G, T) of the kinds, in log-odds.
    """

    def __init__(
        self, mean: Floats, axes: Floats, surface: Floats, weights: Floats, centres: Floats
    ) -> None:
        self.mean, self.axes, self.surface = mean, axes, surface
        self.weights, self.centres = weights, centres
        self._known: dict[str, int] = {}

    @classmethod
    def fit(
        cls,
        questions: Sequence[str],
        vectors: npt.NDArray[np.float32],
        targets: Floats,
        count: int,
        seed: int = 0,
        *,
        exactly: bool = True,
    ) -> Fitted:
        """Find kinds.

        Args:
            questions: (Q,) training questions.
            vectors: (Q, d) of these.
            targets: (Q, T) results in [0, 1]; NaN unknown. What is alike in all of these is one kind.
            count: How many kinds, at most.
            seed: Of the folds and the first centres.
            exactly: That many; or the one of `COUNTS` up to it that tells most of each question by the
                others of its kind.
        """
        rng = np.random.default_rng(seed)
        mean, axes = principal_axes(vectors, min(DIMENSIONS, len(vectors) - 1))
        written = surface_of(questions)
        surface = np.stack([written.mean(axis=0), np.maximum(written.std(axis=0), 1e-3)])
        features = _features(questions, vectors, mean, axes, surface)
        fold = rng.permutation(len(vectors)) % min(_FOLDS, len(vectors))
        logit = np.zeros(targets.shape)
        for k in range(int(fold.max()) + 1):
            weights = _regressions(features[fold != k], targets[fold != k])
            logit[fold == k] = features[fold == k] @ weights
        bounded = np.clip(logit, -_BOUND, _BOUND)
        counts = [count] if exactly else [k for k in COUNTS if k <= count] or [1]
        tried = [_k_means(bounded, k, rng) for k in counts]
        losses = [_left_out_loss(targets, _nearest(bounded, centres)) for centres in tried]
        centres = tried[int(np.argmin(losses))]
        found = cls(
            mean.astype(np.float64),
            axes.astype(np.float64),
            surface,
            _regressions(features, targets),
            centres,
        )
        return Fitted(found, _nearest(bounded, centres), sigmoid(logit))

    def of(self, questions: Sequence[str], encoder: TextEncoder) -> list[int]:
        """The kind of each question; each is encoded once."""
        new = [question for question in dict.fromkeys(questions) if question not in self._known]
        if new:
            if len(self._known) > _REMEMBERED:
                self._known = {}
                new = list(dict.fromkeys(questions))
            features = _features(new, encoder.encode(new), self.mean, self.axes, self.surface)
            logit = np.clip(features @ self.weights, -_BOUND, _BOUND)
            self._known.update(zip(new, _nearest(logit, self.centres).tolist(), strict=True))
        return [self._known[question] for question in questions]

    @property
    def arrays(self) -> dict[str, Floats]:
        """Everything, to save."""
        return {
            "mean": self.mean,
            "axes": self.axes,
            "surface": self.surface,
            "weights": self.weights,
            "centres": self.centres,
        }


def nearest_named(encoder: TextEncoder, questions: Sequence[str], names: Sequence[str]) -> Ints:
    """(Q,) kind of each question: the one whose name is nearest to it."""
    vectors = encoder.encode([*names, *questions])
    near: Ints = (vectors[len(names) :] @ vectors[: len(names)].T).argmax(axis=1).astype(np.int64)
    return near


def surface_of(questions: Sequence[str]) -> Floats:
    """(Q, 6) how questions are written: length, lines; shares of digits, LaTeX, brackets and capitals."""
    rows = []
    for text in questions:
        n = max(len(text), 1)
        rows.append(
            [
                np.log1p(n),
                np.log1p(text.count("\n")),
                sum(c.isdigit() for c in text) / n,
                sum(c in "\\$^{}" for c in text) / n,
                sum(c in "()[]=_:" for c in text) / n,
                sum(c.isupper() for c in text) / n,
            ]
        )
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


def _features(
    questions: Sequence[str],
    vectors: npt.NDArray[np.float32],
    mean: npt.ArrayLike,
    axes: npt.ArrayLike,
    surface: Floats,
) -> Floats:
    inside = (vectors - np.asarray(mean)) @ np.asarray(axes)
    # A question unlike all in training must not count without bounds.
    written = np.clip((surface_of(questions) - surface[0]) / surface[1], -3.0, 3.0)
    ones = np.ones((len(vectors), 1))
    result: Floats = np.concatenate([written, inside, ones], axis=1).astype(np.float64)
    return result


def _regressions(features: Floats, targets: Floats) -> Floats:
    """(components + 1, T) weights of one logistic regression per target."""
    size = features.shape[1]
    penalty = np.full(size, _PENALTY)
    penalty[-1] = 0.05
    found = np.zeros((size, targets.shape[1]))
    for t, target in enumerate(targets.T):
        known = ~np.isnan(target)
        at, result, weights = features[known], target[known], found[:, t]
        for _ in range(_STEPS):
            right = sigmoid(at @ weights)
            slope = at.T @ (result - right) - penalty * weights
            bend = (at * (right * (1.0 - right))[:, None]).T @ at + np.diag(penalty)
            move = np.clip(np.linalg.solve(bend, slope), -2.0, 2.0)
            weights = weights + move
            if np.abs(move).max() < 1e-4:
                break
        found[:, t] = weights
    return found


def _nearest(points: Floats, centres: Floats) -> Ints:
    distance = (centres**2).sum(axis=1) - 2.0 * points @ centres.T
    result: Ints = distance.argmin(axis=1).astype(np.int64)
    return result


def _left_out_loss(targets: Floats, label: Ints) -> float:
    """Mean log loss of each result by the others on questions of its kind."""
    total, number = 0.0, 0
    for g in np.unique(label):
        there = targets[label == g]
        known = ~np.isnan(there)
        value = np.where(known, there, 0.0)
        rate = (value.sum(axis=0) - value + 0.5) / (np.maximum(known.sum(axis=0), 1) - known + 1.0)
        loss = -(value * np.log(rate) + (1.0 - value) * np.log(1.0 - rate))
        total += float(loss[known].sum())
        number += int(known.sum())
    return total / max(number, 1)


def _k_means(points: Floats, count: int, rng: np.random.Generator) -> Floats:
    """(<= count, T) centres; clusters that stay empty are left out."""
    best: Floats = points.mean(axis=0, keepdims=True)
    least = np.inf
    count = min(count, len(np.unique(points.round(6), axis=0)))
    for _ in range(_STARTS):
        centres = points[rng.integers(len(points))][None]
        for _ in range(count - 1):
            away = ((points[:, None] - centres) ** 2).sum(axis=2).min(axis=1)
            share = away / away.sum() if away.sum() > 0 else np.full(len(points), 1 / len(points))
            centres = np.concatenate([centres, points[rng.choice(len(points), p=share)][None]])
        for _ in range(50):
            label = _nearest(points, centres)
            there = np.unique(label)
            moved = np.stack([points[label == k].mean(axis=0) for k in there])
            if moved.shape == centres.shape and np.allclose(moved, centres):
                break
            centres = moved
        spread = float(((points - centres[_nearest(points, centres)]) ** 2).sum())
        if spread < least - 1e-9:
            best, least = centres, spread
    return best
