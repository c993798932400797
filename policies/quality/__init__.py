"""How good an answer is, from 0 to 1: many metrics behind one protocol.

`get_metric("match")` gives a metric by name. This room knows answers and references; it knows nothing of
experts, costs or agents.
"""

from der_graph.policies.quality.metric import QualityMetric, check_references, needs_reference
from der_graph.policies.quality.registry import get_metric, metric_names

__all__ = ["QualityMetric", "check_references", "get_metric", "metric_names", "needs_reference"]
