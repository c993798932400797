"""A conversation as strict providers take it.

    no turn without content    several turns of one role as one    a user's turn first    results after calls

Chat products leave empty turns where a stream was stopped, people send two messages in a row or do not wait
for a tool, assistants open chats with a greeting, and histories are trimmed between a call and its result.
Some providers, and many chat templates, refuse each of these. Knows
nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

OPENING = "(The conversation begins.)"
"""Stands for the user's turn where the assistant has opened the chat."""

_NO_NAME = re.compile(r"[\s<|\\/>]+")

NO_OUTPUT = "(no output)"
"""Stands for the result of a tool that gave none."""

NO_RESULT = "(no result: the call was not made, or did not end)"
"""Stands for the result of a call that nobody answered."""


def has_content(message: BaseMessage) -> bool:
    """Does a message hold anything: text, another block, or calls of tools?"""
    if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
        return True
    content = message.content
    if isinstance(content, str):
        return bool(content.strip())
    return any(bool(part.strip()) if isinstance(part, str) else _holds(part) for part in content)


def _holds(block: dict[str, object]) -> bool:
    return block.get("type") != "text" or bool(str(block.get("text") or "").strip())


def sendable(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The conversation without empty turns, with roles in turn, results after calls, the user first."""
    sent: list[BaseMessage] = []
    for message in _with_results(messages):
        if not has_content(message):
            if not isinstance(message, ToolMessage):
                continue
            message = message.model_copy(update={"content": NO_OUTPUT})  # its call wants a result
        # OpenAI's protocol refuses other names; experts are often named after their model's id.
        if message.name and (name := _NO_NAME.sub("-", message.name)[:64]) != message.name:
            message = message.model_copy(update={"name": name})
        if sent and _joins(sent[-1], message):
            sent[-1] = _joined(sent[-1], message)
        else:
            sent.append(message)
    first = next((i for i, each in enumerate(sent) if not isinstance(each, SystemMessage)), None)
    if first is not None and isinstance(sent[first], AIMessage):
        sent.insert(first, HumanMessage(OPENING))
    return sent


def _with_results(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Each call with one result right after it; results whose call is not there are left out."""
    results = {each.tool_call_id: each for each in messages if isinstance(each, ToolMessage)}
    if not results and not any(getattr(each, "tool_calls", None) for each in messages):
        return list(messages)
    placed: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            continue
        placed.append(message)
        if isinstance(message, AIMessage):
            calls = [*message.tool_calls, *message.invalid_tool_calls]
            for call_id in dict.fromkeys(call["id"] for call in calls if call["id"]):
                missing = ToolMessage(NO_RESULT, tool_call_id=call_id)
                placed.append(results.pop(call_id, missing))
    return placed


def _joins(before: BaseMessage, after: BaseMessage) -> bool:
    """Are two neighbours turns of one role, that can be one?"""
    for kind in (HumanMessage, AIMessage, SystemMessage):
        if isinstance(before, kind) and isinstance(after, kind):
            return not (isinstance(before, AIMessage) and before.tool_calls)
    return False


def _joined(before: BaseMessage, after: BaseMessage) -> BaseMessage:
    # Of two people with names, each keeps theirs in front of what they said.
    apart = before.name != after.name
    one, two = (_named(each) if apart else each for each in (before, after))
    if isinstance(one.content, str) and isinstance(two.content, str):
        content: object = f"{one.content}\n\n{two.content}"
    else:
        content = [*_blocks(one), *_blocks(two)]
    changes = {"content": content, "name": None if apart else before.name}
    return after.model_copy(update=changes)  # it has the tool calls, where there are any


def _named(message: BaseMessage) -> BaseMessage:
    if not message.name:
        return message
    if isinstance(message.content, str):
        return message.model_copy(update={"content": f"{message.name}: {message.content}"})
    label = {"type": "text", "text": f"{message.name}:"}
    return message.model_copy(update={"content": [label, *message.content]})


def _blocks(message: BaseMessage) -> list[object]:
    content = message.content
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
