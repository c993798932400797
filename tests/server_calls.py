"""A server over scripted experts, and calls of it as its clients make them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakes import ScriptedAgent, scripted_expert
from langchain_core.messages import AIMessage

from der_graph.nodes.expert import Expert
from der_graph.pool import pool_from
from der_graph.server.server import create_app, in_background

openai = pytest.importorskip("openai", reason="needs the extra test")
for _name in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(_name, reason="needs the extra serve")

HELLO: Any = [{"role": "user", "content": "hello"}]
KEY = "a-long-enough-key"


@contextmanager
def serving(experts: list[Expert], *script: str, **settings: Any) -> Iterator[str]:
    pool = pool_from(experts, max_steps=settings.pop("max_steps", 3))
    with in_background(create_app(pool, ScriptedAgent(*script), **settings)) as address:
        yield address


@contextmanager
def client(address: str, key: str = "none") -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as each:
        yield each


def two_experts() -> list[Expert]:
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    writer, _ = scripted_expert("writer", AIMessage("a draft", usage_metadata=usage))
    cut = AIMessage("the end", usage_metadata=usage, response_metadata={"finish_reason": "stop"})
    closer, _ = scripted_expert("closer", cut, cost=0.5)
    return [writer, closer]


def raw(address: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    try:
        content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        text = response.read().decode()
        return response.status, json.loads(text) if text.startswith("{") else text
    finally:
        connection.close()


def metric(address: str, line: str) -> float:
    page = raw(address, "GET", "/metrics")[1]
    (value,) = [each.split()[-1] for each in page.splitlines() if each.startswith(line + " ")]
    return float(value)
