"""What a quality metric is: answers and examples in, one number from 0 to 1 for each out.

A failed or empty answer is worth 0 under every metric, without being looked at. Where a reference has
several spellings, separated by " | ", the best one counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from der_graph.data import ALIAS_SEPARATOR, Example
from der_graph.errors import MetricError
from der_graph.state import Answer


@runtime_checkable
class QualityMetric(Protocol):
    """Judges answers, many at once."""

    @property
    def name(self) -> str:
        """The name that `get_metric` knows it by."""

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[float]:
        """Judge each answer by the example at its position.

        Args:
            answers: (n,) answers, failed ones included.
            examples: (n,) the questions that they answer.

        Returns:
            (n,) qualities, each in [0, 1].
        """


@dataclass(frozen=True)
class PairMetric:
    """A metric that looks at one answer and one reference at a time.

    Attributes:
        name: Name of the metric.
        compare: Gives the quality, in [0, 1], of an answer for a whole example.
        check: Raises DataError where an example's reference cannot be compared with; None if any can.
    """

    name: str
    compare: Callable[[Answer, Example], float]
    check: Callable[[Example], object] | None = None

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[float]:
        """Judge each answer by the example at its position; see `QualityMetric`."""
        pairs = zip(answers, examples, strict=True)
        return [
            self.compare(answer, example) if is_answered(answer) else 0.0
            for answer, example in pairs
        ]


def needs_reference(metric: QualityMetric) -> bool:
    """Does a metric compare with a right answer? It says so as `needs_reference`; yes where it does not."""
    return bool(getattr(metric, "needs_reference", True))


def check_references(metric: QualityMetric, examples: Sequence[Example]) -> None:
    """See that a metric can compare with the references, before anybody is asked for answers.

    Raises:
        DataError: If it cannot; it says which one.
    """
    if isinstance(metric, PairMetric) and metric.check is not None:
        for example in examples:
            metric.check(example)


def is_answered(answer: Answer) -> bool:
    """Whether there is anything to judge."""
    return answer["error"] is None and bool(answer["text"].strip())


def references(example: Example) -> list[str]:
    """The accepted spellings of the right answer, at least one."""
    return [part.strip() for part in example.reference.split(ALIAS_SEPARATOR)]


class TextPairs:
    """Base of metrics that compare many texts at once, as batched models need it."""

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[float]:
        """Judge each answer by the example at its position; see `QualityMetric`.

        Returns:
            (n,) the best number over the spellings of the reference, clipped to [0, 1]; 0 for failed answers,
            and where there is no reference.

        Raises:
            MetricError: If a number is NaN.
        """
        pairs = [
            (position, answer["text"].strip(), reference)
            for position, (answer, example) in enumerate(zip(answers, examples, strict=True))
            if is_answered(answer)
            for reference in references(example)
            if reference
        ]
        best = [0.0] * len(answers)
        if not pairs:
            return best
        owners, texts, targets = zip(*pairs, strict=True)
        for position, value in zip(owners, self._compare([*texts], [*targets]), strict=True):
            if math.isnan(value):
                raise MetricError(
                    f"question {examples[position].id!r}: the metric gave NaN for an answer of "
                    f"'{answers[position]['expert']}'; does the checkpoint fit the metric?"
                )
            best[position] = max(best[position], min(1.0, value))
        return best

    def _compare(self, texts: list[str], targets: list[str]) -> list[float]:
        """How like each text is to the reference at its position; called at most once."""
        raise NotImplementedError
