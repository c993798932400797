"""What servers send that no client should read, and where calls may not go."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fakes import ScriptedAgent, a_human
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from provider_stub import USAGE, piece, provider, remote_model

from der_graph import create_der_graph
from der_graph.errors import ExpertError, PoolError
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.providers import ProviderChat, bodies
from der_graph.nodes.providers.client_errors import mark_begun
from der_graph.nodes.providers.secrets import quiet
from der_graph.nodes.reliability.charge import TokenPrices

BOM = b"\xef\xbb\xbf"


def asked(url: str, **settings: Any) -> list[Any]:
    """What an expert answers: whole and in a stream, synchronous and not."""
    chat = ProviderChat(chat=remote_model(url, **settings))

    async def later() -> list[Any]:
        found: list[Any] = []
        for each in (chat.ainvoke("q"), _joined(chat)):
            try:
                found.append(await each)
            except Exception as error:
                found.append(error)
        return found

    found: list[Any] = []
    for call in (chat.invoke, lambda q: "".join(chunk.text for chunk in chat.stream(q))):
        try:
            found.append(call("q"))
        except Exception as error:
            found.append(error)
    found += asyncio.run(later())
    return [Expert("a", chat, cost=1.0).answer_from(each, 0.1) for each in found]


async def _joined(chat: ProviderChat) -> str:
    return "".join([chunk.text async for chunk in chat.astream("q")])


def test_a_call_is_not_sent_on_to_another_server() -> None:
    """HTTPX would send the question there, and every key but that of `Authorization`."""
    with provider("It is 42.") as other:
        there = {"location": f"{other.url.replace('127.0.0.1', 'localhost')}/chat/completions"}
        with provider(lambda body: {"status": 307, "error": {}, "headers": there}) as stub:
            answers = asked(stub.url, default_headers={"api-key": "0123456789"})
    assert other.requests == []
    for answer in answers:
        assert answer["failure"] == "unavailable"
        assert "sends calls on to http://localhost" in str(answer["error"])


def test_a_call_is_sent_on_within_a_server() -> None:
    replies = [{"status": 307, "error": {}, "headers": {"location": "/v1/chat/completions"}}]
    with provider(lambda body: replies.pop() if replies else {"content": "It is 42."}) as stub:
        answers = asked(stub.url)
    assert [answer["text"] for answer in answers] == ["It is 42."] * 4


def test_a_body_that_unpacks_to_more_than_an_answer_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LARGEST_BODY", 10_000)
    packed = gzip.compress(b'{"choices": "' + b"a" * 1_000_000)
    with provider(lambda body: {"raw": packed, "headers": {"content-encoding": "gzip"}}) as stub:
        answers = asked(stub.url)
    for answer in answers:
        assert answer["failure"] == "unavailable"
        assert "larger than" in str(answer["error"])


def test_a_byte_order_mark_hides_no_token() -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        head = {"id": "x", "created": 1, "model": "m", "object": "chat.completion.chunk"}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "It is 42."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = {**head, "object": "chat.completion", "choices": [choice], "usage": USAGE}
            return {"raw": BOM + json.dumps(whole).encode()}
        parts = [("It is ", None), ("42.", "stop")]
        lines = [
            {**head, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": why}]}
            for text, why in parts
        ]
        text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines)
        return {"raw": BOM + text.encode() + b"data: [DONE]\n\n"}

    with provider(reply) as stub:
        assert [answer["text"] for answer in asked(stub.url)][1::2] == ["It is 42."] * 2


def test_a_client_of_the_users_own_is_left_alone() -> None:
    openai = pytest.importorskip("openai")
    with provider("It is 42.") as stub:
        own = openai.DefaultHttpxClient()
        asked(stub.url, http_client=own)
    assert own.event_hooks["response"] == []


def test_other_requests_of_a_shared_client_are_left_alone() -> None:
    """LangChain gives all models of one URL the same HTTPX client."""
    openai = pytest.importorskip("openai")
    packed = gzip.compress(gzip.compress(BOM + b"{}"))
    reply = {"raw": packed, "headers": {"content-encoding": "gzip, gzip"}}
    with provider(lambda body: reply) as stub:
        own = openai.OpenAI(base_url=stub.url, api_key="none", max_retries=0)
        other = remote_model(stub.url)
        shared = remote_model(stub.url)
        its_users = remote_model(stub.url, client=own.chat.completions, root_client=own)
        for chat in (shared, its_users):
            with pytest.raises(ExpertError, match="packs its reply"):
                ProviderChat(chat=chat).invoke("q")
        for client in (other.root_client._client, own._client):
            found = client.post(f"{stub.url}/chat/completions", json={})
            assert found.content == BOM + b"{}"
            assert "gzip, deflate, " in found.request.headers["accept-encoding"]


def test_what_reads_a_stream_is_not_watched() -> None:
    """A tool that its user calls between two tokens may ask what it likes."""
    with provider("It is 42.") as stub:
        for _ in ProviderChat(chat=remote_model(stub.url)).stream("q"):
            assert not bodies._WATCHING.get()

        async def later() -> None:
            async for _ in ProviderChat(chat=remote_model(stub.url)).astream("q"):
                assert not bodies._WATCHING.get()

        asyncio.run(later())


def test_the_client_that_langchain_makes_for_a_proxy_is_watched() -> None:
    chat = remote_model("http://127.0.0.1:9/v1", openai_proxy="http://127.0.0.1:9")
    ProviderChat(chat=chat)
    assert chat.root_client._client.event_hooks["response"]


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client of HTTPX whose replies are watched."""
    with httpx.Client(follow_redirects=True, trust_env=False) as made:
        bodies.watch_replies(SimpleNamespace(client=made))
        yield made


