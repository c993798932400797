"""Answers of the server as its callers see them: OpenAI's client, LangChain's, and by plain HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedAgent, chat_expert, scripted_expert
from langchain_core.messages import AIMessage
from server_calls import HELLO, KEY, client, metric, raw, serving, two_experts

from der_graph.errors import PoolError, ServerError
from der_graph.nodes.expert import Expert
from der_graph.pool import pool_from
from der_graph.server import create_app
from der_graph.server.server import in_background

openai = pytest.importorskip("openai", reason="needs the extra test")
ChatOpenAI = pytest.importorskip("langchain_openai", reason="needs the extra test").ChatOpenAI


def test_a_completion_carries_answer_route_cost_and_usage() -> None:
    with serving(two_experts(), "writer", "closer") as address, client(address) as openai_client:
        done = openai_client.chat.completions.create(model="der", messages=HELLO, temperature=0)
        named = openai_client.models.retrieve("der")
    assert done.id.startswith("chatcmpl-")
    assert done._request_id == done.id
    assert (done.object, done.model) == ("chat.completion", "der")
    assert done.created > 1_700_000_000
    assert done.system_fingerprint is not None
    assert done.system_fingerprint.startswith("fp_")
    (choice,) = done.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "the end")
    assert choice.finish_reason == "stop"
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (10, 4)
    der: Any = (done.model_extra or {})["der"]
    assert der["experts"] == ["writer", "closer"]
    assert [step["choice"] for step in der["route"]] == ["writer", "closer", "END"]
    assert der["route"][0]["answer"]["text"] == "a draft"
    assert (der["cost"], der["cost_unit"]) == (1.5, "parameters_b")
    assert der["ignored"] == ["temperature"]
    assert (named.model_extra or {})["der"]["experts"] == ["writer", "closer"]


def test_the_name_of_the_model_sets_the_price_of_cost() -> None:
    agent = ScriptedAgent("writer", "closer")
    app = create_app(pool_from(two_experts(), max_steps=3), agent)
    with in_background(app) as address, client(address) as openai_client:
        done = openai_client.chat.completions.create(model="der/0.5", messages=HELLO)
        answered = openai_client.responses.create(model="der/2", input="hello")
        openai_client.chat.completions.create(model="der", messages=HELLO)
        found = openai_client.models.retrieve("der/0.5")
        status, body = raw(address, "GET", "/v1/models/der/cheap")
        with pytest.raises(openai.BadRequestError, match=r"'der/cheap'; after 'der/' stands"):
            openai_client.chat.completions.create(model="der/cheap", messages=HELLO)
        counted = metric(address, 'der_requests_total{model="der",status="200"}')
    assert (done.model, answered.model, found.id) == ("der/0.5", "der/2", "der/0.5")
    assert done.choices[0].message.content == "the end"
    first = [each.cost_weight for each in agent.seen if not each.answers]
    assert first == [0.5, 2.0, None]
    assert (status, body["error"]["param"]) == (400, "model")
    assert counted == 3  # one label, however many prices callers think of


@pytest.mark.parametrize("name", ["der", "der/0.5", "der/fast"])
def test_no_expert_has_a_name_of_the_ensemble(name: str) -> None:
    experts = [chat_expert(name, "hello")]
    with pytest.raises(PoolError, match=f"an expert is named '{name}'.*rename it"):
        create_app(pool_from(experts), ScriptedAgent(name))


def test_a_stream_shows_the_route_beside_the_answer() -> None:
    experts = [chat_expert("writer", "some draft"), chat_expert("closer", "the very end")]
    with (
        serving(experts, "writer", "closer", max_steps=2) as address,
        client(address) as openai_client,
    ):
        chunks = list(
            openai_client.chat.completions.create(
                model="der",
                messages=HELLO,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"der": {"stream_tokens": "live"}},
            )
        )
    *body, usage = chunks
    assert len({chunk.id for chunk in chunks}) == 1
    assert body[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content for chunk in body if chunk.choices[0].delta.content]
    assert "".join(pieces) == "the very end"
    # Two calls are the longest route here, so the second is the last and comes word by word.
    assert len(pieces) > 1
    assert [c.choices[0].finish_reason for c in body] == [None] * (len(body) - 1) + ["stop"]
    events: Any = [(chunk.model_extra or {}).get("der") for chunk in body]
    events = [event for event in events if event]
    kinds = [event["type"] for event in events if event["type"] != "der.draft"]
    assert kinds == ["der.decision", "der.answer"] * 2 + ["der.decision", "der.route"]
    drafts = [event["text"] for event in events if event["type"] == "der.draft"]
    assert "".join(drafts) == "some draft"
    assert events[-1]["experts"] == ["writer", "closer"]
    assert usage.choices == []
    assert usage.usage is not None
    assert all(chunk.usage is None for chunk in body)


def test_a_stream_without_events_is_an_ordinary_one() -> None:
    with serving(two_experts(), "writer") as address, client(address) as openai_client:
        body: Any = {"der": {"events": False}}
        chunks = list(
            openai_client.chat.completions.create(
                model="der", messages=HELLO, stream=True, extra_body=body
            )
        )
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "a draft", None]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_one_expert_alone() -> None:
    with serving(two_experts(), "writer") as address, client(address) as openai_client:
        names = [each.id for each in openai_client.models.list()]
        done = openai_client.chat.completions.create(model="closer", messages=HELLO)
        with pytest.raises(openai.NotFoundError) as caught:
            openai_client.chat.completions.create(model="nobody", messages=HELLO)
        with pytest.raises(openai.NotFoundError):
            openai_client.models.retrieve("nobody")
    assert names == ["der", "writer", "closer"]
    assert done.choices[0].message.content == "the end"
    assert (done.model_extra or {})["der"]["experts"] == ["closer"]
    assert caught.value.code == "model_not_found"
    assert "der, writer, closer" in str(caught.value)


def test_experts_see_the_conversation() -> None:
    expert, model = scripted_expert("a", "fine")
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "Second?"},
    ]
    with serving([expert], "a") as address, client(address) as openai_client:
        openai_client.chat.completions.create(model="der", messages=messages)
    assert [(m.type, m.text) for m in model.prompts[0]] == [
        ("system", "Be brief."),
        ("human", "First?"),
        ("ai", "One."),
        ("human", "Second?"),
    ]


def test_budgets_bind_and_one_too_small_is_the_callers_mistake() -> None:
    with serving(two_experts(), "writer", "closer") as address, client(address) as openai_client:
        body: Any = {"der": {"max_cost": 1.2}}
        done = openai_client.chat.completions.create(model="der", messages=HELLO, extra_body=body)
        assert (done.model_extra or {})["der"]["cost"] == 1.0
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as caught:
                openai_client.chat.completions.create(
                    model="der",
                    messages=HELLO,
                    stream=stream,
                    extra_body={"der": {"max_cost": 0.1}},
                )
            assert caught.value.code == "budget_too_small"
            assert "the cheapest expert is 'closer'" in str(caught.value)
        assert metric(address, 'der_requests_total{model="der",status="400"}') == 2


@pytest.mark.parametrize("prefix", ["", "/der"])
def test_behind_a_prefix(prefix: str) -> None:
    """A proxy may take the prefix off, or leave it: both reach the server."""
    settings: Any = {"root_path": "/der/", "keys": [KEY], "max_steps": 1}
    with serving(two_experts(), "writer", **settings) as address:
        with client(f"{address}{prefix}", KEY) as api:
            done = api.chat.completions.create(model="der", messages=HELLO)
            assert done.choices[0].message.content == "a draft"
            assert [model.id for model in api.models.list()] == ["der", "writer", "closer"]
        for path in ("/healthz", "/readyz", "/metrics"):  # open to all, there too
            assert raw(address, "GET", f"{prefix}{path}")[0] == 200
        assert raw(address, "GET", f"{prefix}/v1/models")[0] == 401
        assert raw(address, "GET", "/other/healthz")[0] == 401
        key = {"Authorization": f"Bearer {KEY}"}
        described = raw(address, "GET", f"{prefix}/openapi.json", **key)[1]
        assert described["servers"] == [{"url": "/der"}]


def test_a_prefix_that_is_none_is_refused() -> None:
    with pytest.raises(ServerError, match="root_path is 'der'; give a path such as /der"):
        create_app(pool_from(two_experts()), ScriptedAgent("writer"), root_path="der")


def test_why_an_answer_ended_is_told() -> None:
    cut = AIMessage("once upon", response_metadata={"finish_reason": "length"})

    class Cut(type(chat_expert("x").model)):  # type: ignore[misc]
        pass

    expert = Expert("a", Cut(messages=iter([cut])), cost=1.0)
    with serving([expert], "a") as address, client(address) as openai_client:
        done = openai_client.chat.completions.create(model="der", messages=HELLO)
    assert done.choices[0].finish_reason == "length"


def test_langchains_client() -> None:
    with serving(two_experts(), "writer", "closer") as address:
        settings: Any = {"base_url": f"{address}/v1", "api_key": "none", "max_retries": 0}
        chat = ChatOpenAI(model="der", extra_body={"der": {"max_steps": 1}}, **settings)
        answer = chat.invoke("hello")
        assert answer.text == "a draft"
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["total_tokens"] == 7
        assert "".join(chunk.text for chunk in chat.stream("hello")) == "a draft"
        assert asyncio.run(chat.ainvoke("hello")).text == "a draft"
        chat.root_client.close()


def test_the_answer_cache(tmp_path: Path) -> None:
    for calls in (1, 0):
        expert, model = scripted_expert("a", "kept", cost=2.0)
        with serving([expert], "a", cache=tmp_path / "answers.sqlite") as address:
            with client(address) as openai_client:
                for _ in range(2):
                    done = openai_client.chat.completions.create(model="der", messages=HELLO)
                    assert done.choices[0].message.content == "kept"
                    assert (done.model_extra or {})["der"]["cost"] == 2.0
                stream = openai_client.chat.completions.create(
                    model="der", messages=HELLO, stream=True
                )
                assert "".join(c.choices[0].delta.content or "" for c in stream) == "kept"
            hits = 'der_cache_lookups_total{expert="a",result="hit"}'
            assert metric(address, hits) == 3 - calls
        assert len(model.prompts) == calls
