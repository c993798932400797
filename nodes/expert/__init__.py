"""An expert: who is asked, how one call of it goes, what its answer is, and its node in the graph.

    node ──> expert ──> attempt ──> reading

The node takes the edge's task and gives the route, one step longer. The expert writes the prompt and calls
its model; an attempt holds the call to its time and tells the expert's health what came of it; what the
model gave, or raised, is read into an `Answer`. This room does not know who is chosen, nor why.
"""

from der_graph.nodes.expert.cache import NodeCache, place_of, worth_keeping
from der_graph.nodes.expert.expert import (
    MAX_ANSWER_CHARS,
    RESERVED_NAMES,
    ChatRunnable,
    Expert,
    asked_alone,
    check_name,
)
from der_graph.nodes.expert.node import expert_node
from der_graph.nodes.expert.reading import counted_size
from der_graph.nodes.expert.unable import unable_experts

__all__ = [
    "MAX_ANSWER_CHARS",
    "RESERVED_NAMES",
    "ChatRunnable",
    "Expert",
    "NodeCache",
    "asked_alone",
    "check_name",
    "counted_size",
    "expert_node",
    "place_of",
    "unable_experts",
    "worth_keeping",
]
