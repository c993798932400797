"""Recorded qualities: `recorded:accuracy` reads the score `accuracy` that came with the data.

For experts that replay recorded answers. The answer's text is not looked at: the score of the
expert's candidate counts, so with live experts, or answers changed by a knowledge transfer, use
another metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from der_graph.data import Example
from der_graph.errors import DataError, MetricError
from der_graph.nodes.recorded import expert_name_of
from der_graph.state import Answer


@dataclass(frozen=True)
class RecordedScore:
    """Reads `Example.candidates[expert].scores[score_name]`.

    Attributes:
        score_name: Name of the score in the data.
        low: Score that is worth 0.
        high: Score that is worth 1. Between them the quality is (score - low) / (high - low);
            outside them it is 0 or 1. Only with both left alone is a score outside of [0, 1] an
            error.
    """

    needs_reference: ClassVar[bool] = False

    score_name: str
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise MetricError(f"{self.name}: low={self.low} must be below high={self.high}")

    @property
    def name(self) -> str:
        """`recorded:` and the score's name."""
        return f"recorded:{self.score_name}"

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[float]:
        """Look the answers' scores up.

        Raises:
            DataError: If a candidate or its score is missing, NaN, or outside of [0, 1] and no
                range was given.
        """
        pairs = zip(answers, examples, strict=True)
        return [
            0.0 if answer["error"] is not None else self._quality(example, answer["expert"])
            for answer, example in pairs
        ]

    def _quality(self, example: Example, expert: str) -> float:
        where = f"question {example.id!r}, expert '{expert}'"
        candidate = example.candidates.get(expert) or next(
            (each for name, each in example.candidates.items() if expert_name_of(name) == expert),
            None,
        )
        if candidate is None:
            there = ", ".join(example.candidates) or "none at all"
            raise DataError(f"{where}: no recorded answer; recorded are: {there}")
        value = candidate.scores.get(self.score_name)
        if value is None:
            there = ", ".join(candidate.scores) or "none at all"
            raise DataError(f"{where}: no score {self.score_name!r}; recorded are: {there}")
        if math.isnan(value):
            raise DataError(f"{where}: the score {self.score_name!r} is NaN")
        if (self.low, self.high) == (0.0, 1.0) and not 0 <= value <= 1:
            raise DataError(
                f"{where}: the score {self.score_name!r} is {value:g}, outside of [0, 1]; "
                "give the metric the scores that are worth 0 and 1 (low=..., high=...)"
            )
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
