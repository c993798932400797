"""Calls that may hang, fail or come in numbers: threads, limits, deadlines, memory of failures.

A call of an expert goes through here on its way to the model. This room knows what a call is and how long
it may take, and how LangGraph runs nodes and closes streams; it does not know what is asked, nor of routes.
"""

from der_graph.nodes.reliability.breaker import Breaker
from der_graph.nodes.reliability.bulkhead import Bulkhead
from der_graph.nodes.reliability.concurrency import (
    Bounded,
    Slots,
    at_once,
    bare,
    is_remote,
)
from der_graph.nodes.reliability.deadline import (
    DEFAULT_TIMEOUT,
    DeadlineError,
    Fallback,
    call_limit,
    limit_of,
    unless_late,
)
from der_graph.nodes.reliability.failures import (
    Failure,
    FailureKind,
    describe_error,
    failure_of,
    is_free,
    is_passing,
    is_stale,
)
from der_graph.nodes.reliability.health import Health
from der_graph.nodes.reliability.hedging import Hedge, arace, check_hedge, patience, race
from der_graph.nodes.reliability.threads import (
    Cancel,
    StreamClosedError,
    alisten,
    in_thread,
    listen,
    resolve_futures,
    stoppable,
)

__all__ = [
    "DEFAULT_TIMEOUT",
    "Bounded",
    "Breaker",
    "Bulkhead",
    "Cancel",
    "DeadlineError",
    "Failure",
    "FailureKind",
    "Fallback",
    "Health",
    "Hedge",
    "Slots",
    "StreamClosedError",
    "alisten",
    "arace",
    "at_once",
    "bare",
    "call_limit",
    "check_hedge",
    "describe_error",
    "failure_of",
    "in_thread",
    "is_free",
    "is_passing",
    "is_remote",
    "is_stale",
    "limit_of",
    "listen",
    "patience",
    "race",
    "resolve_futures",
    "stoppable",
    "unless_late",
]
