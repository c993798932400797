"""What servers send that no client should read, and where calls may not go."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any, cast

import pytest
from fakes import ScriptedAgent, a_human
from langchain_core.messages import HumanMessage
from provider_stub import USAGE, provider, remote_model

from der_graph import create_der_graph
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.providers import ProviderChat, bodies

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


def test_an_error_of_a_connection_says_why() -> None:
    answers = asked("http://127.0.0.1:9/v1")
    for answer in answers:
        assert answer["failure"] == "unavailable"
        assert "refused" in str(answer["error"]) or "failed" in str(answer["error"])


def test_what_is_behind_an_error_shows_no_key() -> None:
    """As where a server repeats a header that it could not read."""
    expert = as_expert("openai:m", name="a", cost=1.0, settings={"api_key": "hunter2-and-more"})
    guard: Any = expert.model
    error = type("APIConnectionError", (Exception,), {})("Connection error.")
    error.__cause__ = ValueError("illegal header hunter2-and-more")
    with pytest.raises(Exception, match=r"\*\*\*") as caught, guard._guard():
        raise error
    assert "hunter2" not in str(expert.answer_from(caught.value, 0.1)["error"])


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
