"""Reading what a request asks of the models: sampling, tools, the form of the answer.

    {"temperature": 0.2, "tools": [...], "response_format": {...}} ──read_settings──> model_settings

The result goes to the experts as it is (`der_graph.nodes.model_settings`). Knows nothing of messages and
HTTP.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from der_graph.errors import cut, did_you_mean
from der_graph.server.failures import RequestError

NUMBERS: dict[str, tuple[type, float, float]] = {
    "temperature": (float, 0, 2),
    "top_p": (float, 0, 1),
    "presence_penalty": (float, -2, 2),
    "frequency_penalty": (float, -2, 2),
    "max_tokens": (int, 1, 2**31),
    "max_completion_tokens": (int, 1, 2**31),
    "seed": (int, -(2**63), 2**63),
    "top_logprobs": (int, 0, 20),
}
"""Numbers of the protocol, each with its type, its smallest and its largest value."""
_FLAGS = ("logprobs", "parallel_tool_calls")
MOST_STOPS = 16
"""Most texts at which an answer ends."""

SETTINGS_READ = frozenset(
    {*NUMBERS, *_FLAGS, "stop", "reasoning_effort", "tools", "tool_choice", "response_format"}
)
"""Parameters of the protocol that are read here."""


def read_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings of a request; those that ask for nothing special are left out.

    Raises:
        RequestError: If one has a value that it cannot have; names it.
    """
    settings: dict[str, Any] = {}
    for name, (kind, low, high) in NUMBERS.items():
        if name in given:
            settings[name] = _number(name, given[name], kind, low, high)
    for name in _FLAGS:
        if name in given:
            settings[name] = of_type(given[name], name, bool, "true or false")
    if "max_completion_tokens" in settings:
        settings["max_tokens"] = settings.pop("max_completion_tokens")
    if settings.get("logprobs") is False:
        del settings["logprobs"]
    if not settings.get("logprobs") and not settings.get("top_logprobs"):
        settings.pop("top_logprobs", None)
    if settings.get("top_logprobs") is not None and not settings.get("logprobs"):
        raise wrong(
            "top_logprobs", settings["top_logprobs"], "left out, or sent with logprobs=true"
        )
    if "stop" in given and (stop := _stop(given["stop"])):
        settings["stop"] = stop
    if "reasoning_effort" in given:
        settings["reasoning_effort"] = of_type(
            given["reasoning_effort"], "reasoning_effort", str, "a string"
        )
    tools = _tools(given.get("tools") or [])
    if tools:
        settings["tools"] = tools
        choice = _tool_choice(given.get("tool_choice"), tools)
        if choice is not None:
            settings["tool_choice"] = choice
    else:
        settings.pop("parallel_tool_calls", None)
        if given.get("tool_choice") not in (None, "none", "auto"):
            raise wrong("tool_choice", given["tool_choice"], "left out where there are no tools")
    form = _response_format(given.get("response_format"))
    if form is not None:
        settings["response_format"] = form
    return settings


def check_names(given: Mapping[str, Any], name: str, allowed: Sequence[str]) -> None:
    """Check that an object has no other fields.

    Raises:
        RequestError: If it has; names the nearest that is allowed.
    """
    for each in given:
        if each not in allowed:
            raise RequestError(
                400,
                f"'{name}' has no field {str(each)[:80]!r}; {did_you_mean(each, allowed)}"
                f"allowed: {', '.join(allowed)}",
                param=f"{name}.{str(each)[:80]}",
                code="unknown_parameter",
            )


def of_type(value: Any, name: str, kind: type, words: str) -> Any:
    """A value, if it is of a type.

    Raises:
        RequestError: If it is not.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise wrong(name, value, words)
    return value


def wrong(where: str, value: Any, allowed: str) -> RequestError:
    """The error about a value; of texts it says the kind alone, as errors are logged and contents are not."""
    kind = type(value).__name__
    if not isinstance(value, (str, list, dict)):
        huge = isinstance(value, int) and abs(value) > sys.float_info.max
        shown = "a very large number" if huge else json.dumps(value)
        kind = cut(shown, 40)
    message = f"'{where}' is {kind}; it must be {allowed}"
    return RequestError(400, message, param=where, code="invalid_value")


def _number(name: str, value: Any, kind: type, low: float, high: float) -> Any:
    words = "an integer" if kind is int else "a number"
    fits = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not fits or not low <= value <= high:
        limit = f"of at least {low:g}" if high > 2**30 else f"from {low:g} to {high:g}"
        raise wrong(name, value, words if name == "seed" else f"{words} {limit}")
    return value


def _stop(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > MOST_STOPS:
        raise wrong("stop", value, f"a string, or a list of at most {MOST_STOPS} strings")
    if not all(isinstance(each, str) and each for each in texts):
        raise wrong("stop", value, "a list of strings that are not empty")
    return texts


def _tools(value: Any) -> list[dict[str, Any]]:
    tools = []
    for i, tool in enumerate(of_type(value, "tools", list, "a list")):
        where = f"tools[{i}]"
        of_type(tool, where, dict, "an object")
        if tool.get("type") != "function":
            raise RequestError(
                400,
                f"'{where}.type' must be 'function': tools of other types are not supported here",
                param=f"{where}.type",
                code="unsupported_value",
            )
        function = of_type(tool.get("function"), f"{where}.function", dict, "an object with a name")
        name = of_type(function.get("name"), f"{where}.function.name", str, "a string")
        if not name:
            raise wrong(f"{where}.function.name", name, "a string that is not empty")
        # Fields that are null count as left out, as they do around it.
        given = {key: each for key, each in function.items() if each is not None}
        of_type(given.get("parameters", {}), f"{where}.function.parameters", dict, "an object")
        tools.append({**tool, "function": given})
    return tools


def _tool_choice(value: Any, tools: Sequence[Mapping[str, Any]]) -> str | None:
    """In LangChain's words, which all its models know: a tool's name, `any`, `none` or `auto`."""
    if value is None or value in ("none", "auto"):
        return None if value is None else str(value)
    if value == "required":
        return "any"
    names = [tool["function"]["name"] for tool in tools]
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in names:
        allowed = "'none', 'auto', 'required', or an object that names one of the tools"
        raise wrong("tool_choice", value, allowed)
    return str(name)


def _response_format(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    kind = of_type(value, "response_format", dict, "an object with a type").get("type")
    if kind not in ("text", "json_object", "json_schema"):
        allowed = "'text', 'json_object' or 'json_schema'"
        raise wrong("response_format.type", kind, allowed)
    if kind == "json_schema":
        where = "response_format.json_schema"
        wrapped = of_type(value.get("json_schema"), where, dict, "an object with name and schema")
        of_type(wrapped.get("name"), f"{where}.name", str, "a string")
        of_type(wrapped.get("schema"), f"{where}.schema", dict, "a JSON schema")
    return None if kind == "text" else dict(value)
