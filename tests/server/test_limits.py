"""What the operator allows: pages and hosts, ceilings, limits of a key, time to send a request."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from itertools import repeat
from typing import Any

import pytest
from fakes import ScriptedAgent, scripted_expert
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from server_calls import HELLO, KEY, metric, raw, serving, two_experts

from der_graph.errors import ServerError
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.providers.secrets import mask_secrets
from der_graph.pool import pool_from
from der_graph.server.access import Access, Keys, Sites
from der_graph.server.failures import RequestError, kind_of
from der_graph.server.limits import Ceilings, KeyLimits
from der_graph.server.server import create_app, in_background
from der_graph.state import DERContext

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


def body(model: str = "der", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, **more}


# Pages and hosts ----------------------------------------------------------------------------------


def refused(sites: Sites, method: str = "POST", **headers: str) -> int | None:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    try:
        sites.check(method, given)
    except RequestError as error:
        return error.status
    return None


LOCAL = "127.0.0.1:8000"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "application/json"}, None),
        ({"content_type": "application/json; charset=utf-8"}, None),
        ({}, None),  # a small program that sends no type
        ({"content_type": "application/json", "content_encoding": "identity"}, None),
        ({"content_type": "application/json", "content_encoding": "gzip"}, 415),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"origin": "https://evil.example", "content_type": "application/json"}, 403),
        ({"origin": "null", "content_type": "application/json"}, 403),
        ({"origin": "http://127.0.0.1:8000", "content_type": "application/json"}, None),
        ({"origin": "http://127.0.0.1:3000", "content_type": "application/json"}, 403),
        ({"origin": "http://127.0.0.1:8000"}, 415),  # a page may send a body without a type
        ({"sec_fetch_site": "cross-site", "content_type": "application/json"}, 403),
        ({"sec_fetch_site": "same-origin", "content_type": "application/json"}, None),
        ({"sec_fetch_site": "none"}, 415),
    ],
)
def test_pages_of_strangers_may_not_ask(headers: dict[str, str], status: int | None) -> None:
    assert refused(Sites(), host=LOCAL, **headers) == status


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("localhost.:8000", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("192.168.0.7:8000", True),
        ("der.internal:8000", True),
        ("rebound.evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example@127.0.0.1", False),
    ],
)
def test_a_name_that_was_made_to_mean_this_machine_is_refused(host: str, fine: bool) -> None:
    sites = Sites(hosts=["der.internal"])
    assert refused(sites, "GET", host=host) == (None if fine else 403)
    assert refused(Sites(keyed=True), "GET", host=host) is None  # such a page has no key


def test_allowed_pages_may_ask() -> None:
    sites = Sites(["https://chat.example/"])
    page = {"host": LOCAL, "origin": "https://Chat.example", "content_type": "application/json"}
    assert refused(sites, **page) is None
    assert refused(Sites(["*"]), **page) is None
    assert refused(sites, **{**page, "origin": "https://chat.example.evil"}) == 403


def test_a_page_cannot_spend_a_keyless_servers_money() -> None:
    asked: list[str] = []

    async def paid(question: str) -> str:
        asked.append(question)
        return "ok"

    with serving([as_expert(paid, name="a", cost=1)], "a") as address:
        page = {"Content-Type": "text/plain", "Origin": "https://evil.example"}
        status, said = raw(address, "POST", CHAT, body(), **page)
        assert (status, said["error"]["code"]) == (403, "origin_not_allowed")
        status, said = raw(address, "POST", CHAT, body(), **JSON, Host="rebound.evil.example")
        assert (status, said["error"]["code"]) == (403, "host_not_allowed")
        status, said = raw(address, "POST", CHAT, body(), **{"Content-Type": "text/plain"})
        assert (status, said["error"]["code"]) == (415, "unsupported_media_type")
        assert asked == []
        assert raw(address, "POST", CHAT, body(), **JSON)[0] == 200
        assert raw(address, "GET", "/healthz", Host="probe.example")[0] == 200


# Ceilings -----------------------------------------------------------------------------------------

bounds = st.none() | st.floats(1e-3, 1e6)


@given(wanted=bounds, ceiling=bounds)
def test_a_ceiling_is_default_and_bound(wanted: float | None, ceiling: float | None) -> None:
    found = Ceilings(max_cost=ceiling, deadline=ceiling).bound(
        DERContext(max_cost=wanted, deadline=wanted)
    )
    expected = min((each for each in (wanted, ceiling) if each is not None), default=None)
    assert found.max_cost == found.deadline == expected


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_that_are_none(value: float) -> None:
    with pytest.raises(ServerError, match="max_cost is"):
        Ceilings(max_cost=value)
    with pytest.raises(ServerError, match="cost_per_day is"):
        KeyLimits(cost_per_day=value)


def test_ceilings_of_the_server_hold_whatever_a_request_says() -> None:
    pool = [scripted_expert(name, name, cost=1)[0] for name in ("a", "b", "c")]
    with serving(pool, "a", "b", "c", "END", max_steps=1, max_cost=2.5) as address:
        for der in ({}, {"max_steps": 3, "max_cost": 100}):
            status, said = raw(address, "POST", CHAT, body(der=der), **JSON)
            assert (status, said["der"]["experts"]) == (200, ["a"])
        status, said = raw(address, "POST", CHAT, body(der={"max_cost": 0.5}), **JSON)
        assert (status, said["error"]["code"]) == (400, "budget_too_small")


def test_a_hung_expert_gives_its_place_back_at_the_servers_deadline() -> None:
    import asyncio

    async def hangs(question: str) -> str:
        await asyncio.sleep(60)
        return "late"

    experts = [as_expert(hangs, name="a", cost=1), scripted_expert("b", "fine")[0]]
    with serving(experts, "a", "b", "END", deadline=1.0, max_concurrent=1) as address:
        start = time.monotonic()
        status, _ = raw(address, "POST", CHAT, body("a", der={"deadline": 50}), **JSON)
        assert status in (502, 504)
        assert time.monotonic() - start < 40
        assert raw(address, "POST", CHAT, body("b"), **JSON)[0] == 200


# Keys ---------------------------------------------------------------------------------------------


def test_so_many_requests_a_minute() -> None:
    clock = [1000.0]
    limits = KeyLimits(requests_per_minute=2, clock=lambda: clock[0])
    limits.enter("one")
    clock[0] += 30
    limits.enter("one")
    limits.enter("other")
    with pytest.raises(RequestError) as caught:
        limits.enter("one")
    assert caught.value.status == 429
    assert caught.value.retry_after == 30
    clock[0] += 30  # the first is a minute old
    limits.enter("one")
    with pytest.raises(RequestError):
        limits.enter("one")


@pytest.mark.parametrize("jump", [-7_200, 7_200])
def test_a_clock_that_jumps_changes_no_minute(jump: float) -> None:
    wall, clock = [10_000.0], [5.0]
    limits = KeyLimits(requests_per_minute=1, now=lambda: wall[0], clock=lambda: clock[0])
    limits.enter("one")
    wall[0] += jump
    with pytest.raises(RequestError) as caught:
        limits.enter("one")
    assert caught.value.retry_after == 60
    clock[0] += 60
    limits.enter("one")


def test_a_clock_that_is_put_back_refills_no_budget() -> None:
    wall, clock = [86400.0 * 10 + 600], [5.0]
    limits = KeyLimits(cost_per_day=5, now=lambda: wall[0], clock=lambda: clock[0])

    def spend() -> None:
        limits.settle("one", limits.reserve("one", 5), 5)

    spend()
    for jump in (-3_600, 3_600, -7_200):  # over midnight and again
        wall[0] += jump
        with pytest.raises(RequestError):
            limits.reserve("one", 1)
    wall[0] = 86400.0 * 11
    spend()
    wall[0] = 86400.0 * 9_000  # a wrong clock, and then the right one
    spend()
    wall[0] = 86400.0 * 12
    with pytest.raises(RequestError):
        limits.reserve("one", 1)
    wall[0], clock[0] = wall[0] + 86400, clock[0] + 86400
    spend()


def test_so_much_cost_a_day() -> None:
    clock = [86400.0 * 10]
    limits = KeyLimits(cost_per_day=5, now=lambda: clock[0])
    first = limits.reserve("one", 3)
    assert first == 3
    second = limits.reserve("one", 3)
    assert second == 2  # what the first may still spend is not there any more
    with pytest.raises(RequestError) as caught:
        limits.reserve("one", 3)
    assert (caught.value.status, caught.value.code) == (429, "insufficient_quota")
    assert caught.value.retry_after == 86400
    assert limits.reserve("other", 9) == 5
    limits.settle("one", first, 1.0)
    limits.settle("one", second, 2.0)
    assert limits.reserve("one", 9) == 2
    clock[0] += 86400
    assert limits.reserve("one", 1) == 1
    assert KeyLimits().reserve("one", 1) is None


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), max_size=30), st.floats(0.1, 5))
def test_a_day_never_costs_more_than_its_limit(
    calls: list[tuple[float, float]], limit: float
) -> None:
    limits = KeyLimits(cost_per_day=limit, now=lambda: 0.0)
    spent, running = 0.0, []
    for at_most, share in calls:
        try:
            reserved = limits.reserve("k", at_most)
        except RequestError:
            break
        assert reserved is not None
        running.append((reserved, reserved * share))
        if len(running) > 2:
            promised, cost = running.pop(0)
            limits.settle("k", promised, cost)
            spent += cost
    assert spent + sum(promised for promised, _ in running) <= limit * (1 + 1e-9)


def test_keys_are_limited_and_named_in_log_and_metrics(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    keys = {"ALICE": KEY, "BOB": f"{KEY}-2"}
    alice, bob = ({"Authorization": f"Bearer {key}", **JSON} for key in keys.values())
    pool = [scripted_expert("a", "fine", cost=2)[0]]
    with serving(pool, "a", "END", keys=keys, cost_per_day=3, requests_per_minute=5) as address:
        assert raw(address, "POST", CHAT, body(), **alice)[0] == 200
        status, said = raw(address, "POST", CHAT, body(), **alice)
        assert (status, said["error"]["code"]) == (
            429,
            "insufficient_quota",
        )  # 1 is left, it costs 2
        assert raw(address, "POST", CHAT, body(), **bob)[0] == 200
        for _ in range(4):
            raw(address, "POST", CHAT, body("nobody"), **bob)
        assert raw(address, "POST", CHAT, body(), **bob)[0] == 429
        assert metric(address, 'der_key_cost_total{key="ALICE"}') == 2
        assert metric(address, 'der_key_requests_total{key="ALICE",status="200"}') == 1
    lines = [record.getMessage() for record in caplog.records]
    assert any("key=ALICE model=der route=a cost=2" in line for line in lines)
    assert KEY not in " ".join(lines)


# Half-sent requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /he",  # the second one on a connection
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b'Content-Length: 100\r\n\r\n{"model":',
    ],
)
def test_a_request_that_does_not_come_whole_is_given_up(sent: bytes) -> None:
    app = create_app(pool_from(two_experts()), ScriptedAgent("writer"), read_timeout=0.5)
    with in_background(app, head_timeout=0.5) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(sent)
            received = b""
            while part := connection.recv(
                4096
            ):  # ends when the server closes; else the test times out
                received += part
    if b"{" in sent:
        assert b" 408 " in received
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "timeout"


# What the operator is told ------------------------------------------------------------------------


def failing(name: str, error: Exception) -> Expert:
    return scripted_expert(name, error)[0]


def test_one_masked_warning_for_every_failed_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bad = failing("bad", PermissionError("key sk-proj-0123456789abcdef has expired on Monday"))
    pool = [bad, scripted_expert("good", "fine")[0]]
    with serving(pool, "bad", "good", "END") as address:
        status, said = raw(address, "POST", CHAT, body(), **JSON)
        assert status == 200
        assert metric(address, 'der_expert_errors_total{expert="bad",kind="PermissionError"}') == 1
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [
        f"request {said['id']}: expert bad failed: PermissionError: key *** has expired on Monday"
    ]
    line = next(r.getMessage() for r in caplog.records if "POST" in r.getMessage())
    assert "route=bad!>good" in line
    assert line.endswith("failed=bad:PermissionError")


@pytest.mark.parametrize(
    ("text", "kind"),
    [("TimeoutError: x", "TimeoutError"), ("returned an empty answer", "returned an empty answer"),
     ("<b>: x", "other"), ("", "other"), ("x" * 200, "other"), ("deadline: no answer", "deadline")],
)  # fmt: skip
def test_kinds_of_errors_are_few(text: str, kind: str) -> None:
    assert kind_of(text) == kind


@pytest.mark.parametrize(
    "secret",
    ["sk-ant-api03-0123456789", "hf_abcdefghijkl", "Bearer abcdefghij", "AIzaSyA-0123456789abcdefghi",
     "AKIA0123456789ABCDEF", "https://me:pass-word@host/x", "api_key=abcdefgh", "password: hunter22",
     "eyJhbGciOi.eyJzdWIiOiIx.SflKxw"],
)  # fmt: skip
def test_what_looks_like_a_secret_is_masked(secret: str) -> None:
    shown = mask_secrets(f"error with {secret} at noon")
    assert "***" in shown
    assert shown.endswith("at noon")
    for part in ("0123456789", "abcdefgh", "pass-word", "hunter22", "SflKxw"):
        assert part not in shown


def test_what_the_environment_holds_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct horse battery")
    monkeypatch.setenv("HARMLESS_NAME", "an ordinary text")
    assert mask_secrets("correct horse battery, an ordinary text") == "***, an ordinary text"
    assert mask_secrets("the task failed: 12 tokens were key to it") == (
        "the task failed: 12 tokens were key to it"
    )


# Callers' mistakes --------------------------------------------------------------------------------

MISTAKES: list[bytes] = [
    b'{"max_cost": 1' + b"0" * 400 + b"}",
    b'{"max_cost": 1e400}',
    b'{"max_cost": -1' + b"0" * 400 + b"}",
    b'{"deadline": 1' + b"0" * 400 + b"}",
    b'{"cost_weight": 1' + b"0" * 400 + b"}",
    b'{"max_steps": 1' + b"0" * 400 + b"}",
    b'{"stickiness": 1' + b"0" * 400 + b"}",
    b'{"stickiness": "x"}',
    b'{"deadline": [1]}',
    b'{"max_cost": 1' + b"0" * 5000 + b"}",
    b'{"allowed_experts": 5}',
    b'{"allowed_experts": {"a": 1}}',
    b'{"allowed_experts": [["a"]]}',
    b'{"forbidden_experts": false}',
    b'{"ktp": {"a": 1}}',
    b'{"ktp": []}',
    b'{"ktp": 7}',
    b'{"ktp": "nobody"}',
    b'{"\\ud800": 1}',
    b'{"allowed_experts": ["\\udfff"]}',
    b'{"ktp": "\\ud800"}',
    b'{"events": "yes"}',
    b"[]",
    b'"x"',
    b"[" * 20_000,
]


def test_callers_mistakes_are_400_with_an_error_object(caplog: pytest.LogCaptureFixture) -> None:
    start = b'{"model":"der","messages":[{"role":"user","content":"x"}]'
    bodies = [start + b',"der":' + each + b"}" for each in MISTAKES]
    bodies += [
        start + b',"\\ud800":1}',
        start.replace(b'"x"', b'"\\ud800"') + b"}",
        start.replace(b'"der"', b'"\\udc00"') + b"}",
        b"\xff\xfe",
        b"",
        b"null",
        b"1" * 5000,
    ]
    with serving([scripted_expert("a", "fine")[0]], "a", "END") as address:
        for each in bodies:
            status, said = raw(address, "POST", CHAT, each, **JSON)
            assert status in (400, 404), each[:200]
            assert said["error"]["message"], each[:200]
            assert len(said["error"]["message"]) < 700
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_half_a_surrogate_pair_in_an_answer_is_replaced() -> None:
    with serving([scripted_expert("a", "half: \ud800!")[0]], "a", "END") as address:
        status, said = raw(address, "POST", CHAT, body(), **JSON)
        assert (status, said["choices"][0]["message"]["content"]) == (200, "half: \ufffd!")
        status, text = raw(address, "POST", CHAT, body(stream=True), **JSON)
        assert status == 200
        assert "half: \ufffd!" in text
    model = GenericFakeChatModel(messages=repeat(AIMessage("half: \ud800!")))
    with serving([Expert("a", model, cost=1.0)], "a", "END") as address:
        status, text = raw(address, "POST", CHAT, body(stream=True), **JSON)
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        said = [choice["delta"].get("content") for event in events for choice in event["choices"]]
        assert "".join(filter(None, said)) == "half: \ufffd!"  # and once


def test_what_a_request_may_cost_counts_who_is_asked_beside_another() -> None:
    for hedge, most in ((None, 1.0), ("p95", 1.5)):
        pool = pool_from(two_experts(), max_steps=1, hedge=hedge)
        engine = create_app(pool, ScriptedAgent("writer")).state.der.engine
        assert engine.dearest("der", DERContext()) == most
        assert engine.dearest("writer", DERContext()) == 1.0


@pytest.mark.parametrize("stopping", [False, True])
def test_only_a_server_that_stops_says_so(stopping: bool) -> None:
    """Cancelled by something else, such as the application that mounts it, a request ends as that wants."""
    sent: list[dict[str, Any]] = []

    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def ask() -> bool:
        access = Access(cancelled, Keys(()), stopping=lambda: stopping)
        scope = {"type": "http", "path": "/healthz", "method": "GET", "headers": []}
        try:
            await access(scope, cancelled, send)
        except asyncio.CancelledError:
            return True
        return False

    assert asyncio.run(ask()) is not stopping
    assert [message.get("status") for message in sent] == ([503, None] if stopping else [])


def test_a_server_that_ends_has_said_that_it_stops() -> None:
    app = create_app(pool_from(two_experts()))
    with in_background(app):
        assert not app.state.der.stopping
    assert app.state.der.stopping
