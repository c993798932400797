"""What the agent sees: a situation becomes one row of numbers.

    question, answers, costs, budget  ──>  [ context (C) | expert 1 (F) | ... | expert N (F) ]

The context is the question and the last answer (sentence embeddings, projected to a few dimensions), how far
the route is, what it cost, and the evidence in the answers: whether they agree, what the last one looks like,
how sure it was. Each expert has its price, what it has done on this route, whether it agrees with the last
answer, and its profile: the index, for a fixed pool, and its results on probe questions. Few question
dimensions are enough, and with few training questions more of them only overfit; the value is in the
answers. Knows nothing of networks or training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from der_graph.nodes.extraction import parse_number
from der_graph.policies.encoder import TextEncoder, Vectors
from der_graph.policies.features import EXPERT_FEATURES, STATE_FEATURES
from der_graph.policies.projection import Projected, ProjectedTexts, principal_axes
from der_graph.state import Answer, Situation, good_answers

_HEDGE = re.compile(
    r"^\W*$|^\?"
    r"|\b(?:i (?:do not|don't|cannot|can't|am not able)|i'm (?:sorry|not)|as an ai|unable to|unknown)\b",
    re.I,
)
_EPSILON = 0.02  # no expert is ever quite right or quite wrong: bounds its weight of evidence


@dataclass(frozen=True)
class ObservationConfig:
    """What goes into an observation.

    Attributes:
        question_dims: Dimensions of the projected question.
        answer_dims: Dimensions of the projected last answer; 0 leaves answers unencoded, which is faster
            and enough where their values (agreement) say what matters.
        fixed_pool: Give each expert its index. Learns more about a fixed pool; cannot take new experts.
        neighbours: Use the probe questions near to the question for `skill_here`.
    """

    question_dims: int = 16
    answer_dims: int = 8
    fixed_pool: bool = True
    neighbours: bool = True


class Observer:
    """Turns situations into observations for one pool.

    Args:
        config: What goes in.
        names: The experts, in the pool's order.
        costs: Price of one call of each.
        encoder: The frozen sentence encoder.
        arrays: Projections and profiles: `question_mean`, `question_axes`, `answer_mean`, `answer_axes`,
            `probe_vectors` (questions, dimensions), `probe_quality` (questions, experts; NaN unknown).
    """

    def __init__(
        self,
        config: ObservationConfig,
        names: Sequence[str],
        costs: Sequence[float],
        encoder: TextEncoder,
        arrays: dict[str, npt.NDArray[np.float32]],
    ) -> None:
        self.config = config
        self.names = list(names)
        self.costs = np.asarray(costs, dtype=np.float32)
        self.encoder = encoder
        self.arrays = arrays
        self._position = {name: i for i, name in enumerate(self.names)}
        self._total = max(float(self.costs.sum()), 1e-12)
        self._constant = self._constant_features()
        self._texts = ProjectedTexts(encoder, arrays, self._skill, neighbours=config.neighbours)

    @classmethod
    def fit(
        cls,
        config: ObservationConfig,
        names: Sequence[str],
        costs: Sequence[float],
        encoder: TextEncoder,
        *,
        questions: Sequence[str],
        answers: Sequence[str],
        qualities: npt.NDArray[np.float32],
    ) -> Observer:
        """Fit projections and profiles on training questions.

        Args, besides those of the class:
            questions: Training questions.
            answers: Some answers to them, for the projection of answers.
            qualities: (questions, experts): quality of each expert's own first answer; NaN where unknown.
        """
        vectors = encoder.encode(questions)
        question_mean, question_axes = principal_axes(vectors, config.question_dims)
        # Without answer dimensions no answer is encoded: that would be most of the work.
        answer_mean, answer_axes = principal_axes(
            encoder.encode(answers) if config.answer_dims and answers else vectors,
            config.answer_dims,
        )
        arrays = {
            "question_mean": question_mean,
            "question_axes": question_axes,
            "answer_mean": answer_mean,
            "answer_axes": answer_axes,
            "probe_vectors": vectors,
            "probe_quality": np.asarray(qualities, dtype=np.float32),
        }
        return cls(config, names, costs, encoder, arrays)

    @property
    def context_size(self) -> int:
        """Number of context features C."""
        return len(STATE_FEATURES) + self.config.question_dims + self.config.answer_dims

    @property
    def expert_size(self) -> int:
        """Number of features of one expert F."""
        return len(EXPERT_FEATURES) + (len(self.names) if self.config.fixed_pool else 0)

    @property
    def size(self) -> int:
        """Length of an observation: C + N * F."""
        return self.context_size + len(self.names) * self.expert_size

    def observe(self, situations: Sequence[Situation], cost_weights: Sequence[float]) -> Vectors:
        """Observe situations; their texts are encoded in one batch.

        Args:
            situations: Any number of them, with masks of this pool's length + 1.
            cost_weights: The price of cost of each, >= 0.

        Returns:
            float32, (n, size); all features finite, most of them within [-3, 3].
        """
        answers = [_last_text(s) for s in situations] if self.config.answer_dims else []
        questions, last = self._texts.look_up(
            [s.question for s in situations], [text for text in answers if text is not None]
        )
        out = np.zeros((len(situations), self.size), dtype=np.float32)
        for row, situation, weight in zip(out, situations, cost_weights, strict=True):
            self._observe_one(row, situation, weight, questions[situation.question], last)
        return out

    def skill(self) -> npt.NDArray[np.float32]:
        """Mean quality of each expert on the probe questions: (experts,); 0.5 where unknown."""
        quality = self.arrays["probe_quality"]
        known = ~np.isnan(quality)
        total = np.where(known, quality, 0.0).sum(axis=0)
        count = known.sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), 0.5).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """All but the arrays, for the agent's config file."""
        return {**asdict(self.config), "encoder": self.encoder.name}

    def _constant_features(self) -> Vectors:
        """The expert features that do not depend on the situation, in place: (experts, F)."""
        n = len(self.names)
        block = np.zeros((n, self.expert_size), dtype=np.float32)
        share = self.costs / self._total
        self._skill = self.skill()
        block[:, EXPERT_FEATURES.index("cost")] = share * n / 2
        block[:, EXPERT_FEATURES.index("log_cost")] = np.log10(np.maximum(share * n, 1e-3))
        block[:, EXPERT_FEATURES.index("skill")] = self._skill
        block[:, EXPERT_FEATURES.index("skill_here")] = self._skill
        rank = np.argsort(np.argsort(self.costs, kind="stable"), kind="stable")
        block[:, EXPERT_FEATURES.index("skill_per_cost_rank")] = rank / max(1, n - 1)
        if self.config.fixed_pool:
            block[:, len(EXPERT_FEATURES) :] = np.eye(n, dtype=np.float32)
        odds = np.clip(self._skill, _EPSILON, 1 - _EPSILON)
        self._evidence = np.log(odds / (1 - odds))
        return block

    def _observe_one(
        self,
        row: Vectors,
        situation: Situation,
        cost_weight: float,
        question: Projected,
        answers: Mapping[str, Projected],
    ) -> None:
        n = len(self.names)
        good = good_answers(situation.answers)
        last = good[-1] if good else None
        experts = row[self.context_size :].reshape(n, self.expert_size)
        experts[:] = self._constant
        experts[:, EXPERT_FEATURES.index("skill_here")] = question.skill
        experts[:, EXPERT_FEATURES.index("allowed")] = situation.mask[:n]
        for answer in situation.answers:
            position = self._position.get(answer["expert"])
            if position is None:
                continue
            mine = experts[position]
            mine[EXPERT_FEATURES.index("asked")] = 1.0
            mine[EXPERT_FEATURES.index("failed")] = float(answer["error"] is not None)
            if last is None or answer["error"] is not None:
                continue
            mine[EXPERT_FEATURES.index("is_last")] = float(answer is last)
            if answer is not last:
                same = last["value"] is not None and answer["value"] == last["value"]
                mine[EXPERT_FEATURES.index("agrees_with_last")] = float(same)
                mine[EXPERT_FEATURES.index("disagrees_with_last")] = float(not same)
        near = 0.0  # cosine of question and last answer
        if last is not None and self.config.answer_dims:
            near = float(question.vector @ answers[last["text"]].vector)
        features = self._state_features(situation, good, cost_weight, near)
        row[: len(STATE_FEATURES)] = features
        start = len(STATE_FEATURES)
        row[start : start + self.config.question_dims] = question.projected
        if last is not None and self.config.answer_dims:
            start += self.config.question_dims
            row[start : self.context_size] = answers[last["text"]].projected

    def _state_features(
        self, situation: Situation, good: list[Answer], cost_weight: float, similarity: float
    ) -> list[float]:
        steps, done = situation.max_steps, len(situation.answers)
        budget = situation.max_cost
        left = 1.0 if budget is None else min(1.0, max(0.0, budget - situation.spent) / self._total)
        always = [
            done / steps,
            float(steps - done == 1),
            situation.spent / self._total,
            left,
            math.log10(max(cost_weight, 1e-4)),
            float(bool(good)),
        ]
        failures = done - len(good)
        if not good:
            return [*always, *[0.0] * 11, float(failures), 0.0]
        last = good[-1]
        value, text, logprob = last["value"], last["text"], last["logprob"]
        others = [answer["value"] == value and value is not None for answer in good[:-1]]
        values = {answer["value"] for answer in good if answer["value"] is not None}
        return [
            *always,
            sum(others) / max(1, len(others)),
            float(any(others)),
            len(values) / len(good),
            self._weight_of_evidence(good) / 3.0,
            float(value is not None),
            float(parse_number(value) is not None),
            float(_is_expression(value)),
            math.log1p(len(text)) / 5.0,
            float(bool(_HEDGE.search(text[:200]))),
            0.0 if logprob is None else max(-3.0, logprob),
            float(logprob is not None),
            float(failures),
            similarity,
        ]

    def _weight_of_evidence(self, good: list[Answer]) -> float:
        """Sum of log-odds of the experts that gave the last value, minus the best other value's sum."""
        support: dict[str | None, float] = {}
        for answer in good:
            position = self._position.get(answer["expert"])
            if position is not None and answer["value"] is not None:
                near = float(self._evidence[position])
                support[answer["value"]] = support.get(answer["value"], 0.0) + near
        mine = support.pop(good[-1]["value"], 0.0)
        return float(np.clip(mine - max([0.0, *support.values()]), -9.0, 9.0))


def _is_expression(value: str | None) -> bool:
    return value is not None and parse_number(value) is None and value[:1] in "(0123456789"


def _last_text(situation: Situation) -> str | None:
    good = good_answers(situation.answers)
    return good[-1]["text"] if good else None