@pytest.mark.parametrize("packing", ["gzip, gzip", "gzip,deflate", "br", "zstd"])
def test_a_body_that_may_unpack_to_anything_is_refused(packing: str, client: httpx.Client) -> None:
    reply = {"raw": b"", "headers": {"content-encoding": packing}}
    with (
        provider(lambda body: reply) as stub,
        pytest.raises(ExpertError, match="packs its reply") as caught,
        bodies.watching(),
    ):
        client.post(stub.url, json={})
    assert caught.value.failure_kind == "unavailable"


@pytest.mark.parametrize("packing", ["gzip", "GZIP", "identity", "identity, gzip"])
def test_a_body_that_is_packed_once_is_read(packing: str, client: httpx.Client) -> None:
    body = b"12345" if packing == "identity" else gzip.compress(b"12345")
    reply = {"raw": body, "headers": {"content-encoding": packing}}
    with provider(lambda body: reply) as stub, bodies.watching():
        found = client.post(stub.url, json={})
        assert (found.content, found.request.headers["accept-encoding"]) == (
            b"12345",
            "gzip, deflate",
        )
        with client.stream("POST", stub.url, json={}) as response:
            assert list(response.iter_bytes(chunk_size=2)) == [b"12", b"34", b"5"]


@pytest.mark.parametrize(
    ("pieces", "read"),
    [
        ([b"\xef", b"\xbb", b"\xbfIt", b" is"], b"It is"),
        ([b"\xef\xbb", b"\xbf"], b""),
        ([b"", BOM, b"It"], b"It"),
        ([b"\xef", b"It"], b"\xefIt"),
        ([b"\xef\xbb"], b"\xef\xbb"),
        ([b"I", BOM], b"I" + BOM),
    ],
)
def test_a_byte_order_mark_in_pieces(pieces: list[bytes], read: bytes) -> None:
    async def later() -> bytes:
        async def each() -> AsyncIterator[bytes]:
            for part in pieces:
                yield part

        return b"".join([part async for part in bodies._abounded(each())])

    assert b"".join(bodies._bounded(iter(pieces))) == asyncio.run(later()) == read


@pytest.mark.parametrize(
    ("asked", "sent", "followed"),
    [
        ("http://a/v1", "https://a/v1", True),
        ("http://a:8000/v1", "https://a:8000/v1", True),
        ("http://a:8000/v1", "https://a:9999/v1", False),
        ("http://a/v1", "https://a:9999/v1", False),
        ("http://a:8000/v1", "https://a/v1", False),
        ("https://a/v1", "http://a/v1", False),
        ("https://a/v1", "/v2", True),
        ("https://a/v1", "https://b/v1", False),
    ],
)
def test_which_redirections_are_followed(asked: str, sent: str, followed: bool) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        again = str(request.url) != asked
        return httpx.Response(200 if again else 307, headers={} if again else {"location": sent})

    with (
        httpx.Client(transport=httpx.MockTransport(reply), follow_redirects=True) as made,
        bodies.watching(),
    ):
        bodies.watch_replies(SimpleNamespace(client=made))
        if followed:
            assert made.post(asked).status_code == 200
        else:
            with pytest.raises(ExpertError, match="sends calls on to"):
                made.post(asked)


