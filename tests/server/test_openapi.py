"""Requests made out of the published description of the server: it keeps to it, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fakes import ScriptedAgent
from hypothesis import HealthCheck, Phase, given, settings
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from der_graph.nodes.expert import Expert
from der_graph.pool import pool_from
from der_graph.server import create_app, in_background

schemathesis = pytest.importorskip("schemathesis", reason="needs the extra test")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")

pytestmark = pytest.mark.filterwarnings("ignore:Overriding standard format")

EXAMPLES = {
    ("POST", "/v1/chat/completions"): 25,
    ("POST", "/v1/responses"): 25,
    ("POST", "/v1/feedback"): 10,
    ("GET", "/v1/models"): 1,
    ("GET", "/v1/models/{name}"): 10,
    ("GET", "/openapi.json"): 1,
    ("GET", "/healthz"): 1,
    ("GET", "/readyz"): 1,
    ("GET", "/metrics"): 1,
}
BODIES = [each for each in EXAMPLES if each[0] == "POST"]


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
    expert = Expert("a", RunnableLambda(lambda messages: AIMessage("42")), cost=1.0)
    with in_background(create_app(pool_from([expert]), ScriptedAgent("a"))) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def test_all_operations_are_tried(api: Any) -> None:
    described = [each.ok() for each in api.get_all_operations()]
    assert {(each.method.upper(), each.path) for each in described} == set(EXAMPLES)


@pytest.mark.parametrize(
    ("operation", "mode"),
    [*((each, "positive") for each in EXAMPLES), *((each, "negative") for each in BODIES)],
)
def test_the_server_keeps_to_its_description(
    api: Any, operation: tuple[str, str], mode: str
) -> None:
    """What breaks the description is refused, and every answer is of the form that it names."""
    method, path = operation
    # Rules that no schema can say: the last message is the user's, logprobs before top_logprobs ...
    loose = [checks.positive_data_acceptance]

    @settings(
        max_examples=EXAMPLES[operation], derandomize=True, deadline=None, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(api[path][method].as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def kept(case: Any) -> None:
        if mode == "positive" and method == "POST" and "model" in case.body:
            case.body["model"] = "der"  # so that some get as far as an answer
            if isinstance(said := case.body.get("messages"), list):
                said.append({"role": "user", "content": "2 + 3?"})
        case.call_and_validate(timeout=60, excluded_checks=loose)

    kept()
