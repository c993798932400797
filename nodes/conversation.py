"""Conversations: what the agent reads of one, what the experts get, who spoke last.

    messages          ──find_question──> history, question, what was done with tools after it
    history, question ──conversation_text──> the text by which the agent knows the question
    history           ──history_for_experts──> the conversation as its participants had it

"And twice that?" says nothing of its subject. So in a conversation the agent reads the question, the human
turn before it, shortened, and the question once more: a sentence encoder takes the mean over all words, and
more of the past would drown a new subject (`benchmarks/follow_ups.py` compares the ways). The first
question of a conversation is read as it is. Training builds the same text by the same function.

Hand-overs between agents (`transfer_to_...`, as langgraph-supervisor and langgraph-swarm write them) are
left out of what experts read: they are bookkeeping of the graph around, and nothing that was said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from der_graph.errors import QuestionError
from der_graph.nodes.providers.messages import has_content
from der_graph.nodes.quoting import neutralize
from der_graph.nodes.tools import tail_of

TURN_CHARACTERS = 200
"""Longest share of the turn before that the agent reads."""

DRAFT = "der_draft"
"""Marks, in `response_metadata`, an expert's message that is not the final answer."""

EXPERTS = "der_experts"
"""Names, in `response_metadata` of the final answer, the experts of its route in order."""


def find_question(
    messages: Sequence[AnyMessage],
) -> tuple[list[AnyMessage], HumanMessage, list[AnyMessage]]:
    """Split a conversation into what came before the question, the question, and its tail.

    Returns:
        The messages before, and system prompts that come later; the last human message; and of the others
        after it what `tail_of` keeps.

    Raises:
        QuestionError: If there is no human message, or it has no text.
    """
    for position in range(len(messages) - 1, -1, -1):
        message = messages[position]
        if isinstance(message, HumanMessage):
            if not message.text.strip() and not blocks_beside_text(message):
                raise QuestionError("the question is empty; the last human message needs some text")
            after = messages[position + 1 :]
            systems = [each for each in after if isinstance(each, SystemMessage)]
            others = [each for each in after if not isinstance(each, SystemMessage)]
            return [*messages[:position], *systems], message, tail_of(others)
    raise QuestionError(
        'there is no question: "messages" needs a human message, '
        'for example {"messages": [("user", "What is 2 + 3?")]}'
    )


def conversation_text(history: Sequence[BaseMessage], question: str) -> str:
    """The text by which an agent knows a question.

    Args:
        history: The conversation before the question.
        question: The question.

    Returns:
        The question; in a conversation the question, the human turn before it and the question again, a
        line each.
    """
    turns = (message for message in reversed(history) if isinstance(message, HumanMessage))
    before = next((short for turn in turns if (short := _shortened(turn.text))), None)
    return question if before is None else f"{question}\n{before}\n{question}"


def history_for_experts(history: Sequence[AnyMessage]) -> list[AnyMessage]:
    """The conversation before the question, as its participants had it.

    Drafts of earlier turns are left out (`output_mode="experts"` keeps them in `messages`), and so are turns
    without content, as chats leave them where an answer was stopped: providers refuse those. System prompts
    stand first, as most chat templates demand, each once: callers that send theirs with every turn of a
    thread leave one in the middle at every turn.
    """
    kept = [
        message
        for message in history
        if not is_draft(message) and (isinstance(message, ToolMessage) or has_content(message))
    ]
    if not any(isinstance(message, SystemMessage) for message in kept[1:]):
        return kept
    systems = [message for message in kept if isinstance(message, SystemMessage)]
    texts = list(dict.fromkeys(message.text for message in systems))
    others = [message for message in kept if not isinstance(message, SystemMessage)]
    first = systems[0] if len(texts) == 1 else SystemMessage("\n\n".join(texts), id=systems[0].id)
    return [first, *others]


def messages_of(turns: Sequence[tuple[str, str]]) -> list[AnyMessage]:
    """A conversation that is given as pairs of role (`system`, `user`, `assistant`) and text."""
    kinds = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
    return [kinds[role](text) for role, text in turns]


def last_experts(history: Sequence[BaseMessage]) -> list[str]:
    """The experts of the route that gave the last answer; none if that is not one of ours."""
    for message in reversed(history):
        if isinstance(message, AIMessage) and EXPERTS in message.response_metadata:
            return [str(name) for name in message.response_metadata[EXPERTS]]
    return []


def block_beside_text(message: BaseMessage, *also: str) -> str | None:
    """The type of the first content block that the text of a message leaves out; None if there is none.

    Args:
        message: The message.
        also: Types of blocks that may be left out.
    """
    blocks = message.content if isinstance(message.content, list) else []
    for block in blocks:
        kind = "text" if isinstance(block, str) else str(block.get("type", "?"))
        if kind not in ("text", *also):
            return kind
    return None


def blocks_beside_text(message: BaseMessage) -> list[dict[str, Any]]:
    """The content blocks of a message that its text leaves out."""
    blocks = message.content if isinstance(message.content, list) else []
    return [dict(each) for each in blocks if isinstance(each, dict) and each.get("type") != "text"]


def attachments_of(message: BaseMessage) -> list[dict[str, Any]]:
    """The content blocks beside the text of a question; all of them, where some text stands between others.

    "First:", picture, "Second:", picture says nothing any more with the texts put together.
    """
    others = blocks_beside_text(message)
    if len(others) < 2:
        return others
    blocks = [
        {"type": "text", "text": each} if isinstance(each, str) else dict(each)
        for each in message.content
    ]
    places = [i for i, each in enumerate(blocks) if each.get("type") != "text"]
    between = blocks[places[0] : places[-1]]
    said = any(_said(each).strip() for each in between if each.get("type") == "text")
    return blocks if said else others


def question_blocks(text: str, attachments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The content blocks of a question that has more than text.

    Args:
        text: All that the expert is to read, the question at its end.
        attachments: What `attachments_of` found in the question.

    Returns:
        The text, then the attachments; where those say all of the text, each part stays in its place.
        Blank texts are left out: providers refuse them.
    """
    others = [dict(each) for each in attachments if each.get("type") != "text"]
    blocks = [
        {**each, "text": neutralize(_said(each))} if each.get("type") == "text" else dict(each)
        for each in attachments
    ]
    said = "".join(_said(each) for each in blocks if each.get("type") == "text")
    if said != neutralize(said):  # a control token whose halves stand in two texts
        blocks, said = others, ""
    kept = [each for each in blocks if each.get("type") != "text" or _said(each).strip()]
    return kept if text.strip() == said.strip() else [{"type": "text", "text": text}, *kept]


def _said(block: Mapping[str, Any]) -> str:
    return str(block.get("text") or "")


def is_draft(message: Any) -> bool:
    """Is this an expert's message that was kept beside the final answer?"""
    return bool(getattr(message, "response_metadata", {}).get(DRAFT))


def _shortened(text: str) -> str:
    """The two ends of a text on one line: answers open with their subject and close with the result."""
    line = " ".join(text.split())
    if len(line) <= TURN_CHARACTERS:
        return line
    half = (TURN_CHARACTERS - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


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
