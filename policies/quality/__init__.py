"""Quality of an answer: how good it is, from 0 to 1, by many metrics behind one protocol."""

from der_graph.policies.quality.metric import QualityMetric
from der_graph.policies.quality.registry import get_metric, metric_names

__all__ = ["QualityMetric", "get_metric", "metric_names"]
