"""Metrics by name, with their settings: `get_metric("match")`, `get_metric("recorded:accuracy")`.

Every metric takes its packages and models in when it is made, not when this file is imported.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from der_graph.data import Example
from der_graph.errors import MetricError, PluginError
from der_graph.plugins import find_plugin, import_object, known_names
from der_graph.policies.quality.judge_registry import judge_by, make_judge
from der_graph.policies.quality.match import (
    MathVerify,
    RougeL,
    agreement,
    choice,
    exact,
    letters_of,
    match,
    numbers_of,
    numeric,
    token_f1,
)
from der_graph.policies.quality.metric import PairMetric, QualityMetric
from der_graph.policies.quality.neural import BLEURT, BARTScore, BERTScore
from der_graph.policies.quality.recorded import RecordedScore

DEFAULT_METRIC = "match"

_PAIRS = {
    "match": match,
    "numeric": numeric,
    "exact": exact,
    "choice": choice,
    "token_f1": token_f1,
    "agreement": agreement,
}

_CHECKS: dict[str, Callable[[Example], object]] = {"numeric": numbers_of, "choice": letters_of}

_CLASSES: dict[str, Callable[..., QualityMetric]] = {
    "rouge_l": RougeL,
    "math": MathVerify,
    "bertscore": BERTScore,
    "bartscore": BARTScore,
    "bleurt": BLEURT,
    "judge": make_judge,
}

_RECORDED = "recorded:"
_JUDGE = "judge:"


def metric_names() -> list[str]:
    """The names of der-graph's own metrics; the last stands for any recorded score."""
    return [
        *_PAIRS,
        *_CLASSES,
        f"{_JUDGE}<model>",
        "<module>:<function>",
        f"{_RECORDED}<score name>",
    ]


def get_metric(name: str = DEFAULT_METRIC, **settings: Any) -> QualityMetric:
    """Make a quality metric.

    Args:
        name: One of `metric_names()`, or a metric of another package (see `der_graph.plugins`).
        **settings: The metric's own settings, such as `checkpoint` for `bertscore`.

    Raises:
        MetricError: If the name is unknown, or the settings are not the metric's.
        MissingDependencyError: If a package that the metric needs is not installed.

    Examples:
        >>> get_metric("match").name
        'match'
    """
    name = name.strip()
    if name.startswith(_RECORDED) and len(name) > len(_RECORDED):
        return _make(name, RecordedScore, {"score_name": name.removeprefix(_RECORDED), **settings})
    if name.startswith(_JUDGE) and len(name) > len(_JUDGE):
        return judge_by(name.removeprefix(_JUDGE), **settings)
    if name in _PAIRS:
        if settings:
            raise MetricError(f"metric '{name}' has no settings, given: {', '.join(settings)}")
        return PairMetric(name, _PAIRS[name], _CHECKS.get(name))
    if name in _CLASSES:
        return _make(name, _CLASSES[name], settings)
    found = find_plugin("metrics", name)
    if found is None and ":" in name.strip(":"):
        return _own(name, settings)
    if found is None:
        known = known_names("metrics", metric_names())
        raise MetricError(f"metric '{name}' is unknown; choose one of: {known}")
    return _make(name, found, settings)


def _own(name: str, settings: dict[str, Any]) -> QualityMetric:
    """A metric as `module:name`: a metric, a class of one, or a function of answer and example."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script has its own folder there, and not the user's
    try:
        found = import_object(name)
    except PluginError as error:
        known = known_names("metrics", metric_names())
        raise MetricError(f"metric {error}; choose one of: {known}") from error
    if isinstance(found, type):
        return _make(name, found, settings)
    if settings:
        raise MetricError(f"metric '{name}' has no settings, given: {', '.join(settings)}")
    if isinstance(found, QualityMetric):
        return found
    if not callable(found):
        raise MetricError(f"metric '{name}' is {found!r}; it must be a metric or a function")
    return PairMetric(name, lambda answer, example: float(found(answer, example)))


def _make(
    name: str, factory: Callable[..., QualityMetric], settings: dict[str, Any]
) -> QualityMetric:
    signature = inspect.signature(factory)
    try:
        signature.bind(**settings)
    except TypeError as error:
        allowed = ", ".join(key for key in signature.parameters if key != "score_name")
        raise MetricError(f"metric '{name}': {error}; its settings are: {allowed}") from None
    metric = factory(**settings)
    if not isinstance(metric, QualityMetric):
        raise MetricError(
            f"metric '{name}': {metric!r} is no QualityMetric; it needs name and score"
        )
    return metric
