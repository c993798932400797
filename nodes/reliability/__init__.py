"""Calls that may hang, fail or come in numbers: threads, limits, deadlines.

A call of an expert goes through here on its way to the model. This room knows what a call is and how long
it may take; it does not know what is asked, nor of graphs.
"""

from der_graph.nodes.reliability.concurrency import Bounded, Slots
from der_graph.nodes.reliability.deadline import DeadlineError, call_limit, in_time, unless_late
from der_graph.nodes.reliability.threads import (
    Cancel,
    alisten,
    in_thread,
    listen,
    resolve_futures,
    stoppable,
)

__all__ = [
    "Bounded",
    "Cancel",
    "DeadlineError",
    "Slots",
    "alisten",
    "call_limit",
    "in_thread",
    "in_time",
    "listen",
    "resolve_futures",
    "stoppable",
    "unless_late",
]
