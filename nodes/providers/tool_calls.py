"""Tool calls as their readers can take them: whole, with an id each, and with arguments that are JSON.

    pieces of a stream ──CallPieces──> whole calls, at the stream's end

LangChain reads arguments that broke off as far as they go, so that `{"path": "/tmp/a` becomes a call of its
own. Here it is none. Knows nothing of models.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, ToolCallChunk


def with_ids(calls: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Calls with an id each, by which results name their call; some servers send none, or one twice."""
    found: list[dict[str, Any]] = []
    for call in calls:
        taken = {each["id"] for each in found}
        fresh = call.get("id") and call["id"] not in taken
        found.append({**call, "id": call["id"] if fresh else f"call_{uuid.uuid4().hex}"})
    return found


def identified(message: AIMessage) -> dict[str, Any]:
    """What to change in a whole message so that its calls have ids; nothing where they have."""
    calls = with_ids(message.tool_calls)
    return {} if calls == message.tool_calls else {"tool_calls": calls}


class CallPieces:
    """Puts the tool calls of a stream together."""

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []

    def add(self, pieces: Sequence[ToolCallChunk]) -> None:
        """Take the pieces of one chunk; pieces of a call have its index, where a server numbers its calls."""
        for piece in pieces:
            index = piece["index"]
            same = [each for each in self._calls if index is None or each["index"] == index]
            if same and not _begins(piece, same[-1]):
                _join(same[-1], piece)
            else:
                self._calls.append({**piece})

    def close(self) -> list[ToolCallChunk]:
        """The calls; arguments that are no JSON object in a form that nobody reads as such."""
        calls, self._calls = with_ids(self._calls), []
        taken: set[Any] = set()
        for call in calls:
            if call["index"] in taken:
                call["index"] = None  # readers put together again what has one index
            taken.add(call["index"])
        return [
            ToolCallChunk(
                name=call["name"],
                args=_written(call["args"]),
                id=call["id"],
                index=call["index"],
                type="tool_call_chunk",
            )
            for call in calls
        ]


def _begins(piece: ToolCallChunk, before: Mapping[str, Any]) -> bool:
    """Does a piece begin a call of its own? Some servers give all calls one index, or none."""
    if not piece["name"]:
        return False
    if piece["id"] and before["id"]:
        return bool(piece["id"] != before["id"])
    return bool(piece["args"]) and bool(before["args"]) and _is_object(before["args"])


def _join(call: dict[str, Any], piece: ToolCallChunk) -> None:
    call["args"] = (call["args"] or "") + (piece["args"] or "")
    call["id"] = call["id"] or piece["id"]
    # Some servers name the tool in every piece.
    if piece["name"] and piece["name"] != call["name"]:
        call["name"] = (call["name"] or "") + piece["name"]


def _written(args: Any) -> str:
    """Arguments as they are sent on: what is no JSON object in a form that nobody reads as such."""
    if args is not None and args.strip() == "null":
        return ""  # a call without arguments
    return args if _is_object(args) else json.dumps(args)


def _is_object(args: Any) -> bool:
    if not args:
        return True  # a call without arguments
    try:
        return isinstance(json.loads(args, strict=False), dict)
    except ValueError:
        return False
