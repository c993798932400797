"""What is seen of routes from outside: traces, their redaction, and users' feedback on them.

`feedback_data` turns rated routes into a data file. This room reads traces and writes files; it changes
nothing on a route.
"""

from der_graph.observability.feedback import RatedRoute, RouteLog, langsmith_routes, rate_run
from der_graph.observability.feedback_data import training_rows, write_training_data
from der_graph.observability.tracing import hidden, redact, tracing_client

__all__ = [
    "RatedRoute",
    "RouteLog",
    "hidden",
    "langsmith_routes",
    "rate_run",
    "redact",
    "tracing_client",
    "training_rows",
    "write_training_data",
]
