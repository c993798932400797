"""A provider's model read with care: thoughts, tokens used, broken streams, names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from provider_stub import provider, remote_model

from der_graph.errors import ExpertError
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.providers import ProviderChat

THOUGHT = "<think>\n41? No, one more.\n</think>\n\nIt is 42."
TOKENS = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def merged(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def test_thoughts_are_put_aside_in_every_call() -> None:
    with provider(THOUGHT) as stub:
        chat = ProviderChat(chat=remote_model(stub.url))

        async def later() -> tuple[AIMessage, list[Any]]:
            return await chat.ainvoke("q"), [chunk async for chunk in chat.astream("q")]

        whole, chunks = asyncio.run(later())
        messages = [chat.invoke("q"), whole, merged(list(chat.stream("q"))), merged(chunks)]
    for message in messages:
        assert message.text.strip() == "It is 42."
        assert message.additional_kwargs["reasoning_content"].strip() == "41? No, one more."
        assert {k: message.usage_metadata[k] for k in TOKENS} == TOKENS
        assert message.response_metadata["finish_reason"] == "stop"


def test_an_answer_ends_at_a_stop_text_that_its_server_does_not_know() -> None:
    with provider(lambda body: {"content": "It is 42 END or 43", "finish": "length"}) as stub:
        chat = ProviderChat(chat=remote_model(stub.url))

        async def later() -> tuple[AIMessage, list[Any]]:
            stream = chat.astream("q", stop=["END"])
            return await chat.ainvoke("q", stop=["END"]), [chunk async for chunk in stream]

        whole, chunks = asyncio.run(later())
        streamed = list(chat.stream("q", stop=["END"]))
        messages = [chat.invoke("q", stop=["END"]), whole, merged(streamed), merged(chunks)]
    for message in messages:
        assert message.text.strip() == "It is 42"
        assert message.response_metadata["finish_reason"] == "stop"
        assert {k: message.usage_metadata[k] for k in TOKENS} == TOKENS  # all that was written


def test_streams_ask_for_usage_unless_somebody_said_no() -> None:
    with provider("yes") as stub:
        list(ProviderChat(chat=remote_model(stub.url)).stream("q"))
        list(ProviderChat(chat=remote_model(stub.url, stream_usage=False)).stream("q"))
    assert stub.requests[0]["stream_options"] == {"include_usage": True}
    assert "stream_options" not in stub.requests[1]


def test_a_stream_that_breaks_off_is_a_failure() -> None:
    with provider(lambda body: {"content": "The capital of", "breaks": True}) as stub:
        chat = ProviderChat(chat=remote_model(stub.url))
        with pytest.raises(ExpertError, match="broke off"):
            list(chat.stream("q"))
        expert = as_expert(remote_model(stub.url, streaming=True), name="a", cost=1.0)
        (answer,) = expert.ask([[HumanMessage("q")]])
    assert "broke off" in (answer["error"] or "")
    assert answer["failure"] == "unavailable"


def test_models_that_never_say_why_they_end_may_stream() -> None:
    fake = GenericFakeChatModel(messages=iter([AIMessage("a b")]))
    assert merged(list(ProviderChat(chat=fake).stream("q"))).text == "a b"


def test_content_blocks_are_read_too() -> None:
    blocks: Any = [{"type": "text", "text": THOUGHT}, {"type": "other", "data": 1}]
    fake = GenericFakeChatModel(messages=iter([AIMessage(blocks)]))
    message = ProviderChat(chat=fake).invoke("q")
    assert message.text.strip() == "It is 42."
    assert message.content[1] == {"type": "other", "data": 1}


def test_marks_of_ones_own_and_none_at_all() -> None:
    said = "[hm] 41? [/hm]42"
    expert = as_expert(lambda text: said, name="a", cost=1.0, reasoning=("[hm]", "[/hm]"))
    assert expert.ask([[HumanMessage("q")]])[0]["text"] == "42"
    plain = as_expert(lambda text: THOUGHT, name="a", cost=1.0, reasoning=False)
    assert plain.ask([[HumanMessage("q")]])[0]["text"] == THOUGHT


@pytest.mark.parametrize("text", ["<think>and so on", "<think>only</think>"])
def test_a_thought_without_answer_is_a_failure(text: str) -> None:
    with provider(text) as stub:
        remote = as_expert(remote_model(stub.url), name="a", cost=1.0)
        function = as_expert(lambda question: text, name="b", cost=1.0)
        answers = [each.ask([[HumanMessage("q")]])[0] for each in (remote, function)]
    for answer in answers:
        assert answer["error"] == "thought to the end and gave no answer; allow it more tokens"
        assert answer["text"] == ""


def test_it_keeps_the_name_of_the_model_in_traces() -> None:
    from langchain_core.tracers.base import BaseTracer

    class Names(BaseTracer):
        seen: list[str] = []  # noqa: RUF012

        def _persist_run(self, run: Any) -> None:
            self.seen.append(run.name)

    with provider("yes") as stub:
        Expert("a", remote_model(stub.url), cost=1.0).ask(
            [[HumanMessage("q")]], {"callbacks": [Names()]}
        )
        chat = ProviderChat(chat=remote_model(stub.url, "gpt"))
    assert Names.seen == ["ChatOpenAI"]
    assert chat._get_ls_params()["ls_model_name"] == "gpt"
    assert chat._llm_type == "openai-chat"


def test_a_cache_of_langchain_keeps_both_kinds_of_answer_apart() -> None:
    cache = InMemoryCache()
    with provider(THOUGHT) as stub:
        bare = remote_model(stub.url, cache=cache)
        careful = ProviderChat(chat=bare)
        assert "think" in bare.invoke("q").text
        assert careful.invoke("q").text.strip() == "It is 42."
        assert careful.invoke("q").text.strip() == "It is 42."
    assert len(stub.requests) == 2


def test_chunks_keep_their_white_space() -> None:
    fake = GenericFakeChatModel(messages=iter([AIMessage("a  b\nc ")]))
    chunks = [chunk for chunk in ProviderChat(chat=fake).stream("q") if chunk.content]
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    assert "".join(str(chunk.content) for chunk in chunks) == "a  b\nc "


def test_a_failed_call_that_nobody_began_to_answer_costs_nothing() -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        status = int(body["model"])
        error = {"message": "maximum context length is 8192 tokens" if status == 400 else "no"}
        return {"status": status, "error": error, "headers": {"retry-after": "20"}}

    with provider(reply) as stub:
        answers = {
            status: as_expert(remote_model(stub.url, status), name="a", cost=3.0).ask(
                [[HumanMessage("q")]]
            )[0]
            for status in ("400", "401", "429", "500")
        }
    kinds = {status: answer["failure"] for status, answer in answers.items()}
    assert kinds == {
        "400": "context_length",
        "401": "auth",
        "429": "rate_limit",
        "500": "unavailable",
    }
    assert [answer["cost"] for answer in answers.values()] == [0.0, 0.0, 0.0, 0.0]
    assert answers["429"]["retry_after"] == 20.0
    assert "retry_after" not in answers["401"]


@pytest.mark.parametrize("status", [200, 500])
def test_a_call_is_sent_once_whatever_event_loop_asks(status: int) -> None:
    """Clients share their connections: one of a loop that has ended takes a call and loses its answer."""
    error = {"message": "out of order"}
    with provider(lambda body: {"content": "42", "status": status, "error": error}) as stub:
        for sent in (1, 2, 3):
            expert = as_expert(remote_model(stub.url), name="a", cost=1.0)
            answer = asyncio.run(expert.aask([HumanMessage("q")], fallback="expert"))
            assert (answer["error"] is None) == (status == 200)
            assert len(stub.requests) == sent
