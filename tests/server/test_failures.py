"""Who may come in to the server, and what callers and the log learn of what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fakes import ScriptedAgent, scripted_expert
from server_calls import HELLO, KEY, client, metric, raw, serving, two_experts

from der_graph.errors import PoolError, ServerError
from der_graph.pool import pool_from
from der_graph.server.chat_call import while_connected
from der_graph.server.server import create_app, in_background

openai = pytest.importorskip("openai", reason="needs the extra test")


def test_a_stream_that_breaks_says_so_without_details(caplog: pytest.LogCaptureFixture) -> None:
    expert, _ = scripted_expert("a", ValueError("sk-123 at 10.0.0.7"))
    with serving([expert], "a") as address, client(address) as openai_client:
        with pytest.raises(openai.APIError) as caught:
            list(openai_client.chat.completions.create(model="der", messages=HELLO, stream=True))
        with pytest.raises(openai.InternalServerError) as whole:
            openai_client.chat.completions.create(model="der", messages=HELLO)
        assert metric(address, 'der_expert_errors_total{expert="a",kind="ValueError"}') == 2
    assert whole.value.status_code == 502
    for error in (caught.value, whole.value):
        assert "no expert could answer" in str(error)
        assert "sk-123" not in str(error)
        assert error.code == "experts_failed"


def test_a_route_that_is_cancelled_from_within_is_an_error_and_no_silence() -> None:
    async def source() -> AsyncGenerator[int, None]:
        yield 1
        raise asyncio.CancelledError

    async def connected() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def read() -> int | None:
        items = while_connected(connected, source())
        first = await anext(items)
        with pytest.raises(RuntimeError, match="cancelled from within"):
            await asyncio.wait_for(anext(items), 30)
        return first

    assert asyncio.run(read()) == 1


def test_a_silent_source_is_said_to_be_alive() -> None:
    async def source() -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.sleep(0.3)
        yield 2

    async def connected() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def read() -> list[int | None]:
        return [item async for item in while_connected(connected, source(), 0.05)]

    items = asyncio.run(read())
    assert [item for item in items if item is not None] == [1, 2]
    assert items[1] is None


def test_a_caller_who_leaves_before_the_end_of_the_request_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = create_app(pool_from(two_experts()), ScriptedAgent("writer"))
    said = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return said.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    with caplog.at_level(logging.INFO, "der_graph.server"):
        asyncio.run(app({**scope, "query_string": b"", "root_path": ""}, receive, send))
    assert sent[0]["status"] == 499
    (record,) = caplog.records
    assert record.getMessage().startswith("POST /v1/chat/completions 499 ")


def test_an_agent_that_fails_costs_nobody_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ScriptedAgent):
        def decide(self, situations: Any) -> Any:
            raise RuntimeError("sk-123 in /home/me")

    app = create_app(pool_from(two_experts()), Broken())
    with in_background(app) as address, client(address) as openai_client:
        answered = openai_client.chat.completions.create(model="der", messages=HELLO)
        page = raw(address, "GET", "/metrics")[1]
    route = (answered.model_extra or {})["der"]["route"]
    assert [step["reason"] for step in route] == ["agent_failed", "agent_failed"]
    assert "der_agent_failures_total 2.0" in page
    assert "sk-123" not in caplog.text
    assert "the agent failed (RuntimeError)" in caplog.text


def test_what_goes_wrong_inside_stays_inside(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(context: Any) -> Any:
        raise RuntimeError("sk-123 in /home/me")

    monkeypatch.setattr("der_graph.server.engine.answer_only", broken)
    app = create_app(pool_from(two_experts()), ScriptedAgent("writer"))
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


def test_keys_hold_where_the_server_is_part_of_another() -> None:
    import fastapi

    outer = fastapi.FastAPI()
    outer.mount("/der", create_app(pool_from(two_experts()), ScriptedAgent("writer"), keys=[KEY]))
    with in_background(outer, wait=False) as address:
        for path in ("/der/v1/models", "/der/v1/models/der", "/der//v1/models", "/der/elsewhere"):
            status, answer = raw(address, "GET", path)
            assert (status, answer["error"]["code"]) == (401, "missing_api_key")
        assert raw(address, "POST", "/der/v1/chat/completions", b"{")[0] == 401
        assert raw(address, "GET", "/der/healthz")[0] == 200
        opened = raw(address, "GET", "/der/v1/models", Authorization=f"Bearer {KEY}")
    assert opened[0] == 200


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


@pytest.mark.parametrize(
    ("reads", "most", "status"),
    [((), None, 413), (("image",), None, 200), (("image",), 2**20, 413)],
)
def test_a_picture_is_larger_than_a_text(
    reads: tuple[str, ...], most: int | None, status: int
) -> None:
    expert, _ = scripted_expert("eye", "a cat", inputs=frozenset(reads))
    picture = "data:image/png;base64," + "A" * 2**21
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": picture}},
    ]
    body = {"model": "der", "messages": [{"role": "user", "content": content}]}
    kind = {"Content-Type": "application/json"}
    with serving([expert], "eye", max_body=most) as address:
        assert raw(address, "POST", "/v1/chat/completions", body, **kind)[0] == status


def test_pages_of_other_origins_need_leave() -> None:
    asking = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    for origins, status in (((), 405), (("https://chat.example",), 200)):
        with serving(two_experts(), "writer", cors_origins=origins, keys=[KEY]) as address:
            given = raw(address, "OPTIONS", "/v1/chat/completions", **asking)[0]
        assert given in ((401, 403, 405) if status == 405 else (200,))


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


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ImportError, match=r"pip install 'der-graph\[serve\]'"):
        create_app(pool_from(two_experts()), ScriptedAgent())