def test_an_error_of_a_connection_says_why() -> None:
    answers = asked("http://127.0.0.1:9/v1")
    for answer in answers:
        assert answer["failure"] == "unavailable"
        assert "refused" in str(answer["error"]) or "failed" in str(answer["error"])


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
def test_a_proxy_that_is_not_reached_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://me:secret@127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for answer in asked("https://models.invalid/v1"):
        assert f"(the proxy of {name}, 127.0.0.1:9: " in str(answer["error"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for answer in asked("http://127.0.0.1:9/v1"):
        assert "proxy" not in str(answer["error"])


@pytest.mark.parametrize("there", [False, True])
def test_certificates_that_cannot_be_read_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    pytest.importorskip("langchain")
    path = tmp_path / "roots.pem"
    if there:
        path.write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(PoolError, match=r"the certificates of SSL_CERT_FILE, .*roots.pem, cannot"):
        # A timeout of its own, for a client that nobody has made yet.
        as_expert(
            "openai:m", name="a", cost=1.0, settings={"api_key": "x", "timeout": 3.25 + there}
        )


def test_what_is_behind_an_error_shows_no_key() -> None:
    """As where a server repeats a header that it could not read."""
    expert = as_expert("openai:m", name="a", cost=1.0, settings={"api_key": "hunter2-and-more"})
    guard: Any = expert.model
    error = type("APIConnectionError", (Exception,), {})("Connection error.")
    error.__cause__ = ValueError("illegal header hunter2-and-more")
    with pytest.raises(Exception, match="Connection error") as caught, quiet(guard.secrets):
        raise error
    told = expert.answer_from(caught.value, 0.1)["error"]
    assert told == "APIConnectionError: Connection error (illegal header ***)"


@pytest.mark.parametrize("begun", [False, True])
def test_a_masked_error_still_says_that_an_answer_had_begun(begun: bool) -> None:
    expert = as_expert("openai:m", name="a", cost=2.0, settings={"api_key": "hunter2-and-more"})
    guard: Any = expert.model
    error = ConnectionError("reset by hunter2-and-more")
    if begun:
        mark_begun(error)
    with pytest.raises(Exception, match=r"\*\*\*") as caught, quiet(guard.secrets):
        raise error
    assert expert.answer_from(caught.value, 0.1)["cost"] == (2.0 if begun else 0.0)


def test_a_stream_that_breaks_off_is_charged_once_it_has_begun() -> None:
    with provider(lambda body: {"content": "It is forty", "breaks": True}) as stub:
        experts = [
            Expert("a", remote_model(stub.url), cost=2.0),
            as_expert(lambda question: "42", name="b", cost=1.0),
        ]
        graph = create_der_graph(experts, agent=ScriptedAgent("a", "b")).compile()
        parts = graph.stream(a_human("q"), stream_mode=["values", "messages"])
        *_, last = [value for mode, value in parts if mode == "values"]
    broken, answered = [step["answer"] for step in cast(Any, last)["route"][:2]]
    assert (broken["failure"], broken["cost"]) == ("unavailable", 2.0)
    assert (answered["text"], answered["cost"]) == ("42", 1.0)


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "add", "arguments": "{"}}


