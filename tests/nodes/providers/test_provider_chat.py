"""A provider's model read with care: thoughts, tokens used, broken streams, names."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from provider_stub import USAGE, piece, provider, remote_model

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


@pytest.mark.parametrize("finish", [None, ""])
def test_a_stream_that_ends_with_its_totals_is_whole(finish: Any) -> None:
    """As the whole answer is, where a server gives no reason for its end."""
    with provider(lambda body: {"content": "It is 42", "finish": finish}) as stub:
        for streaming in (False, True):
            expert = as_expert(remote_model(stub.url, streaming=streaming), name="a", cost=1.0)
            (answer,) = expert.ask([[HumanMessage("q")]])
            assert (answer["text"], answer["error"]) == ("It is 42", None)


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


SO_FAR = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize(
    "told",
    [
        pytest.param([None, None, USAGE], id="at the end"),
        pytest.param([SO_FAR, SO_FAR, USAGE], id="the total so far in every chunk"),
        pytest.param([None, USAGE, USAGE], id="twice"),
        pytest.param([NOTHING, USAGE, NOTHING], id="zeros around it"),
    ],
)
def test_tokens_used_are_counted_once_however_often_a_stream_tells_them(told: list[Any]) -> None:
    first, finish, last = told
    chunks = [
        piece({"role": "assistant", "content": "It is"}, usage=first),
        piece({"content": " 42"}, usage=first),
        piece({}, "stop", usage=finish),
        {"choices": [], "usage": last},
    ]
    with provider(lambda body: {"chunks": chunks}) as stub:
        chat = ProviderChat(chat=remote_model(stub.url))
        message = merged(list(chat.stream("q")))
    assert message.text == "It is 42"
    assert {k: message.usage_metadata[k] for k in TOKENS} == TOKENS


def test_a_last_chunk_may_be_without_a_delta() -> None:
    chunks = [
        piece({"content": "It is 42"}),
        {"choices": [{"delta": None, "finish_reason": "stop"}]},
    ]
    with provider(lambda body: {"chunks": chunks}) as stub:
        message = merged(list(ProviderChat(chat=remote_model(stub.url)).stream("q")))
    assert message.text == "It is 42"
    assert message.response_metadata["finish_reason"] == "stop"


def call_piece(args: str, **more: Any) -> dict[str, Any]:
    return piece({"tool_calls": [{"index": 0, "function": {"arguments": args}, **more}]})


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("args", ['{"path": "/tmp/a', '{"path": ', "rm -rf"])
def test_arguments_that_broke_off_are_no_call(args: str, whole: bool) -> None:
    function = {"name": "delete", "arguments": args}
    call = {"id": "c1", "type": "function", "function": function}
    begin = piece({"tool_calls": [{"index": 0, **call, "function": {"name": "delete"}}]})
    chunks = [piece({"content": "Let me see."}), begin, call_piece(args), piece({}, "length")]
    reply = {"content": "Let me see.", "finish": "length", "message": {"tool_calls": [call]}}
    with provider(lambda body: {**reply, "chunks": chunks}) as stub:
        model = remote_model(stub.url, streaming=not whole)
        answer = as_expert(model, name="m", cost=1).ask([[HumanMessage("q")]])[0]
    assert answer["text"] == ""
    assert "tool_calls" not in answer
    assert answer["error"] == "called a tool with arguments that are no JSON object"


def test_calls_are_put_together_from_the_pieces_of_a_stream() -> None:
    names = {"id": "c1", "type": "function"}
    chunks = [
        piece(
            {"tool_calls": [{"index": 0, **names, "function": {"name": "add", "arguments": ""}}]}
        ),
        # Some servers repeat id and name in every piece.
        piece(
            {
                "tool_calls": [
                    {"index": 0, **names, "function": {"name": "add", "arguments": '{"x"'}}
                ]
            }
        ),
        call_piece(": 1}"),
        piece({"tool_calls": [{"index": 1, "function": {"name": "now", "arguments": None}}]}),
        piece({}, "tool_calls"),
    ]
    with provider(lambda body: {"chunks": chunks}) as stub:
        message = merged(list(ProviderChat(chat=remote_model(stub.url)).stream("q")))
    one, two = message.tool_calls
    assert (one["name"], one["args"], one["id"]) == ("add", {"x": 1}, "c1")
    assert (two["name"], two["args"]) == ("now", {})
    assert two["id"].startswith("call_")  # its server gave none, and results must name their call


ULM, BERN = '{"city": "Ulm"}', '{"city": "Bern"}'


def weather(args: str, **more: Any) -> dict[str, Any]:
    """A piece of a call that names its tool."""
    return {"type": "function", "function": {"name": "weather", "arguments": args}, **more}


def rest(args: str, **more: Any) -> dict[str, Any]:
    """A further piece of a call."""
    return {"function": {"arguments": args}, **more}


@pytest.mark.parametrize(
    ("pieces", "cities"),
    [
        ([weather(ULM, index=0, id="a"), weather(BERN, index=0, id="b")], ["Ulm", "Bern"]),
        ([weather(ULM, index=0), weather(BERN, index=0)], ["Ulm", "Bern"]),
        (
            [
                weather(ULM[:7], index=0, id="a"), rest(ULM[7:], index=0),
                weather(BERN[:7], index=0, id="b"), rest(BERN[7:], index=0),
            ],
            ["Ulm", "Bern"],
        ),
        ([weather(ULM[:7], id="a"), rest(ULM[7:])], ["Ulm"]),
        ([weather(ULM, id="a"), weather(BERN, id="b")], ["Ulm", "Bern"]),
        ([weather(ULM[:7], index=0, id="a"), rest(ULM[7:], index=0, id="null")], ["Ulm"]),
    ],
    ids=["one index", "no id", "one index, in pieces", "no index, in pieces", "no index", "ids"],
)  # fmt: skip
def test_calls_are_told_apart_where_a_server_does_not_number_them(
    pieces: list[dict[str, Any]], cities: list[str]
) -> None:
    chunks = [*(piece({"tool_calls": [each]}) for each in pieces), piece({}, "tool_calls")]
    with provider(lambda body: {"chunks": chunks}) as stub:
        message = merged(list(ProviderChat(chat=remote_model(stub.url)).stream("q")))
    assert [call["args"] for call in message.tool_calls] == [{"city": each} for each in cities]
    assert message.invalid_tool_calls == []


@pytest.mark.parametrize("whole", [True, False])
def test_null_is_no_arguments(whole: bool) -> None:
    call = {"index": 0, "id": "a", **weather("null")}
    chunks = [piece({"tool_calls": [call]}), piece({}, "tool_calls")]
    reply = {"content": None, "message": {"tool_calls": [call]}, "chunks": chunks}
    with provider(lambda body: reply) as stub:
        model = ProviderChat(chat=remote_model(stub.url, streaming=not whole))
        message: Any = model.invoke("q")
    assert [call["args"] for call in message.tool_calls] == [{}]


def test_calls_of_one_answer_have_ids_of_their_own() -> None:
    call = {"type": "function", "function": {"name": "now", "arguments": "{}"}}
    given = [{**call, "id": "c1"}, {**call, "id": "c1"}, {**call, "id": ""}]
    with provider(lambda body: {"content": None, "message": {"tool_calls": given}}) as stub:
        message: Any = ProviderChat(chat=remote_model(stub.url)).invoke("q")
    ids = [each["id"] for each in message.tool_calls]
    assert ids[0] == "c1"
    assert all(ids)
    assert len(set(ids)) == 3


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("reason", ["error", "abort"])
def test_an_answer_whose_provider_broke_it_off_is_none(reason: str, streaming: bool) -> None:
    with provider(lambda body: {"content": "The capital of", "finish": reason}) as stub:
        model = remote_model(stub.url, streaming=streaming)
        answer = as_expert(model, name="m", cost=1).ask([[HumanMessage("q")]])[0]
    # Of a stream it is known that the model had begun.
    assert (answer["text"], answer["failure"], answer["cost"]) == ("", "unavailable", streaming)


def test_a_refusal_is_no_empty_answer() -> None:
    refusal = {"refusal": "I cannot help with that."}
    with provider(lambda body: {"content": None, "message": refusal}) as stub:
        answer = as_expert(remote_model(stub.url), name="m", cost=1).ask([[HumanMessage("q")]])[0]
    assert answer["error"] == "refused to answer: I cannot help with that."
    assert answer["failure"] == "content_filter"  # says nothing of the expert's health
    blocks: Any = AIMessage([{"type": "refusal", "refusal": "No."}])
    expert = as_expert(lambda question: blocks, name="m", cost=1)
    assert expert.ask([[HumanMessage("q")]])[0]["error"] == "refused to answer: No."


@pytest.mark.parametrize(
    ("error", "kind", "cost"),
    [
        ({"message": "Rate limit exceeded", "code": 429}, "rate_limit", 0),
        ({"message": "Rate limit exceeded", "code": "429"}, "rate_limit", 0),
        ({"message": "Provider returned error", "code": 502}, "unavailable", 0),
        (
            {"message": "This model's maximum context length is 10", "code": 400},
            "context_length",
            0,
        ),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
def test_an_error_that_comes_with_status_200_keeps_its_kind(
    error: dict[str, Any], kind: str, cost: float, streaming: bool
) -> None:
    with provider(lambda body: {"body": {"error": error}, "chunks": [{"error": error}]}) as stub:
        expert = as_expert(remote_model(stub.url, streaming=streaming), name="m", cost=1)
        answer = expert.ask([[HumanMessage("q")]], fallback="expert")[0]
    assert (answer["failure"], answer["cost"]) == (kind, cost)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ("the model is overloaded", "unavailable", "the model is overloaded"),
        ({"message": "all upstreams failed"}, "unavailable", "all upstreams failed"),
        ({"message": "slow down", "code": 429}, "rate_limit", "slow down"),
        ({"message": "no", "type": "invalid_request_error"}, "request", "no"),
        ({"code": 503}, "unavailable", "503"),
    ],
)
@pytest.mark.parametrize("way", ["whole", "stream", "async"])
def test_an_error_object_in_place_of_an_answer_is_told(
    error: Any, kind: str, words: str, way: str
) -> None:
    raw = json.dumps({"error": error}).encode()
    with provider(lambda asked: {"raw": raw, "type": "application/json"}) as stub:
        expert = as_expert(remote_model(stub.url, streaming=way != "whole"), name="m", cost=1)
        if way == "async":
            answer = asyncio.run(expert.aask([HumanMessage("q")], fallback="expert"))
        else:
            answer = expert.ask([[HumanMessage("q")]], fallback="expert")[0]
    assert (answer["failure"], answer["cost"]) == (kind, 0)
    assert words in (answer["error"] or "")


def test_a_stream_that_is_called_json_is_one() -> None:
    chunks = [piece({"content": "42"}), piece({}, "stop")]
    raw = "".join(f"data: {json.dumps({'id': 'x', 'model': 'm', **each})}\n\n" for each in chunks)
    sent = {"raw": raw.encode(), "type": "application/json"}
    with provider(lambda asked: sent) as stub:
        expert = as_expert(remote_model(stub.url, streaming=True), name="m", cost=1)
        assert expert.ask([[HumanMessage("q")]], fallback="expert")[0]["text"] == "42"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_signs_of_life_between_numbered_events_are_no_answer(way: str) -> None:
    chunks = [json.dumps({"id": "x", "model": "m", **each}) for each in
              (piece({"content": "42"}), piece({}, "stop"))]  # fmt: skip
    raw = (
        f"retry: 9\n\nid: 1\ndata: {chunks[0]}\n\n: ping\n\nid: 2\ndata: {chunks[1]}\n\n: ping\n\n"
    )
    with provider(lambda asked: {"raw": raw.encode(), "type": "text/event-stream"}) as stub:
        chat = ProviderChat(chat=remote_model(stub.url, streaming=True))
        said = asyncio.run(chat.ainvoke("q")) if way == "async" else chat.invoke("q")
    assert said.content == "42"


@pytest.mark.parametrize("streaming", [True, False])
def test_a_body_that_is_no_answer_costs_nothing(streaming: bool) -> None:
    body = {"detail": "Not now"}
    with provider(lambda asked: {"body": body, "chunks": [body]}) as stub:
        expert = as_expert(remote_model(stub.url, streaming=streaming), name="m", cost=1)
        answer = expert.ask([[HumanMessage("q")]], fallback="expert")[0]
    assert (answer["failure"], answer["cost"]) == ("unavailable", 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>Sign in</html>",
        b"",
        b"null",
        b'{"choices": [{"mess',
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'data: {"choices": [{"mess\n\n',
    ],
)
@pytest.mark.parametrize("way", ["whole", "stream", "async"])
def test_a_reply_that_cannot_be_read_is_a_provider_out_of_order(raw: bytes, way: str) -> None:
    with provider(lambda asked: {"raw": raw}) as stub:
        chat = remote_model(stub.url, streaming=way == "stream")
        expert = as_expert(chat, name="m", cost=1)
        if way == "async":
            answer = asyncio.run(expert.aask([HumanMessage("q")], fallback="expert"))
        else:
            answer = expert.ask([[HumanMessage("q")]], fallback="expert")[0]
    assert (answer["failure"], answer["cost"]) == ("unavailable", 0)
    assert re.search("no answer that can be read|it broke off", answer["error"] or "")


def test_mistakes_in_asking_are_no_fault_of_the_provider() -> None:
    with provider("42") as stub:
        expert = as_expert(remote_model(stub.url).bind(colour="red"), name="m", cost=1)
        assert expert.ask([[HumanMessage("q")]])[0]["failure"] == "error"
        sound = HumanMessage([{"type": "audio", "base64": "eA=="}])  # without its type
        answer = as_expert(remote_model(stub.url), name="m", cost=1).ask([[sound]])[0]
        assert answer["failure"] == "error"
        assert "mime_type" in (answer["error"] or "")


def test_tokens_are_never_fewer_than_none() -> None:
    used = {"prompt_tokens": -1, "completion_tokens": -1, "total_tokens": -2}
    with provider(lambda body: {"content": "42", "usage": used}) as stub:
        expert = as_expert(remote_model(stub.url), name="m", cost=1, token_prices=(1, 2))
        answer = expert.ask([[HumanMessage("q")]])[0]
    assert (answer["input_tokens"], answer["output_tokens"], answer["cost"]) == (0, 0, 1)


@pytest.mark.usefixtures("stale_connections")
@pytest.mark.parametrize("wrapped", ["fallbacks", "chain"])
def test_a_wrapped_model_is_asked_once_whatever_event_loop_asks(wrapped: str) -> None:
    with provider("42", keep_alive=True) as stub:
        for sent in (1, 2, 3):
            model = remote_model(stub.url)
            made = {
                "fallbacks": model.with_fallbacks([model]),
                "chain": ChatPromptTemplate.from_messages([("placeholder", "{messages}")]) | model,
            }
            expert = as_expert(made[wrapped], name="a", cost=1.0)
            asked: Any = {"messages": [HumanMessage("q")]} if wrapped == "chain" else "q"
            answer = asyncio.run(expert.aask(asked, fallback="expert"))
            assert answer["error"] is None
            assert len(stub.requests) == sent


@pytest.mark.usefixtures("stale_connections")
@pytest.mark.parametrize("status", [200, 500])
def test_a_call_is_sent_once_whatever_event_loop_asks(status: int) -> None:
    """Clients share their connections: one of a loop that has ended takes a call and loses its answer."""
    error = {"message": "out of order"}
    told = {"content": "42", "status": status, "error": error}
    with provider(lambda body: told, keep_alive=True) as stub:
        for sent in (1, 2, 3):
            expert = as_expert(remote_model(stub.url), name="a", cost=1.0)
            answer = asyncio.run(expert.aask([HumanMessage("q")], fallback="expert"))
            assert (answer["error"] is None) == (status == 200)
            assert len(stub.requests) == sent


def test_traces_are_told_no_secret_of_an_address() -> None:
    told: list[Any] = []

    class Listener(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, *_: Any, **__: Any) -> None:
            told.append(serialized)

    with provider("42") as stub:
        url = stub.url.replace("://", "://me:hunter22@") + "?api_key=hunter33"
        expert = as_expert(remote_model(url), name="m", cost=1)
        expert.ask([[HumanMessage("q")]], {"callbacks": [Listener()]}, fallback="expert")
    assert "hunter" not in str(told)
    assert f"://***@{stub.url.partition('://')[2]}?***" in str(told)
