"""Where an agent's loop stands, read from its messages.

    human: Book a room.         planning: nothing was done yet
    ai:    rooms()
    tool:  4 and 7              executing: what was called has worked
    ai:    book(room=9)
    tool:  no room 9 (error)    recovering: what was called has failed

Knows nothing of models and agents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from der_graph.errors import QuestionError
from der_graph.nodes.conversation import (
    EXPERTS,
    conversation_text,
    find_question,
    history_for_experts,
    without_handovers,
)
from der_graph.state import LoopState

ToolFailed = Callable[[ToolMessage], bool]
"""Says whether a tool's result is a failure."""


class FailedRound(NamedTuple):
    """A model's tool calls of which at least one failed."""

    expert: str | None
    """Who made the calls, where that is known."""
    error: str
    """The first failure, in one line."""


def says_error(result: ToolMessage) -> bool:
    """The usual way of telling: the result's `status`."""
    return result.status == "error"


def read_loop(messages: Sequence[AnyMessage], calls: int, failed: ToolFailed) -> LoopState:
    """Read where the loop stands.

    Args:
        messages: The conversation as the next model call will see it.
        calls: Model calls of the run so far.
        failed: Says whether a tool's result is a failure.
    """
    last = next((m for m in reversed(messages) if isinstance(m, AIMessage)), None)
    acted = calls > 0 and last is not None
    errors = len(failed_rounds(messages, failed))
    return LoopState(
        phase="recovering" if errors else "executing" if calls else "planning",
        calls=calls,
        last_expert=expert_of(last) if last is not None else None,
        last_tools=tuple(c["name"] for c in last.tool_calls) if acted and last else (),
        errors=errors,
    )


def failed_rounds(messages: Sequence[AnyMessage], failed: ToolFailed) -> list[FailedRound]:
    """The rounds of tools at the end of a conversation in which a tool failed, the last one first."""
    rounds = []
    results: list[ToolMessage] = []
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            results.append(message)
            continue
        wrong = [result for result in reversed(results) if failed(result)]
        if not isinstance(message, AIMessage) or not wrong:
            break
        words = " ".join(wrong[0].text.split())[:200]
        rounds.append(FailedRound(expert_of(message), f"tool '{wrong[0].name}' failed: {words}"))
        results = []
    return rounds


def expert_of(message: AnyMessage) -> str | None:
    """Who gave a message: the last one of its names; None if it is not one of ours."""
    names = message.response_metadata.get(EXPERTS)
    return str(names[-1]) if names else None


def text_for_agent(messages: Sequence[AnyMessage]) -> str:
    """The text by which a routing agent knows what a run is about; empty if no human said anything."""
    try:
        before, question, _ = find_question(without_handovers(messages))
    except QuestionError:  # no human message, or one that is more than text
        humans = [m.text.strip() for m in messages if isinstance(m, HumanMessage)]
        return humans[-1] if humans else ""
    return conversation_text(history_for_experts(before), question.text.strip())
