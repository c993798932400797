"""Answers and references for tests of quality metrics."""

from __future__ import annotations

from typing import Any

from der_graph.data import Example
from der_graph.nodes.values import extract_value
from der_graph.policies.quality import QualityMetric
from der_graph.state import Answer, blank_answer


def answer(text: str, *, expert: str = "a", error: str | None = None) -> Answer:
    return blank_answer(expert, text=text, value=extract_value(text), cost=1.0, error=error)


def example(reference: str, **more: Any) -> Example:
    return Example("q1", "What?", reference, **more)


def quality(metric: QualityMetric, text: str, reference: str) -> float:
    return metric.score([answer(text)], [example(reference)])[0]
