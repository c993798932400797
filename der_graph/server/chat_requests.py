"""Reading a request of the chat completions protocol.

    bytes ──read_request──> ChatRequest(model, messages, context, stream ...)

What is not understood is either refused, where leaving it out would change what the caller gets (`n` above 1,
audio as output ...), or left out and named in the response's `der.ignored`.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)

from der_graph.errors import BudgetError
from der_graph.server.failures import RequestError
from der_graph.server.parameters import SETTINGS_READ, check_names, of_type, read_settings, wrong
from der_graph.state import DERContext

ENSEMBLE = "der"
"""Name of the model that is the whole ensemble; `der/0.5` is the same, at a price of cost of 0.5."""

KNOBS = tuple(each.name for each in fields(DERContext) if each.name != "model_settings")
"""What a request may set in its `der` object; the experts' settings have the protocol's own names."""

_READ = frozenset({"model", "messages", "stream", "stream_options", "n", "der"}) | SETTINGS_READ
_WITHOUT_EFFECT = frozenset(
    "user metadata safety_identifier store service_tier prompt_cache_key prompt_cache_retention".split()
)
"""About the caller and not the answer, so not worth a word."""

# Each with the values that ask for nothing special.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
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
ROLES = ("system", "developer", "user", "assistant", "tool")

_PARTS = ("image_url", "input_audio", "file")
"""What a user may send beside text; experts whose profile says so read it."""

_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
"""What clients of several providers send back of an answer beside its text."""


@dataclass(frozen=True)
class ChatRequest:
    """A request that was understood.

    Attributes:
        model: `der`, or the name of one expert.
        called: What the request calls it; `der/0.5` is `der`, and sets the price of cost.
        messages: The conversation; the last one is the user's.
        context: Settings of the route.
        stream: Send the answer in pieces?
        include_usage: End a stream with the tokens used?
        events: Send decisions, drafts and answers in the stream?
        ignored: Parameters that are not known here.
        echo: What responses of the other protocol repeat of the request.
    """

    model: str
    called: str
    messages: list[AnyMessage]
    context: DERContext = field(default_factory=DERContext)
    stream: bool = False
    include_usage: bool = False
    events: bool = True
    ignored: tuple[str, ...] = ()
    echo: Mapping[str, Any] = field(default_factory=dict)


def read_request(body: bytes) -> ChatRequest:
    """Read a request.

    Raises:
        RequestError: If it cannot be understood, or asks for what there is not; names the parameter.
    """
    return chat_request(read_object(body))


def model_and_price(called: str) -> tuple[str, float | None]:
    """What a request means by the name of a model: the model, and the price of cost that the name sets.

    Raises:
        RequestError: If something else than a price follows `der/`.
    """
    if not called.startswith(f"{ENSEMBLE}/"):
        return called, None
    given = called.removeprefix(f"{ENSEMBLE}/")
    price = float(given) if _PRICE.fullmatch(given) else math.inf
    if price > sys.float_info.max:
        raise RequestError(
            400,
            f"the model is {called[:80]!r}; after '{ENSEMBLE}/' stands the price of cost, a number >= 0 such "
            f"as '{ENSEMBLE}/0.5'",
            param="model",
            code="invalid_value",
        )
    return ENSEMBLE, price


_PRICE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; fields that are null count as left out.

    Raises:
        RequestError: If it is none.
    """
    try:
        given = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            400, f"the body is not JSON: {str(error)[:200]}", code="invalid_json"
        ) from None
    if not isinstance(given, dict):
        raise wrong("body", given, "a JSON object")
    if _HALF.search(body) and not _is_text(given):
        raise RequestError(
            400, "half of a surrogate pair is no text", param="body", code="invalid_value"
        )
    return {name: value for name, value in given.items() if value is not None}


