"""The events that a route writes to the stream (`stream_mode="custom"`), as they happen.

    {"type": "der.decision", **Decision}                       the agent has chosen
    {"type": "der.draft", "expert", "step", "text"}            a token of an answer that may not be the last
    {"type": "der.answer", "step": int, **Answer}              an expert has answered, or failed
    {"type": "der.final", "expert", "text", "message_id", "experts", "cost", "seconds"}   the route has ended

Drafts are told with `stream_tokens="final"` only (`der_graph.nodes.streaming`). Knows nothing of agents and
experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.config import get_stream_writer

EventKind = Literal["der.decision", "der.draft", "der.answer", "der.final"]


def write_event(config: RunnableConfig, kind: EventKind, content: Mapping[str, Any]) -> None:
    """Write one event; nothing happens where nobody listens.

    Args:
        config: The configuration that the node or edge was called with. Python 3.10 does not hand its
            context on to coroutines, so LangGraph's writer would not find its stream without it.
        kind: Type of the event.
        content: What happened.
    """
    with set_config_context(config) as context:
        context.run(lambda: get_stream_writer()({"type": kind, **content}))
