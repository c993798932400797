"""Texts as an agent sees them: encoded once, projected to a few dimensions, with what is known nearby.

    texts ──encoder, one batch──> vectors ──principal axes──> a few numbers of unit variance
                                     └─────nearest probes───> skill of every expert on questions like this

What was looked up is remembered, because a question is looked at on every step of its route.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.nodes.reliability.copying import BeginsAnew
from der_graph.policies.observation.encoder import TextEncoder, Vectors
from der_graph.policies.observation.evidence import EPSILON
from der_graph.policies.observation.last_used import LastUsed

NEIGHBOURS = 24
"""Probe questions that the local skill looks at; kernel-weighted, so the number is not critical."""
_SHARPNESS = 10.0  # of the kernel: a probe 0.1 less similar counts 1/e as much
_PRIOR = 2.0  # pseudo-observations of the overall skill
_COMMON_PRIOR = 2.0  # the same, of how hard questions are here for all experts together
# The same, of how an expert differs from all here: mostly chance, so it counts little.
_OWN_PRIOR = 60.0
_PAIRS_PRIOR = 20.0  # the same in pairs of wrong answers: those of one question go together
_ANYWHERE = 0.2  # how often two wrong answers are the same where nothing is known
_REMEMBERED = 50_000  # texts; a server must not grow without end
_ROUNDING = 1e-8  # share of the largest variance below which there is none
_SIMILARITIES = 2**23  # of questions to probes, at a time: 32 MB


class Projected(NamedTuple):
    """One text.

    Attributes:
        vector: Its embedding, unit length.
        projected: Its coordinates on the principal axes.
        skill: Of every expert near this question, in [0, 1]; empty for answers.
        expected: Probability of every expert being right on this question; empty for answers.
        chance: How often two wrong answers to questions like this one are the same, in (0, 1).
        cost_ratio: Expected cost of a call of every expert on this question, in its mean cost; 1 for all of a
            pool whose calls all cost the same.
    """

    vector: Vectors
    projected: Vectors
    skill: Vectors
    expected: Vectors
    chance: float = 1.0
    cost_ratio: Vectors | float = 1.0


class ProjectedTexts(BeginsAnew):
    """Encodes and projects texts, each once.

    Args:
        encoder: The frozen sentence encoder.
        arrays: See `Observer`.
        skill: Overall skill of every expert: (experts,).
        neighbours: Look at probe questions near the question, or use the overall skill everywhere.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        arrays: dict[str, npt.NDArray[np.float32]],
        skill: npt.NDArray[np.float32],
        *,
        neighbours: bool = True,
    ) -> None:
        self._encoder = encoder
        self._arrays = arrays
        self._skill = skill
        self._neighbours = neighbours
        known = ~np.isnan(arrays["probe_quality"])
        self._sparse = np.flatnonzero(~known.all(axis=0)).tolist()
        beyond = np.where(known, arrays["probe_quality"] - skill, 0.0)
        self._common = beyond.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        if known.shape[1] > 1:
            self._common[known.sum(axis=1) == 1] = (
                0.0  # one result says nothing of the other experts
            )
        self._own = np.where(known, beyond - self._common[:, None], np.nan)
        self._wrong = arrays.get("wrong_pairs", np.zeros((len(known), 2), dtype=np.float32))
        self._chance = float(_share(self._wrong.sum(axis=0), _ANYWHERE))
        self._cost = arrays.get("probe_cost")
        self._ones = np.ones(known.shape[1], dtype=np.float32)
        self._begin()

    def _begin(self) -> None:
        self._questions: LastUsed[str, Projected] = LastUsed(_REMEMBERED)
        self._answers: LastUsed[str, Projected] = LastUsed(_REMEMBERED)
        self._own_features: dict[str, Projected] = {}
        self._lock = threading.Lock()

    def look_up(
        self, questions: Sequence[str], answers: Sequence[str]
    ) -> tuple[dict[str, Projected], dict[str, Projected]]:
        """Encode what is new among these texts, in one batch.

        Returns:
            Every question and every answer given, by text. Handed out and not read from the memory
            later: by then another thread, or this very batch, may have crowded it out.
        """
        with self._lock:
            known_questions = self._questions.known(questions)
            known_questions |= {
                t: self._own_features[t] for t in questions if t in self._own_features
            }
            known_answers = self._answers.known(answers)
        new_questions = [t for t in dict.fromkeys(questions) if t not in known_questions]
        new_answers = [t for t in dict.fromkeys(answers) if t not in known_answers]
        new = list(dict.fromkeys([*new_questions, *new_answers]))
        if not new:
            return known_questions, known_answers
        # Outside the lock: threads whose texts are known do not wait for the encoder.
        vectors = dict(zip(new, self._encoder.encode(new), strict=True))
        arrays, none = self._arrays, np.zeros(0, dtype=np.float32)
        known_questions.update(self._project(new_questions, vectors))
        for text in new_answers:
            vector = vectors[text]
            projected = (vector - arrays["answer_mean"]) @ arrays["answer_axes"]
            known_answers[text] = Projected(vector, projected, none, none)
        with self._lock:
            self._questions.remember({text: known_questions[text] for text in new_questions})
            self._answers.remember({text: known_answers[text] for text in new_answers})
        return known_questions, known_answers

    def remember(self, questions: Sequence[str], projected: Vectors, expected: Vectors) -> None:
        """Show some questions with features of their own, whatever the arrays would give them.

        Training questions get features from a fit without them. These are never crowded out.

        Args:
            questions: Some questions.
            projected: (questions, dims).
            expected: (questions, experts) probability of every expert being right.
        """
        known, _ = self.look_up(questions, [])
        changed = {
            text: known[text]._replace(projected=features, expected=quality)
            for text, features, quality in zip(questions, projected, expected, strict=True)
        }
        with self._lock:
            self._own_features.update(changed)
            for text in changed:
                self._questions.pop(text, None)

    def _project(
        self, questions: Sequence[str], vectors: Mapping[str, Vectors]
    ) -> Iterator[tuple[str, Projected]]:
        """Questions as the agent sees them, some at a time: all against all would be much at once."""
        arrays = self._arrays
        at_once = max(1, _SIMILARITIES // max(1, len(arrays["probe_vectors"])))
        for start in range(0, len(questions), at_once):
            chunk = questions[start : start + at_once]
            block = np.stack([vectors[text] for text in chunk])
            centred = block - arrays["question_mean"]
            near = self._near(block)
            expected = near.expected
            if "quality_axes" in arrays:
                linear = arrays["quality_mean"] + centred @ arrays["quality_axes"]
                fitted = np.clip(linear, EPSILON, 1 - EPSILON)
                # Experts that joined later have no fit of their own: what is near the question stands for it.
                expected = np.concatenate([fitted, expected[:, fitted.shape[1] :]], axis=1)
            rows = zip(
                chunk, block, centred @ arrays["question_axes"], near.skill,
                expected.astype(np.float32), near.chance.tolist(), near.cost_ratio, strict=True,
            )  # fmt: skip
            yield from ((text, Projected(*row)) for text, *row in rows)

    def _near(self, block: Vectors) -> _Near:
        """What is known of the experts near some questions: (n, d)."""
        probes, quality = self._arrays["probe_vectors"], self._arrays["probe_quality"]
        n, ones = len(block), np.broadcast_to(self._ones, (len(block), len(self._ones)))
        if not self._neighbours or len(probes) == 0:
            skill = np.broadcast_to(self._skill, (n, len(self._skill)))
            return _Near(skill, skill, np.full(n, self._chance), ones)
        similarity = block @ probes.T
        # A training question must not look its own result up: it would learn to trust what it cannot have.
        similarity[similarity > 1 - 1e-5] = -1.0
        some, nearest = _most(similarity, min(NEIGHBOURS, len(probes)))
        near = self._kernel_mean(some, quality[nearest], self._skill)
        for expert in self._sparse:  # its own nearest: few of the probes have asked it
            asked = np.flatnonzero(~np.isnan(quality[:, expert]))
            own, at = _most(similarity[:, asked], min(NEIGHBOURS, len(asked)))
            column = slice(expert, expert + 1)
            near[:, column] = self._kernel_mean(
                own, quality[asked[at], column], self._skill[column]
            )
        zero = np.zeros(1, dtype=np.float32)
        common = self._kernel_mean(some, self._common[nearest, None], zero, _COMMON_PRIOR)
        own_skill = self._kernel_mean(some, self._own[nearest], zero, _OWN_PRIOR)
        weight = _kernel(some)
        pairs = (weight[:, :, None] * self._wrong[nearest]).sum(axis=1)
        chance = _share(pairs, self._chance)
        guess = np.clip(self._skill + common + own_skill, EPSILON, 1 - EPSILON)
        if self._cost is None:
            return _Near(near, guess, chance, ones)
        return _Near(near, guess, chance, self._kernel_mean(some, self._cost[nearest], self._ones))

    @staticmethod
    def _kernel_mean(
        similarity: Vectors, quality: Vectors, prior: Vectors, strength: float = _PRIOR
    ) -> Vectors:
        """(n, k) similarities and (n, k, experts) qualities -> (n, experts)."""
        weight = _kernel(similarity)[:, :, None]
        known = ~np.isnan(quality)
        total = (weight * np.where(known, quality, 0.0)).sum(axis=1) + strength * prior
        mean: Vectors = (total / ((weight * known).sum(axis=1) + strength)).astype(np.float32)
        return mean


class _Near(NamedTuple):
    """What is known of the experts near some questions.

    Attributes:
        skill: (n, experts) kernel-weighted quality on the nearest probe questions, pulled towards the overall
            mean.
        expected: (n, experts) a better guess for comparing experts, in which what they have in common, how
            hard questions are here, counts more than how they differ.
        chance: (n,) how often wrong answers are the same.
        cost_ratio: (n, experts) what calls cost here, in their means.
    """

    skill: Vectors
    expected: Vectors
    chance: Vectors
    cost_ratio: Vectors


def _kernel(similarity: Vectors) -> Vectors:
    """(n, k) weights of neighbours, 1 for the nearest."""
    nearest = similarity.max(axis=1, keepdims=True, initial=-1.0)
    weight: Vectors = np.exp((similarity - nearest) * _SHARPNESS)
    return weight


def _most(similarity: Vectors, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """(n, k) largest similarities of each row, and where they are."""
    at = np.argpartition(similarity, similarity.shape[1] - k, axis=1)[:, similarity.shape[1] - k :]
    return np.take_along_axis(similarity, at, axis=1), at


def principal_axes(vectors: Vectors, dims: int) -> tuple[Vectors, Vectors]:
    """Mean and first principal axes, scaled so that projections have unit variance.

    Args:
        vectors: float32, (texts, dimensions).
        dims: How many axes.

    Returns:
        (dimensions,) and (dimensions, dims); missing axes (too few different texts) are zero.
    """
    mean = vectors.mean(axis=0)
    centred = (vectors - mean).astype(np.float64)
    # Of the covariance, and not an SVD of all rows: that takes seconds for some thousand texts.
    variance, axes = np.linalg.eigh(centred.T @ centred / max(1, len(vectors)))
    # Where these texts do not differ at all, the axis is rounding, and other texts would be anywhere on it.
    kept = min(dims, int((variance > max(_ROUNDING * variance[-1], _ROUNDING**2)).sum()))
    variance, axes = variance[::-1][:kept], axes[:, ::-1][:, :kept]
    scaled = np.zeros((vectors.shape[1], dims), dtype=np.float32)
    # The sign of an axis is arbitrary; fixed, so that training is repeatable across machines.
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(kept)])
    scaled[:, :kept] = axes * signs / np.maximum(np.sqrt(np.maximum(variance, 0.0)), 1e-3)
    return mean.astype(np.float32), scaled


def _share(pairs: Vectors, before: float) -> Vectors:
    """(..., 2) pairs, and how many are the same -> that share, pulled towards what was thought before."""
    share = (pairs[..., 1] + _PAIRS_PRIOR * before) / (pairs[..., 0] + _PAIRS_PRIOR)
    bounded: Vectors = np.clip(share, EPSILON, 1 - EPSILON)
    return bounded