def chat_request(given: Mapping[str, Any]) -> ChatRequest:
    """Read the fields of a chat completion; see `read_request`."""
    for name in ("model", "messages"):
        if name not in given:
            raise RequestError(400, f"'{name}' is missing", param=name, code="missing_parameter")
    called = _typed(given, "model", str, "a string")
    model, price = model_and_price(called)
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
    check_names(options, "stream_options", ("include_usage", "include_obfuscation"))
    if options and not stream:
        message = "'stream_options' is only allowed with stream=true"
        raise RequestError(400, message, param="stream_options", code="invalid_value")
    knobs = dict(_typed(given, "der", dict, "an object", {}))
    events = _typed(knobs, "events", bool, "true or false", True, "der.")
    knobs.pop("events", None)
    if price is not None and knobs.setdefault("cost_weight", price) != price:
        raise RequestError(
            400,
            f"the model {called[:80]!r} and 'der.cost_weight' name two prices of cost; give one of them",
            param="der.cost_weight",
            code="invalid_value",
        )
    known = _READ | _REFUSED.keys() | _WITHOUT_EFFECT
    settings = read_settings(given)
    return ChatRequest(
        model,
        called,
        _messages(given["messages"]),
        replace(_context(knobs), model_settings=settings or None),
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
            raise wrong(f"der.{name}", value, "an integer" if name == "max_steps" else "a number")
        if value is not None and not 0 <= value <= sys.float_info.max:
            raise wrong(f"der.{name}", value, "a number >= 0")
    if knobs.get("stream_tokens") == "all":
        raise wrong("der.stream_tokens", "all", "'final' or 'live'")
    try:
        return DERContext(**knobs)
    except BudgetError as error:
        raise RequestError(400, str(error)[:500], param="der", code="invalid_value") from None


def _messages(given: Any) -> list[AnyMessage]:
    if not isinstance(given, list):
        raise wrong("messages", given, "a list of messages")
    if not given:
        said = "'messages' is empty; it must have at least one message"
        raise RequestError(400, said, param="messages", code="invalid_value")
    messages: list[AnyMessage] = []
    for i, message in enumerate(given):
        where = f"messages[{i}]"
        if not isinstance(message, dict):
            raise wrong(where, message, "an object with role and content")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise wrong(f"{where}.role", role, "one of " + ", ".join(ROLES))
        if message.get("function_call") or message.get("audio"):
            message_ = "function_call and audio are not supported in messages; use tool_calls"
            raise RequestError(400, message_, param=where, code="unsupported_value")
        one = _message(message, role, where)
        one.name = _typed(message, "name", str, "a string", within=f"{where}.") or None
        messages.append(one)
    if not isinstance(messages[-1], (HumanMessage, ToolMessage)):
        raise RequestError(
            400,
            "the last message must be the user's, or a tool's",
            param=f"messages[{len(given) - 1}].role",
        )
    last = messages[-1]
    if isinstance(last, HumanMessage) and isinstance(last.content, str) and not last.text.strip():
        where = f"messages[{len(given) - 1}].content"
        raise RequestError(400, "the question is empty", param=where, code="invalid_question")
    return messages


def _message(message: Mapping[str, Any], role: str, where: str) -> AnyMessage:
    parts = _content(message.get("content"), f"{where}.content", role)
    text = "\n".join(each["text"] for each in parts if each["type"] == "text")
    if role == "tool":
        call = _typed(message, "tool_call_id", str, "a string", within=f"{where}.")
        if not call:
            raise wrong(f"{where}.tool_call_id", call, "the id of the call that this answers")
        return ToolMessage(text, tool_call_id=call)
    if role == "assistant" and message.get("tool_calls"):
        calls, invalid = _calls(message["tool_calls"], f"{where}.tool_calls")
        return AIMessage(text, tool_calls=calls, invalid_tool_calls=invalid)
    if role == "assistant" and not text.strip():
        text = _typed(message, "refusal", str, "a string", "", f"{where}.")
    if any(each["type"] != "text" for each in parts):
        return HumanMessage(list(parts))
    return _MESSAGES[role](text)


def _calls(given: Any, where: str) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """The calls of an earlier answer, and those with arguments that no tool can be called with.

    Models write such arguments now and then, and their callers send them back with an error as the result.
    """
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for i, call in enumerate(of_type(given, where, list, "a list")):
        place = f"{where}[{i}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise wrong(place, call, "an object with id and function")
        text = function.get("arguments") or "{}"
        of_type(text, f"{place}.function.arguments", str, "a JSON object, as text")
        try:
            args = json.loads(text)
        except (ValueError, RecursionError):
            args = None
        name, call_id = function["name"], of_type(call.get("id"), f"{place}.id", str, "a string")
        if isinstance(args, dict):
            calls.append(ToolCall(name=name, args=args, id=call_id, type="tool_call"))
        else:
            fault = InvalidToolCall(
                name=name, args=text, id=call_id, error="no JSON object", type="invalid_tool_call"
            )
            invalid.append(fault)
    return calls, invalid


def _content(content: Any, where: str, role: str) -> list[dict[str, Any]]:
    """The parts of a message, text or others."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if content is None and role in ("assistant", "tool"):
        return []
    if not isinstance(content, list):
        raise wrong(where, content, "a string, or a list of text parts")
    parts: list[dict[str, Any]] = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text" if kind == "text" else "refusal") if isinstance(part, dict) else None
        if kind in ("text", "refusal") and isinstance(text, str):
            parts.append({"type": "text", "text": text})
        elif kind in _THOUGHTS and role == "assistant":
            continue  # no part of the conversation
        elif kind in _PARTS and role == "user" and isinstance(part.get(kind), dict) and part[kind]:
            _check_address(part, f"{where}[{i}]")
            parts.append(dict(part))
        else:
            also = f", and of {', '.join(_PARTS)} from users" if role == "user" else ""
            message = f"{where}[{i}]: only parts of type 'text'{also} can be read"
            shown = f", not {str(kind)[:40]!r}" if kind not in (None, "text", *_PARTS) else ""
            raise RequestError(
                400, message + shown, param=f"{where}[{i}]", code="unsupported_content"
            )
    return parts


def _check_address(part: Mapping[str, Any], where: str) -> None:
    """Refuse pictures neither on the web nor in the request: a model's server has files of its own."""
    url = part["image_url"].get("url") if part["type"] == "image_url" else None
    if part["type"] == "image_url" and not (isinstance(url, str) and _ADDRESS.match(url)):
        raise wrong(f"{where}.image_url.url", url, "an address with http:, https: or data:")


_ADDRESS = re.compile("(https?|data):", re.IGNORECASE)


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
        raise wrong(within + name, value, words)
    return value