@pytest.mark.parametrize(
    ("deltas", "finish", "cost"),
    [
        ([{"role": "assistant", "content": ""}], None, 0.0),
        ([{"content": "It is forty"}], None, 2.0),
        ([{"content": "It is forty"}], "error", 2.0),
        ([{"content": "<think>41? No"}], None, 2.0),
        ([{"content": "<think>41? No"}], "error", 2.0),
        ([{"content": "", "reasoning_content": "41? No"}], None, 2.0),
        ([{"content": "", "reasoning": "41? No"}], "error", 2.0),
        ([{"content": "", "reasoning_content": ""}], "error", 0.0),
        ([{"content": None, "tool_calls": [CALL]}], None, 2.0),
        ([{"content": None, "tool_calls": [CALL]}], "error", 2.0),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_that_breaks_off_is_charged_whatever_it_began_with(
    deltas: list[Any], finish: str | None, cost: float, asynchronous: bool
) -> None:
    chunks = [piece(delta) for delta in deltas] + ([piece({}, finish)] if finish else [])
    with provider(lambda body: {"chunks": chunks}) as stub:
        expert = Expert("a", remote_model(stub.url, streaming=True), cost=2.0)
        prompt: list[Any] = [HumanMessage("q")]
        if asynchronous:
            answer = asyncio.run(expert.aask(prompt, fallback="answer"))
        else:
            (answer,) = expert.ask([prompt], fallback="answer")
    assert (answer["failure"], answer["text"], answer["cost"]) == ("unavailable", "", cost)


def test_totals_beside_a_thought_are_not_the_end_of_a_stream() -> None:
    """Some servers tell the tokens used with every piece."""
    chunks = [piece({"reasoning_content": "41? No"}, usage=USAGE)]
    with provider(lambda body: {"chunks": chunks}) as stub:
        expert = Expert("a", remote_model(stub.url, streaming=True), cost=2.0)
        (answer,) = expert.ask([[HumanMessage("q")]])
    assert (answer["failure"], answer["cost"]) == ("unavailable", 2.0)


def test_a_piece_of_a_thought_leaves_no_mark_in_an_answer() -> None:
    chunks = [piece({"reasoning_content": "41?"}), piece({"content": "It is 42."}, "stop")]
    with provider(lambda body: {"chunks": chunks}) as stub:
        pieces = list(ProviderChat(chat=remote_model(stub.url)).stream("q"))
    assert "".join(each.text for each in pieces) == "It is 42."
    assert not any(each.additional_kwargs for each in pieces)


def test_what_a_model_of_no_provider_had_said_is_charged() -> None:
    message = AIMessage("It is forty", response_metadata={"finish_reason": "error"})
    expert = as_expert(lambda question: "", name="a", cost=2.0)
    assert expert.answer_from(message, 0.1, spoken=True)["cost"] == 2.0
    assert expert.answer_from(message, 0.1)["cost"] == 0.0


@pytest.mark.parametrize("counted", [{"prompt_tokens": 2**70}, {"completion_tokens": 2**70}])
def test_an_answer_with_an_absurd_count_can_be_kept(counted: dict[str, int]) -> None:
    with provider(lambda body: {"content": "It is 42.", "usage": {**USAGE, **counted}}) as stub:
        expert = as_expert(remote_model(stub.url), name="a", cost=0.5, token_prices=(1.0, 2.0))
        graph = create_der_graph([expert], agent=ScriptedAgent("a"))
        kept = graph.compile(checkpointer=InMemorySaver())
        state: Any = kept.invoke(a_human("q"), {"configurable": {"thread_id": "1"}})
    answer = state["route"][0]["answer"]
    assert (answer["text"], answer["cost"], expert.cost_of(answer)) == ("It is 42.", 0.5, 0.5)
    assert (answer["input_tokens"], answer["output_tokens"]) == (0, 0)


def test_no_more_tokens_come_from_a_cache_than_were_read() -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 1000}}
    prices = TokenPrices(input=1000.0, output=1000.0, cached_input=100.0)
    with provider(lambda body: {"content": "It is 42.", "usage": usage}) as stub:
        expert = Expert("a", remote_model(stub.url), cost=0.5, token_prices=prices)
        (answer,) = expert.ask([[HumanMessage("q")]])
    assert answer["cached_tokens"] == USAGE["prompt_tokens"]
    assert answer["cost"] == expert.cost_of(answer) == pytest.approx(10 * 1e-4 + 5 * 1e-3)


@pytest.mark.parametrize(
    ("thought", "total", "written"), [(2, 15, 5), (2, 17, 7), (2, 30, 5), (20, 35, 25)]
)
def test_a_thought_that_is_counted_beside_the_answer_is_charged_too(
    thought: int, total: int, written: int
) -> None:
    """OpenAI counts it in the answer, xAI beside it."""
    usage = {**USAGE, "completion_tokens_details": {"reasoning_tokens": thought}}
    usage["total_tokens"] = total
    prices = TokenPrices(input=0.0, output=1000.0)
    with provider(lambda body: {"content": "It is 42.", "usage": usage}) as stub:
        expert = Expert("a", remote_model(stub.url), cost=0.5, token_prices=prices)
        (answer,) = expert.ask([[HumanMessage("q")]])
    assert (answer["reasoning_tokens"], answer["output_tokens"]) == (thought, written)
    assert answer["cost"] == pytest.approx(written * 1e-3)


@pytest.mark.parametrize("tokens", [10**12, 2**70])
def test_a_server_that_counts_absurdly_charges_no_more_than_a_call_may_cost(
    tokens: int, caplog: pytest.LogCaptureFixture
) -> None:
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens}
    with provider(lambda body: {"content": "It is 42.", "usage": usage}) as stub:
        expert = as_expert(
            remote_model(stub.url), name=f"absurd-{tokens}", cost=0.5, token_prices=(1.0, 2.0)
        )
        answers = [expert.ask([[HumanMessage("q")]])[0] for _ in range(2)]
    assert [answer["cost"] for answer in answers] == [0.5, 0.5]
    assert caplog.text.count("more tokens than a call can have") == 1
