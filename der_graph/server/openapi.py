"""What `/openapi.json` says of each endpoint: what is read, what comes back, and the error object.

Fields that are null count as left out. What a JSON schema cannot say, such as that the last message is the
user's, is told by the error.
"""

from __future__ import annotations

from typing import Any

from der_graph.server.chat_requests import ROLES
from der_graph.server.parameters import MOST_STOPS, NUMBERS

_MODEL = "`der`, `der/PRICE` such as `der/0.5` for another price of cost, or the name of an expert"


def _or_null(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": [kind, "null"], **more}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _number(name: str) -> dict[str, Any]:
    kind, low, high = NUMBERS[name]
    return _or_null("integer" if kind is int else "number", minimum=low, maximum=high)


_NAMES = _or_null("array", items={"type": "string"})
_DER = _or_null(
    "object",
    description="Settings of the route",
    additionalProperties=False,
    properties={
        "max_cost": _or_null("number", minimum=0),
        "max_steps": _or_null("integer", minimum=1),
        "cost_weight": _or_null("number", minimum=0),
        "deadline": _or_null("number", exclusiveMinimum=0),
        "allowed_experts": _NAMES,
        "forbidden_experts": _NAMES,
        "ktp": _or_null("string"),
        "stickiness": _or_null("number", minimum=0, maximum=1),
        "stream_tokens": {"enum": ["final", "live", None]},
        "events": _or_null("boolean"),
    },
)
_FUNCTION = _object(
    ("name",), name={"type": "string", "minLength": 1}, parameters={"type": "object"}
)
_KIND = {"const": "function"}
_STOP = {"type": "string", "minLength": 1}
_MESSAGE = _object(
    ("role",),
    role={"enum": list(ROLES)},
    content={"type": ["string", "array", "null"], "description": "a text, or a list of parts"},
    tool_call_id=_or_null("string"),
    tool_calls=_or_null("array", items={"type": "object"}),
)
_SHARED: dict[str, Any] = {
    "model": {"type": "string", "description": _MODEL},
    "tool_choice": {"description": "none, auto, required, or an object that names a tool"},
    "parallel_tool_calls": _or_null("boolean"),
    "stream": _or_null("boolean", default=False),
    "der": _DER,
    **{name: _number(name) for name in ("temperature", "top_p", "top_logprobs")},
}
_CHAT = _object(
    ("model", "messages"),
    **_SHARED,
    messages={"type": "array", "minItems": 1, "items": _MESSAGE},
    tools=_or_null("array", items=_object(("type", "function"), type=_KIND, function=_FUNCTION)),
    **{name: _number(name) for name in NUMBERS if name not in _SHARED},
    n={"enum": [1, None]},
    stop={"anyOf": [_STOP, _or_null("array", maxItems=MOST_STOPS, items=_STOP)]},
    logprobs=_or_null("boolean"),
    reasoning_effort=_or_null("string"),
    response_format=_or_null(
        "object",
        required=["type"],
        properties={"type": {"enum": ["text", "json_object", "json_schema"]}},
    ),
    stream_options=_or_null(
        "object",
        additionalProperties=False,
        properties={"include_usage": _or_null("boolean"), "include_obfuscation": {}},
    ),
)
_RESPONSES = _object(
    ("model", "input"),
    **_SHARED,
    input={"type": ["string", "array"], "minItems": 1, "items": {"type": "object"}},
    instructions=_or_null("string"),
    tools=_or_null("array", items={**_FUNCTION, "required": ["type", "name"]} | {"type": "object"}),
    max_output_tokens=_number("max_completion_tokens"),
    text=_or_null(
        "object",
        additionalProperties=False,
        properties={"format": _or_null("object"), "verbosity": {}},
    ),
    reasoning=_or_null("object", properties={"effort": _or_null("string")}),
)
_FEEDBACK = _object(
    ("id", "score"), id={"type": "string"}, score={"type": "number", "minimum": 0, "maximum": 1}
)

_TEXT = {"type": "string"}
_ERROR = _object(
    ("error",),
    error=_object(
        ("message", "type", "param", "code"),
        message=_TEXT,
        type=_TEXT,
        param=_or_null("string"),
        code=_or_null("string"),
    ),
)
_STREAM = {"text/event-stream": {"schema": _TEXT}}


def _json(schema: dict[str, Any], description: str, **others: Any) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": schema}, **others},
    }


_FAILURES = {
    "4XX": _json(_ERROR, "The request is wrong, not allowed, or one too many"),
    "5XX": _json(_ERROR, "Nobody could answer, or the server is not ready"),
}


def _endpoint(
    answer: dict[str, Any], body: dict[str, Any] | None = None, *parameters: str
) -> dict[str, Any]:
    described: dict[str, Any] = {"responses": {"200": answer, **_FAILURES}}
    if body is not None:
        content = {"application/json": {"schema": body}}
        described["requestBody"] = {"required": True, "content": content}
    if parameters:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in parameters
        ]
    return described


_ID = {"id": _TEXT, "object": _TEXT}
_CARD = _object(("id", "object"), **_ID)
_STATE = _object(("status",), status=_TEXT)

DESCRIBED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": _endpoint(
        _json(_object(("id", "choices", "usage", "der"), **_ID), "The answer", **_STREAM), _CHAT
    ),
    "/v1/responses": _endpoint(
        _json(_object(("id", "output", "usage", "der"), **_ID), "The answer", **_STREAM), _RESPONSES
    ),
    "/v1/feedback": _endpoint(_json(_STATE, "Taken"), _FEEDBACK),
    "/v1/models": _endpoint(
        _json(_object(("data",), data={"type": "array", "items": _CARD}), "All models")
    ),
    "/v1/models/{name:path}": _endpoint(_json(_CARD, "One model"), None, "name"),
    "/openapi.json": _endpoint(_json({"type": "object"}, "This description")),
    "/healthz": _endpoint(_json(_STATE, "The process is there")),
    "/readyz": {
        "responses": {
            "200": _json(_STATE, "Somebody can answer"),
            "503": _json(_STATE, "Loading, or nobody can answer"),
        }
    },
    "/metrics": _endpoint({"description": "For Prometheus", "content": {"text/plain": {}}}),
}
"""By path, what is added to FastAPI's own description."""
