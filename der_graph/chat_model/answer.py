"""A finished route as the answer of one chat model: whole, or in pieces while the route goes on.

    state of the graph ──answer_of──> AIMessage: text, tool calls; route, cost and tokens as metadata
    AIMessage ──counted──> the same with the summed usage
    parts of its stream ──AnswerStream──> events for the tracers, chunks of the answer

Drafts never get into the chunks. The tokens of an expert do, as they come, where the graph knows that no
other can follow it (`der_graph.nodes.streaming`); any other answer is given in words once the route is over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk

from der_graph.errors import ExpertError
from der_graph.nodes.answer import finished, summed_usage
from der_graph.nodes.conversation import EXPERTS
from der_graph.nodes.streaming import Trimmed
from der_graph.state import Answer, RouteStep, answers_of

STREAM_MODES = ["messages", "custom", "values"]
"""What an `AnswerStream` reads of a graph whose request has `stream_tokens="final"`."""


def answer_of(state: Mapping[str, Any], *, model_name: str, cost_unit: str) -> AIMessage:
    """The answer of a finished route as one message, without the tokens used; see `counted`.

    Args:
        state: What the graph gave back.
        model_name: For tracers and for callbacks that count tokens by model.
        cost_unit: The pool's.

    Raises:
        ExpertError: If the route waits for a person.
    """
    final, route = finished(state)["messages"][-1], state["route"]
    answers = answers_of(route)
    return AIMessage(
        content=final.text,
        tool_calls=final.tool_calls,
        response_metadata={
            "model_name": model_name,
            "finish_reason": final.response_metadata.get("finish_reason", "stop"),
            EXPERTS: [answer["expert"] for answer in answers],
            "der_route": [_brief(step) for step in route],
            "der_usage": _by_expert(answers),
            "der_cost": sum(answer["cost"] for answer in answers),
            "der_cost_unit": cost_unit,
            **(
                {"logprobs": final.response_metadata["logprobs"]}
                if "logprobs" in final.response_metadata
                else {}
            ),
        },
    )


Message = TypeVar("Message", bound=BaseMessage)


def counted(message: Message) -> Message:
    """A copy of an answer with the tokens that all experts used, where any of them says.

    Callbacks and traces see the experts' runs below the model's, each with its tokens, and add up what they
    see. So the model's own run has none, and the caller gets the sum.
    """
    by_expert = message.response_metadata.get("der_usage")
    usage = summed_usage((by_expert or {}).values())
    return message if usage is None else message.model_copy(update={"usage_metadata": usage})


def _brief(step: RouteStep) -> dict[str, Any]:
    """A step in a line: who was chosen, why, how surely, and what came of it."""
    brief: dict[str, Any] = {
        "step": step["step"],
        "choice": step["choice"],
        "reason": step["reason"],
        "probability": step["probabilities"][step["choice"]],
    }
    if step["answer"] is not None:
        brief["cost"] = step["answer"]["cost"]
        brief["seconds"] = step["answer"]["seconds"]
        brief["error"] = step["answer"]["error"]
    return brief


def _by_expert(answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for answer in answers:
        sums = found.setdefault(
            answer["expert"], {"calls": 0, "input_tokens": 0, "output_tokens": 0, "cost": 0.0}
        )
        sums["calls"] += 1
        for name in ("input_tokens", "output_tokens", "cost"):
            sums[name] += answer[name]
        if "cached_tokens" in answer:
            sums["cached_tokens"] = sums.get("cached_tokens", 0) + answer["cached_tokens"]
        if "reasoning_tokens" in answer:
            sums["reasoning_tokens"] = sums.get("reasoning_tokens", 0) + answer["reasoning_tokens"]
    return found


class AnswerStream:
    """Turns what the graph streams into chunks of the answer."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self._shown = Trimmed()

    def read(self, mode: str, part: Any) -> tuple[list[dict[str, Any]], list[AIMessageChunk]]:
        """Read one part of the stream; gives events and chunks."""
        if mode == "values":
            self.state = part
        elif mode == "custom":
            return ([part] if str(part.get("type", "")).startswith("der.") else []), []
        elif isinstance(part[0], AIMessageChunk):
            text = self._shown.add(part[0].text)
            return [], [AIMessageChunk(content=text)] if text else []
        return [], []

    def close(self, answer: AIMessage) -> Iterator[AIMessageChunk]:
        """The chunks that are still missing of the whole answer; the last has the metadata.

        Raises:
            ExpertError: If the expert failed after its first words had been shown.
        """
        text, shown = answer.text, self._shown.text
        if not text.startswith(shown):
            raise ExpertError(
                "the last expert failed in mid-answer, when its first words had been streamed; "
                "invoke the model instead of streaming it to get the answer before that one"
            )
        for piece in re.findall(r"\s*\S+|\s+$", text[len(shown) :]):
            yield AIMessageChunk(content=piece)
        yield AIMessageChunk(
            content="",
            tool_call_chunks=[
                tool_call_chunk(
                    name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index
                )
                for index, call in enumerate(answer.tool_calls)
            ],
            response_metadata=answer.response_metadata,
            chunk_position="last",
        )
