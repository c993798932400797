"""DERMiddleware with models elsewhere, LangChain's own middleware, and deepagents."""

from __future__ import annotations

from typing import Any

import pytest
from agent_loop import ByCall, agent_of, ask, call, choices, double
from fakes import ScriptedAgent
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.messages import HumanMessage
from provider_stub import USAGE, Reply, piece, provider, remote_model
from tool_fakes import ToolModel, tool_expert

from der_graph.middleware import DERMiddleware
from der_graph.nodes.langchain import as_expert

BROKEN: Any = {"content": "It is", "breaks": True}


CUT_CALL: Any = {
    "chunks": [
        piece(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "c",
                        "function": {"name": "double", "arguments": '{"number": 2'},
                    }
                ]
            }
        ),
        piece({}, "length"),
    ]
}


def streamed(first: Reply, *around: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last state of a run that is streamed, with two remote experts; and what they were sent."""

    def reply(body: dict[str, Any]) -> Reply:
        return first if body["model"] == "small" else {"content": "It is 42."}

    with provider(reply) as stub:
        experts = [
            as_expert(remote_model(stub.url, name), name=name, cost=cost)
            for name, cost in (("small", 1.0), ("large", 7.0))
        ]
        der = DERMiddleware(experts, agent=ScriptedAgent("small", "large"))
        agent: Any = create_agent(der.model, [double], middleware=[der, *around])
        given = {"messages": [("user", "What is twice 21?")]}
        modes = ["messages", "values"]
        parts = list(agent.stream(given, {"recursion_limit": 20}, stream_mode=modes))
        return [part for mode, part in parts if mode == "values"][-1], stub.requests


@pytest.mark.parametrize("first", [BROKEN, CUT_CALL], ids=["text", "call"])
def test_what_broke_off_in_a_stream_is_no_message(first: Reply) -> None:
    result, _ = streamed(first)
    assert choices(result) == ["small", "large"]
    assert result["messages"][-1].text == "It is 42."


def test_thoughts_are_put_aside_and_tokens_counted_in_streams() -> None:
    result, sent = streamed({"content": "<think>21 + 21</think>It is 42."})
    message = result["messages"][-1]
    assert message.text == "It is 42."
    assert message.additional_kwargs["reasoning_content"] == "21 + 21"
    assert sent[0]["stream_options"] == {"include_usage": True}
    assert message.usage_metadata["output_tokens"] == USAGE["completion_tokens"]


def test_other_middleware_sees_a_model_of_its_providers_class() -> None:
    seen = []

    class Looks(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            seen.append((isinstance(request.model, type(remote_model("http://x"))), request.model))
            return handler(request)

    streamed({"content": "It is 42."}, Looks())
    ((is_one, model),) = seen
    assert is_one
    assert model.model_name == "small"


def test_a_fallback_around_it_comes_after_the_pool() -> None:
    experts = [tool_expert("a", ValueError("no")), tool_expert("b", ValueError("no"))]
    spare = ToolModel(answers=["spare"])
    agent = agent_of(experts, ByCall("a"), ModelFallbackMiddleware(spare))
    assert ask(agent)["messages"][-1].text == "spare"
    whole = ToolModel(answers=["unused"])
    agent = agent_of([tool_expert("a", "42")], ByCall("a"), ModelFallbackMiddleware(whole))
    assert ask(agent)["messages"][-1].text == "42"
    assert whole.prompts == []


def test_a_retry_around_it_asks_the_pool_again() -> None:
    experts = [tool_expert("a", ValueError("no"), "42")]
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0)
    assert ask(agent_of(experts, ByCall("a"), retry))["messages"][-1].text == "42"


def test_a_retry_inside_it_is_part_of_one_answer() -> None:
    der = DERMiddleware([tool_expert("a", ValueError("no"), "42")], agent=ByCall("a"))
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0)
    result = ask(create_agent(der.model, [double], middleware=[der, retry]))
    assert choices(result) == ["a"]


def test_a_limit_of_model_calls_ends_the_run() -> None:
    limit = ModelCallLimitMiddleware(run_limit=2, exit_behavior="end")
    result = ask(agent_of([tool_expert("a", call(21))], ByCall("a"), limit))
    assert len(result["der_route"]) == 2


def test_the_question_outlives_its_summary() -> None:
    summary = SummarizationMiddleware(
        ToolModel(answers=["they talked"]), trigger=("messages", 3), keep=("messages", 2)
    )
    chooser = ByCall("a")
    result = ask(agent_of([tool_expert("a", call(21), call(4), "8")], chooser, summary))
    assert result["messages"][-1].text == "8"
    assert any("they talked" in m.text for m in result["messages"] if isinstance(m, HumanMessage))
    assert {s.question for s in chooser.seen} == {"What is twice 21?"}
    assert chooser.seen[-1].loop is not None
    assert chooser.seen[-1].loop.phase == "executing"


def test_agents_inside_deepagents() -> None:
    deepagents = pytest.importorskip("deepagents", reason="pip install deepagents")
    der = DERMiddleware([tool_expert("a", call(21), "42")], agent=ByCall("a"))
    agent = deepagents.create_deep_agent(model=der.model, tools=[double], middleware=[der])
    assert choices(ask(agent)) == ["a", "a"]
