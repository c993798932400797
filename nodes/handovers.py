"""Hand-overs between agents are bookkeeping of the graph around, and nothing that was said.

    human: 2 + 3?                                        kept
    ai:    transfer_to_der()                             dropped
    tool:  Successfully transferred to der               dropped

langgraph-supervisor and langgraph-swarm hand over by tool calls and leave them in the conversation. An expert
that read them would have to be able to read tools, and would take them for the state of the task. Knows
nothing of routes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

_NAME = re.compile(r"transfer_(?:back_)?to_")
_MARKS = (
    "__handoff_destination",
    "__is_handoff_back",
)  # langgraph-supervisor's, in response_metadata


def without_handovers(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """A conversation without the tool calls that pass it from agent to agent, and without their results.

    A call is a hand-over if its tool is named `transfer_to_...` or `transfer_back_to_...`, or its result is
    marked as one. What an agent said beside a hand-over stays, except for the standing phrase of those who
    hand back.
    """
    ids = set()
    for message in messages:
        if isinstance(message, AIMessage):
            ids |= {call["id"] for call in message.tool_calls if _NAME.match(call["name"])}
        elif isinstance(message, ToolMessage) and _marked(message):
            ids.add(message.tool_call_id)
    return [kept for message in messages if (kept := _without(message, ids)) is not None]


def _without(message: AnyMessage, ids: set[str | None]) -> AnyMessage | None:
    if isinstance(message, ToolMessage):
        return None if message.tool_call_id in ids else message
    if not isinstance(message, AIMessage) or not any(c["id"] in ids for c in message.tool_calls):
        return message
    calls = [call for call in message.tool_calls if call["id"] not in ids]
    if not calls and (_marked(message) or not message.text.strip()):
        return None
    # Its text alone: lists of content blocks and providers' own fields would name the call again.
    return AIMessage(message.text, id=message.id, name=message.name, tool_calls=calls)


def _marked(message: AnyMessage) -> bool:
    return any(mark in message.response_metadata for mark in _MARKS)
