"""The server as its callers see it: OpenAI's client, LangChain's, Prometheus, and callers who misbehave."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedAgent, chat_expert, scripted_expert
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from tiny_models import save_tiny

from der_graph.errors import PoolError, ServerError
from der_graph.nodes.expert import Expert
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.waiting import WaitingLine
from der_graph.pool import pool_from
from der_graph.server import create_app, in_background

openai = pytest.importorskip("openai", reason="needs the extra test")
ChatOpenAI = pytest.importorskip("langchain_openai", reason="needs the extra test").ChatOpenAI
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
            )
        )
    *body, usage = chunks
    assert len({chunk.id for chunk in chunks}) == 1
    assert body[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content for chunk in body if chunk.choices[0].delta.content]
    assert "".join(pieces) == "the very end"
    # Two calls are the longest route here, so the second is the last and comes word by word.
    assert len(pieces) == 5
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


def test_sixty_four_at_once() -> None:
    async def ask_all(address: str) -> list[str | None]:
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60
        ) as each:

            async def whole() -> str | None:
                done = await each.chat.completions.create(model="der", messages=HELLO)
                content: str | None = done.choices[0].message.content
                return content

            async def streamed() -> str:
                stream = await each.chat.completions.create(
                    model="der", messages=HELLO, stream=True
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream])

            answers: list[str | None] = await asyncio.gather(
                *(whole() if i % 2 else streamed() for i in range(64))
            )
            return answers

    with serving(two_experts(), "writer", "closer") as address:
        answers = asyncio.run(ask_all(address))
        assert answers == ["the end"] * 64
        assert metric(address, 'der_requests_total{model="der",status="200"}') == 64
        assert metric(address, "der_requests_in_flight") == 0
        assert metric(address, 'der_route_length_sum{model="der"}') == 128
        assert metric(address, 'der_route_cost_total{model="der"}') == 96
        assert metric(address, 'der_expert_seconds_count{expert="writer"}') == 64
        assert metric(address, "der_decision_seconds_count") == 192
        assert metric(address, 'der_tokens_total{direction="input"}') == 640


@pytest.mark.parametrize("stream", [False, True])
def test_requests_that_come_together_share_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    count = 12
    model = HuggingFaceChat(model=str(save_tiny(tmp_path)), generation={"max_new_tokens": 4})
    all_here, batches = threading.Semaphore(0), list[int]()
    answer_all, join = HuggingFaceChat.answer_all, WaitingLine.join

    def counted(self: Any, requests: Any, cancel: Any) -> Any:
        if not batches:
            for _ in range(count):  # the first one takes until all others wait
                assert all_here.acquire(timeout=60)
        batches.append(len(requests))
        return answer_all(self, requests, cancel)

    def noticed(self: Any, *given: Any) -> Any:
        future = join(self, *given)
        all_here.release()
        return future

    monkeypatch.setattr(HuggingFaceChat, "answer_all", counted)
    monkeypatch.setattr(WaitingLine, "join", noticed)

    async def ask_all(address: str) -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="none", max_retries=0
        ) as each:

            async def ask() -> None:
                given: Any = {"model": "der", "messages": HELLO}
                if not stream:
                    await each.chat.completions.create(**given)
                    return
                async for _ in await each.chat.completions.create(**given, stream=True):
                    pass

            await asyncio.gather(*(ask() for _ in range(count)))

    with serving([Expert("tiny", model, cost=1.0)], "tiny") as address:
        asyncio.run(ask_all(address))
    assert sum(batches) == count
    assert len(batches) <= 2


def test_the_surplus_is_told_to_come_again() -> None:
    asked, go = threading.Event(), threading.Event()

    async def answer(messages: Any) -> AIMessage:
        asked.set()
        await asyncio.to_thread(go.wait, 30)
        return AIMessage("done")

    expert = Expert("slow", RunnableLambda(answer), cost=1.0)
    body = {"model": "der", "messages": HELLO}
    with serving([expert], "slow", max_concurrent=1) as address:
        first: list[Any] = []
        thread = threading.Thread(
            target=lambda: first.append(raw(address, "POST", "/v1/chat/completions", body))
        )
        thread.start()
        assert asked.wait(30)
        with client(address) as openai_client, pytest.raises(openai.RateLimitError) as caught:
            openai_client.chat.completions.create(model="der", messages=HELLO)
        assert metric(address, "der_requests_in_flight") == 1
        go.set()
        thread.join()
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.code == "overloaded"
    assert first[0][0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves_stops_the_route(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    asked, stopped = threading.Event(), threading.Event()

    async def answer(messages: Any) -> AIMessage:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        raise AssertionError

    expert = Expert("endless", RunnableLambda(answer), cost=1.0)
    with caplog.at_level(logging.INFO, "der_graph.server"), serving([expert], "endless") as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
        body = {"model": "der", "messages": HELLO, "stream": stream}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        assert asked.wait(30)
        connection.close()
        assert stopped.wait(30)
    assert " 499 " in caplog.text


def test_a_stream_that_breaks_says_so_without_details(caplog: pytest.LogCaptureFixture) -> None:
    expert, _ = scripted_expert("a", ValueError("sk-123 at 10.0.0.7"))
    with serving([expert], "a") as address, client(address) as openai_client:
        with pytest.raises(openai.APIError) as caught:
            list(openai_client.chat.completions.create(model="der", messages=HELLO, stream=True))
        with pytest.raises(openai.InternalServerError) as whole:
            openai_client.chat.completions.create(model="der", messages=HELLO)
        assert metric(address, 'der_expert_errors_total{expert="a"}') == 2
    assert whole.value.status_code == 502
    for error in (caught.value, whole.value):
        assert "no expert could answer" in str(error)
        assert "sk-123" not in str(error)
        assert error.code == "experts_failed"


def test_what_goes_wrong_inside_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ScriptedAgent):
        def decide(self, situations: Any) -> Any:
            raise RuntimeError("sk-123 in /home/me")

    app = create_app(pool_from(two_experts()), Broken())
    with (
        in_background(app) as address,
        client(address) as openai_client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        openai_client.chat.completions.create(model="der", messages=HELLO)
    assert caught.value.code == "internal"
    assert "sk-123" not in caught.value.response.text
    assert "sk-123" not in caplog.text
    assert "RuntimeError" in caplog.text


def test_keys() -> None:
    with serving(two_experts(), "writer", keys=["other-key", KEY]) as address:
        with client(address, KEY) as openai_client:
            assert openai_client.chat.completions.create(model="der", messages=HELLO).id
        wrong = client(address, "wrong")
        with wrong as openai_client, pytest.raises(openai.AuthenticationError) as caught:
            openai_client.models.list()
        assert raw(address, "POST", "/v1/chat/completions", b"{")[0] == 401
        assert raw(address, "GET", "/v1/elsewhere")[0] == 401
        for path in ("/healthz", "/readyz", "/metrics"):
            assert raw(address, "GET", path)[0] == 200
    assert caught.value.code == "invalid_api_key"
    assert caught.value.type == "authentication_error"


def test_the_log_has_no_contents_and_no_keys(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG, "der_graph"),
        serving(two_experts(), "writer", keys=[KEY]) as address,
    ):
        with client(address, KEY) as openai_client:
            openai_client.chat.completions.create(
                model="der", messages=[{"role": "user", "content": "swordfish"}]
            )
        raw(address, "GET", "/v1/models?key=swordfish%0Ainjected", authorization="Bearer swordfish")
        raw(address, "GET", "/x%0Ainjected")
    lines = [r.getMessage() for r in caplog.records if r.name == "der_graph.server"]
    assert any("200" in line and "model=der route=writer cost=1" in line for line in lines)
    assert "swordfish" not in "".join(lines)
    assert KEY not in "".join(lines)
    assert all("\n" not in line for line in lines)


def test_other_pages_and_bodies() -> None:
    with serving(two_experts(), "writer", max_body=1000) as address:
        assert raw(address, "GET", "/healthz")[1]["status"] == "ok"
        assert raw(address, "GET", "/readyz") == (200, {"status": "ready"})
        status, error = raw(address, "GET", "/nowhere")
        assert (status, error["error"]["type"]) == (404, "invalid_request_error")
        assert raw(address, "GET", "/v1/chat/completions")[0] == 405
        assert (
            raw(address, "POST", "/v1/chat/completions", b"{")[1]["error"]["code"] == "invalid_json"
        )
        assert raw(address, "POST", "/v1/chat/completions", b" " * 1001)[0] == 413
        assert metric(address, 'der_requests_total{model="unknown",status="400"}') == 1
        assert metric(address, "der_ready") == 1


def test_pages_of_other_origins_need_leave() -> None:
    asking = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    for origins, status in (((), 405), (("https://chat.example",), 200)):
        with serving(two_experts(), "writer", cors_origins=origins, keys=[KEY]) as address:
            given = raw(address, "OPTIONS", "/v1/chat/completions", **asking)[0]
        assert given in ((401, 405) if status == 405 else (200,))


def test_until_the_models_are_loaded_the_server_says_so() -> None:
    loading, go = threading.Event(), threading.Event()

    class Slow(ScriptedAgent):
        def check_pool(self, names: Any) -> None:
            loading.set()
            assert go.wait(30)
            super().check_pool(names)

    app = create_app(pool_from(two_experts()), Slow("writer"))
    with in_background(app, wait=False) as address:
        assert loading.wait(30)
        assert raw(address, "GET", "/healthz")[0] == 200
        assert raw(address, "GET", "/readyz") == (503, {"status": "loading"})
        with client(address) as openai_client, pytest.raises(openai.APIStatusError) as caught:
            openai_client.chat.completions.create(model="der", messages=HELLO)
        assert caught.value.status_code == 503
        assert caught.value.response.headers["retry-after"] == "2"
        go.set()
        app.state.der.settled.wait()
        assert raw(address, "GET", "/readyz")[0] == 200


def test_what_cannot_be_loaded_is_told() -> None:
    class Wrong(ScriptedAgent):
        def check_pool(self, names: Any) -> None:
            raise PoolError("made for others")

    told = threading.Event()
    app = create_app(pool_from(two_experts()), Wrong(), on_failure=told.set)
    with pytest.raises(PoolError, match="made for others"), in_background(app):
        pass
    assert told.is_set()
    with in_background(create_app(pool_from(two_experts()), Wrong()), wait=False) as address:
        status, body = raw(address, "GET", "/readyz")
        assert (status, body["status"] in ("loading", "failed")) == (503, True)


def test_what_cannot_be_served() -> None:
    expert, _ = scripted_expert("der", "x")
    with pytest.raises(PoolError, match="the server's name for the ensemble"):
        create_app(pool_from([expert]), ScriptedAgent())
    with pytest.raises(ServerError, match="at least 1"):
        create_app(pool_from(two_experts()), ScriptedAgent(), max_concurrent=0)
    with serving(two_experts(), "writer") as address:
        port = int(address.rsplit(":", 1)[1])
        app = create_app(pool_from(two_experts()), ScriptedAgent())
        with pytest.raises(ServerError, match=f"port {port}"), in_background(app, port=port):
            pass


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


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ImportError, match=r"pip install 'der-graph\[serve\]'"):
        create_app(pool_from(two_experts()), ScriptedAgent())
