"""Reading a request of the chat completions protocol.

    bytes ──read_request──> ChatRequest(model, messages, context, stream ...)

What is not understood is either refused, where leaving it out would change what the caller gets (`tools`,
`n` above 1, images ...), or left out and named in the response's `der.ignored` (`temperature` ...: the pool
says how each expert generates).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage

from der_graph.errors import BudgetError
from der_graph.server.failures import RequestError
from der_graph.state import DERContext

KNOBS = tuple(each.name for each in fields(DERContext))
"""What a request may set in its `der` object; how tokens are streamed is the protocol's."""

_READ = frozenset({"model", "messages", "stream", "stream_options", "n", "der"})
_WITHOUT_EFFECT = frozenset({"user", "metadata", "safety_identifier", "store", "service_tier"})
"""About the caller and not the answer, so not worth a word."""

# Each with the values that ask for nothing special.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}

_MESSAGES: dict[str, type[SystemMessage] | type[HumanMessage] | type[AIMessage]] = {
    "system": SystemMessage,
    "developer": SystemMessage,
    "user": HumanMessage,
    "assistant": AIMessage,
}


@dataclass(frozen=True)
class ChatRequest:
    """A request that was understood.

    Attributes:
        model: `der`, or the name of one expert.
        messages: The conversation; the last one is the user's.
        context: Settings of the route.
        stream: Send the answer in pieces?
        include_usage: End a stream with the tokens used?
        events: Send decisions, drafts and answers in the stream?
        ignored: Parameters without effect.
    """

    model: str
    messages: list[AnyMessage]
    context: DERContext = field(default_factory=DERContext)
    stream: bool = False
    include_usage: bool = False
    events: bool = True
    ignored: tuple[str, ...] = ()


def read_request(body: bytes) -> ChatRequest:
    """Read a request.

    Raises:
        RequestError: If it cannot be understood, or asks for what there is not; names the parameter.
    """
    try:
        given = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            400, f"the body is not JSON: {str(error)[:200]}", code="invalid_json"
        ) from None
    if not isinstance(given, dict):
        raise _wrong("body", given, "a JSON object")
    if _HALF.search(body) and not _is_text(given):
        raise RequestError(
            400, "half of a surrogate pair is no text", param="body", code="invalid_value"
        )
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("model", "messages"):
        if name not in given:
            raise RequestError(400, f"'{name}' is missing", param=name, code="missing_parameter")
    model = _typed(given, "model", str, "a string")
    if _typed(given, "n", int, "an integer", 1) != 1:
        raise RequestError(
            400, "n must be 1: a route gives one answer", param="n", code="unsupported_value"
        )
    for name, harmless in _REFUSED.items():
        if name in given and given[name] not in harmless:
            message = f"'{name}' is not supported here: leave it out"
            raise RequestError(400, message, param=name, code="unsupported_parameter")
    stream = _typed(given, "stream", bool, "true or false", False)
    options = _typed(given, "stream_options", dict, "an object", {})
    if options and not stream:
        message = "'stream_options' is only allowed with stream=true"
        raise RequestError(400, message, param="stream_options", code="invalid_value")
    knobs = dict(_typed(given, "der", dict, "an object", {}))
    events = _typed(knobs, "events", bool, "true or false", True, "der.")
    knobs.pop("events", None)
    known = _READ | _REFUSED.keys() | _WITHOUT_EFFECT
    return ChatRequest(
        model,
        _messages(given["messages"]),
        _context(knobs),
        stream,
        _typed(options, "include_usage", bool, "true or false", False, "stream_options."),
        events,
        tuple(sorted(str(name)[:80] for name in given.keys() - known)),
    )


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def _is_text(given: Any) -> bool:
    """Can all names and texts in it be written?"""
    try:
        json.dumps(given, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _context(knobs: Mapping[str, Any]) -> DERContext:
    for name in knobs:
        if name not in KNOBS:
            allowed = ", ".join([*KNOBS, "events"])
            raise RequestError(
                400,
                f"'der' has no field {name[:80]!r}; allowed: {allowed}",
                param=f"der.{name[:80]}",
            )
    for name in ("max_cost", "max_steps", "cost_weight"):
        value = knobs.get(name)
        number = (int,) if name == "max_steps" else (int, float)
        if value is not None and (isinstance(value, bool) or not isinstance(value, number)):
            raise _wrong(f"der.{name}", value, "an integer" if name == "max_steps" else "a number")
        if value is not None and not 0 <= value <= sys.float_info.max:
            raise _wrong(f"der.{name}", value, "a number >= 0")
    if knobs.get("stream_tokens") == "all":
        raise _wrong("der.stream_tokens", "all", "'final' or 'live'")
    try:
        return DERContext(**knobs)
    except BudgetError as error:
        raise RequestError(400, str(error)[:500], param="der", code="invalid_value") from None


def _messages(given: Any) -> list[AnyMessage]:
    if not isinstance(given, list) or not given:
        raise _wrong("messages", given, "a list with at least one message")
    messages: list[AnyMessage] = []
    for i, message in enumerate(given):
        where = f"messages[{i}]"
        if not isinstance(message, dict):
            raise _wrong(where, message, "an object with role and content")
        role = message.get("role")
        if not isinstance(role, str) or role not in _MESSAGES:
            raise _wrong(f"{where}.role", role, "one of " + ", ".join(_MESSAGES))
        if message.get("tool_calls") or message.get("function_call") or message.get("audio"):
            message_ = "calls of tools and audio are not supported in messages"
            raise RequestError(400, message_, param=where, code="unsupported_value")
        text = _text(message.get("content"), f"{where}.content", role)
        if not text.isprintable() and any("\ud800" <= char <= "\udfff" for char in text):
            raise RequestError(
                400,
                "half of a surrogate pair is no text",
                param=f"{where}.content",
                code="invalid_value",
            )
        messages.append(_MESSAGES[role](text))
    if not isinstance(messages[-1], HumanMessage):
        raise RequestError(
            400, "the last message must be the user's", param=f"messages[{len(given) - 1}].role"
        )
    if not messages[-1].text.strip():
        where = f"messages[{len(given) - 1}].content"
        raise RequestError(400, "the question is empty", param=where, code="invalid_question")
    return messages


def _text(content: Any, where: str, role: str) -> str:
    if isinstance(content, str):
        return content
    if content is None and role == "assistant":
        return ""
    if not isinstance(content, list):
        raise _wrong(where, content, "a string, or a list of text parts")
    parts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text" if kind == "text" else "refusal") if isinstance(part, dict) else None
        if kind not in ("text", "refusal") or not isinstance(text, str):
            message = f"{where}[{i}]: only parts of type 'text' can be read"
            shown = f", not {str(kind)[:40]!r}" if kind not in (None, "text") else ""
            raise RequestError(
                400, message + shown, param=f"{where}[{i}]", code="unsupported_content"
            )
        parts.append(text)
    return "\n".join(parts)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _typed(
    given: Mapping[str, Any],
    name: str,
    kind: type,
    words: str,
    default: Any = None,
    within: str = "",
) -> Any:
    value = given.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(within + name, value, words)
    return value


def _is_huge(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > sys.float_info.max


def _wrong(where: str, value: Any, allowed: str) -> RequestError:
    # The kind of what was given, not the text: errors are logged, contents are not.
    kind = type(value).__name__
    if not isinstance(value, (str, list, dict)):
        shown = "a very large number" if _is_huge(value) else json.dumps(value)
        kind = shown if len(shown) <= 40 else f"{shown[:37]}..."
    message = f"'{where}' is {kind}; it must be {allowed}"
    return RequestError(400, message, param=where, code="invalid_value")
