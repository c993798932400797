"""The bodies of the endpoints for `/openapi.json`: the fields that are read, for code generators."""

from __future__ import annotations

from typing import Any

_SAMPLING: dict[str, Any] = {
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1},
    "tools": {"type": "array", "items": {"type": "object"}},
    "tool_choice": {"description": "none, auto, required, or an object that names a tool"},
    "parallel_tool_calls": {"type": "boolean"},
    "stream": {"type": "boolean", "default": False},
    "der": {
        "type": "object",
        "description": "Settings of the route: max_cost, max_steps, cost_weight, deadline ...",
    },
}


_MODEL = "`der`, `der/PRICE` such as `der/0.5` for another price of cost, or the name of an expert"


def _body(required: list[str], **properties: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": required,
        "properties": {
            "model": {"type": "string", "description": _MODEL},
            **properties,
            **_SAMPLING,
        },
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": _body(
        ["model", "messages"],
        messages={"type": "array", "minItems": 1, "items": {"type": "object"}},
        max_tokens={"type": "integer", "minimum": 1},
        max_completion_tokens={"type": "integer", "minimum": 1},
        stop={"description": "a string, or a list of strings"},
        seed={"type": "integer"},
        logprobs={"type": "boolean"},
        top_logprobs={"type": "integer", "minimum": 0, "maximum": 20},
        response_format={"type": "object"},
        stream_options={
            "type": "object",
            "properties": {"include_usage": {"type": "boolean"}},
        },
    ),
    "/v1/responses": _body(
        ["model", "input"],
        input={"description": "a string, or a list of items"},
        instructions={"type": "string"},
        max_output_tokens={"type": "integer", "minimum": 1},
        text={"type": "object", "properties": {"format": {"type": "object"}}},
    ),
}
"""By path, what is added to FastAPI's own description."""
