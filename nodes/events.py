"""The events that a route writes to the stream (`stream_mode="custom"`), as they happen.

    {"type": "der.decision", **Decision}              the agent has chosen
    {"type": "der.answer", "step": int, **Answer}     an expert has answered, or failed

Knows nothing of agents and experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.config import get_stream_writer


def write_event(
    config: RunnableConfig, kind: Literal["der.decision", "der.answer"], content: Mapping[str, Any]
) -> None:
    """Write one event; nothing happens where nobody listens.

    Args:
        config: The configuration that the node or edge was called with. Python 3.10 does not hand its
            context on to coroutines, so LangGraph's writer would not find its stream without it.
        kind: Type of the event.
        content: The decision or answer.
    """
    with set_config_context(config) as context:
        context.run(lambda: get_stream_writer()({"type": kind, **content}))
