"""What providers say: why answers end, why calls fail, and which conversations they take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from der_graph.errors import ExpertError
from der_graph.nodes.providers import failure_of, finish_reason_of, is_broken_off
from der_graph.nodes.providers.client_errors import cause_of
from der_graph.nodes.providers.messages import NO_OUTPUT, NO_RESULT, OPENING, sendable
from der_graph.nodes.reliability import describe_error
from der_graph.nodes.reliability.redaction import Guarded


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"finish_reason": "length"}, "length"),
        ({"stop_reason": "max_tokens"}, "length"),
        ({"finish_reason": "MAX_TOKENS"}, "length"),
        ({"finish_reason": "FinishReason.MAX_TOKENS"}, "length"),
        ({"done_reason": "length"}, "length"),
        ({"stopReason": "max_tokens"}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"finish_reason": "SAFETY"}, "content_filter"),
        ({"stop_reason": "refusal"}, "content_filter"),
        ({"stopReason": "guardrail_intervened"}, "content_filter"),
        ({"stop_reason": "tool_use"}, "tool_calls"),
        ({"stop_reason": "end_turn"}, "stop"),
        ({"status": "completed"}, "stop"),
        ({"finish_reason": "a new word"}, "stop"),
        ({"finish_reason": "maxTokens"}, "length"),
        ({"finish_reason": "max_output"}, "length"),
        ({"finish_reason": "FINISH_REASON_LENGTH"}, "length"),
        ({"finish_reason": "ERROR_LIMIT"}, "length"),
        ({"finish_reason": "sensitive"}, "content_filter"),
        ({"finish_reason": "MODEL_ARMOR"}, "content_filter"),
        ({"finish_reason": "toolUse"}, "tool_calls"),
        ({}, None),
        ({"finish_reason": None}, None),
    ],
)
def test_every_provider_has_its_word_for_the_end(said: dict[str, Any], reason: str | None) -> None:
    assert finish_reason_of(AIMessage("Once upon", response_metadata=said)) == reason


@pytest.mark.parametrize(
    ("word", "broken"),
    [
        ("error", True),
        ("insufficient_system_resource", True),
        ("network_error", True),
        ("MALFORMED_FUNCTION_CALL", True),
        ("malformed_model_output", True),
        ("TIMEOUT", True),
        ("time_limit", True),
        ("ERROR_TOXIC", False),
        ("ERROR_LIMIT", False),
        ("stop", False),
        ("a new word", False),
        ("no_error", False),
        ("server_errors", True),
        ("stop_no_errors", False),
        ({"code": 0, "error": None}, False),
    ],
)
def test_some_words_say_that_an_answer_broke_off(word: Any, broken: bool) -> None:
    assert is_broken_off(AIMessage("Once", response_metadata={"finish_reason": word})) is broken
    assert is_broken_off(AIMessage("Once", response_metadata={"status": "server_error"}))
    for status in (500, "no_error", "completed without errors", {"error": None}):
        assert not is_broken_off(AIMessage("Once", response_metadata={"status": status}))
    stopped = {"finish_reason": "stop", "stop_reason": "Final error:"}  # the text at which it did
    assert not is_broken_off(AIMessage("Once", response_metadata=stopped))


class Refused(Exception):
    """As provider's clients raise them."""

    def __init__(self, status: int, text: str = "no", **headers: str) -> None:
        super().__init__(text)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.response = httpx.Response(status, headers=named)


@pytest.mark.parametrize(
    ("error", "kind", "wait"),
    [
        (Refused(400, "This model's maximum context length is 8192 tokens."), "context_length", None),
        (Refused(400, "The input (5020 tokens) is longer than the model's context length"),
         "context_length", None),
        (Refused(400, "request (9 tokens) exceeds the available context size"), "context_length", None),
        (Refused(400, "prompt is too long: 210000 tokens > 200000 maximum"), "context_length", None),
        (Refused(500, "Context size has been exceeded."), "context_length", None),  # llama.cpp
        (Refused(413, "Input is too long for requested model."), "context_length", None),
        (ExpertError("the prompt has 90 tokens, and a reads at most 64"), "context_length", None),
        (Refused(429, "maximum context length: no; tokens per minute"), "rate_limit", None),
        (Refused(429, retry_after="20"), "rate_limit", 20.0),
        (Refused(429, retry_after_ms="1500"), "rate_limit", 1.5),
        (Refused(429, "Please try again in 300ms."), "rate_limit", 0.3),
        (Refused(429, "try again in 2 m"), "rate_limit", 120.0),
        (Refused(429, "You exceeded your current quota"), "auth", None),
        (Refused(400, "blocked by Azure's content management policy"), "content_filter", None),
        (Refused(401), "auth", None),
        (Refused(404, "no such model"), "auth", None),
        (Refused(407), "auth", None),
        (Refused(400, "unknown parameter"), "request", None),
        (Refused(503, retry_after="2"), "unavailable", 2.0),
        (Refused(500), "unavailable", None),
        (Refused(504), "timeout", None),
        (TimeoutError(), "timeout", None),
        (ConnectionRefusedError("away"), "unavailable", None),
        (httpx.ConnectError("away"), "unavailable", None),
        (httpx.ReadTimeout("late"), "timeout", None),
        (SimpleNamespace, "error", None),
        (ValueError("context_length"), "error", None),
        (KeyError("x"), "error", None),
    ],
)  # fmt: skip
def test_every_failure_has_a_kind(error: Any, kind: str, wait: float | None) -> None:
    error = error if isinstance(error, Exception) else RuntimeError("?")
    if str(error) == "context_length":
        kind = "context_length"  # whoever raises such a text means it
    assert failure_of(error) == (kind, wait)


@pytest.mark.parametrize(
    ("status", "word", "kind"),
    [
        (400, "context_length_exceeded", "context_length"),
        (400, "content_filter", "content_filter"),
        (429, "insufficient_quota", "auth"),
        (400, "unknown_parameter", "request"),
    ],
)
@pytest.mark.parametrize("place", ["code", "type", "body", "error of the body"])
def test_a_word_for_programs_is_enough(status: int, word: str, kind: str, place: str) -> None:
    """Newer clients of OpenAI leave it out of the text."""
    error: Any = Refused(status, "no")
    if place in ("code", "type"):
        setattr(error, place, word)
    else:
        error.body = {"code": word} if place == "body" else {"error": {"type": word}}
    assert failure_of(error).kind == kind


@pytest.mark.parametrize(
    ("status", "text", "kind", "wait"),
    [
        (
            400,
            "maximum prompt length is 131072 but the request contains 537812",
            "context_length",
            None,
        ),
        (422, "`inputs` must have less than 4096 tokens. Given: 5000", "context_length", None),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 4097.", "context_length", None),
        (400, "Range of input length should be [1, 30720]", "context_length", None),
        (
            400,
            "(length 5000) is longer than the maximum model length of 4096",
            "context_length",
            None,
        ),
        (400, "Your request exceeded model token limit: 8192", "context_length", None),
        (400, "Prompt exceeds max length", "context_length", None),
        (
            400,
            "number of input tokens 5000 cannot exceed the total tokens limit",
            "context_length",
            None,
        ),
        (400, "max_tokens is too large: 100000", "request", None),
        (400, "Your credit balance is too low to access the API", "auth", None),
        (400, "API key not valid. Please pass a valid API key.", "auth", None),
        (400, "Incorrect API key provided: xa***9.", "auth", None),
        (402, "Insufficient Balance", "auth", None),
        (429, "try again in 7m12.5s. Upgrade at https://x.example/billing", "rate_limit", 432.5),
        (
            429,
            "your current quota, check billing details. Please retry in 34.07s.",
            "rate_limit",
            34.07,
        ),
        (429, "retry after 2 minutes", "rate_limit", 120.0),
        (429, "try again in 1h2m", "rate_limit", 3720.0),
        (429, "retry after 1 hour and 5 minutes", "rate_limit", 3900.0),
        (429, "try again in 20s, 3 requests left", "rate_limit", 20.0),
        (429, "try again in 30. Please", "rate_limit", 30.0),
        (429, "try again in 1 month", "rate_limit", None),
        (429, "try again in 5 mins", "rate_limit", 300.0),
        (429, "try again in 500 msec", "rate_limit", 0.5),
        (429, "retry in 2 hrs", "rate_limit", 7200.0),
        (400, "litellm.BadRequestError: XaiException - Incorrect API key provided", "auth", None),
        (400, "Invalid schema for function 'get_billing': no items", "request", None),
        (400, "Invalid value: 'invalid api key'", "request", None),
        (400, "Content Exists Risk", "content_filter", None),
        (400, "potentially unsafe or sensitive content in input", "content_filter", None),
        (403, "requires moderation and your input was flagged", "content_filter", None),
    ],
)
@pytest.mark.parametrize("place", ["text", "detail", "error", "list"])
def test_other_providers_say_it_otherwise(
    status: int, text: str, kind: str, wait: float | None, place: str
) -> None:
    """Newer clients of OpenAI show no body that is not of its form."""
    error: Any = Refused(status, text if place == "text" else f"Error code: {status}")
    error.body = {
        "text": None,
        "detail": {"detail": [{"msg": text}]},
        "error": text,
        "list": [{"error": {"code": status, "message": text}}],
    }[place]
    assert failure_of(error) == (kind, wait)
    assert place == "text" or text in describe_error(error)


def test_what_a_body_quotes_of_the_request_tells_nothing() -> None:
    error: Any = Refused(422, "Error code: 422")
    error.body = {"detail": [{"msg": "field required", "input": "maximum context length?"}]}
    assert failure_of(error).kind == "request"


def test_what_a_body_says_does_not_steer_a_terminal() -> None:
    error: Any = Refused(502, "Error code: 502")
    error.body = "<html>\x1b[31mbad"
    assert describe_error(error) == "Refused: Error code: 502 (<html> [31mbad)"


@pytest.mark.parametrize(
    ("name", "sent"), [("n" * 99, "n" * 64), ("Ann B.", "Ann-B."), ("ann", "ann")]
)
def test_names_are_as_openais_protocol_takes_them(name: str, sent: str) -> None:
    assert sendable([HumanMessage("hi", name=name)])[0].name == sent


def test_botocores_status_is_found() -> None:
    error: Any = RuntimeError("throttled")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": 429}}
    assert failure_of(error).kind == "rate_limit"


def test_a_date_is_read_by_the_servers_clock() -> None:
    error: Any = Refused(429)
    error.response = httpx.Response(
        429,
        headers={
            "date": "Wed, 21 Oct 2015 07:28:00 GMT",
            "retry-after": "Wed, 21 Oct 2015 07:28:30 GMT",
        },
    )
    assert failure_of(error).retry_after == 30.0  # whatever it is here


def test_a_failure_behind_another_is_found() -> None:
    error = RuntimeError("the model failed")
    error.__cause__ = Refused(401)
    assert failure_of(error).kind == "auth"


def test_a_masked_error_keeps_its_kind() -> None:
    def fail(_: Any) -> str:
        raise Refused(429, "key sk-123456789 asks too often", retry_after="7")

    from langchain_core.runnables import RunnableLambda

    guarded = Guarded(bound=RunnableLambda(fail), secrets=("sk-123456789",))
    with pytest.raises(Refused, match=r"\*\*\*") as caught:
        guarded.invoke("x")
    assert failure_of(caught.value) == ("rate_limit", 7.0)


# Conversations --------------------------------------------------------------------------------------


def shown(messages: list[BaseMessage]) -> list[tuple[str, Any]]:
    return [(message.type, message.content) for message in sendable(messages)]


def test_empty_turns_are_left_out_and_neighbours_joined() -> None:
    story = [HumanMessage("Tell me a story"), AIMessage(""), HumanMessage("Shorter")]
    assert shown([SystemMessage(" "), *story]) == [("human", "Tell me a story\n\nShorter")]
    assert shown([HumanMessage("a"), AIMessage([{"type": "text", "text": " "}])]) == [
        ("human", "a")
    ]


def test_a_chat_that_the_assistant_opened_gets_a_users_turn() -> None:
    chat = [SystemMessage("s"), AIMessage("Hello! How can I help?"), HumanMessage("2 + 2?")]
    assert shown(chat) == [
        ("system", "s"),
        ("human", OPENING),
        ("ai", "Hello! How can I help?"),
        ("human", "2 + 2?"),
    ]


def test_calls_and_results_stay_as_they_are() -> None:
    call: Any = {"name": "f", "args": {}, "id": "c", "type": "tool_call"}
    asks = AIMessage("", tool_calls=[call])
    result = ToolMessage("", tool_call_id="c")
    sent = sendable([HumanMessage("q"), AIMessage("let me see"), asks, result, AIMessage("done")])
    assert [m.type for m in sent] == ["human", "ai", "tool", "ai"]
    first: Any = sent[1]
    assert first.tool_calls[0]["name"] == "f"
    assert "let me see" in first.text
    assert sent[2].content == NO_OUTPUT


CALL = {"name": "add", "args": {}, "type": "tool_call"}


def called(*ids: str) -> AIMessage:
    return AIMessage("", tool_calls=[{**CALL, "id": each} for each in ids])


def result(call: str, text: str = "5") -> ToolMessage:
    return ToolMessage(text, tool_call_id=call)


@pytest.mark.parametrize(
    ("messages", "sent"),
    [
        pytest.param(
            [result("a"), AIMessage("Hello."), HumanMessage("q")],
            [HumanMessage(OPENING), AIMessage("Hello."), HumanMessage("q")],
            id="trimmed between call and result",
        ),
        pytest.param(
            [HumanMessage("p"), called("a", "b"), result("b"), HumanMessage("q")],
            [
                HumanMessage("p"),
                called("a", "b"),
                result("a", NO_RESULT),
                result("b"),
                HumanMessage("q"),
            ],
            id="nobody answered a call",
        ),
        pytest.param(
            [HumanMessage("p"), called("a"), HumanMessage("q"), result("a")],
            [HumanMessage("p"), called("a"), result("a"), HumanMessage("q")],
            id="the user did not wait",
        ),
    ],
)
def test_calls_and_results_stand_together(
    messages: list[BaseMessage], sent: list[BaseMessage]
) -> None:
    assert sendable(messages) == sent


def test_people_with_names_keep_them() -> None:
    sent = sendable([HumanMessage("hi", name="Ann"), HumanMessage("me too", name="Bob")])
    assert [(m.content, m.name) for m in sent] == [("Ann: hi\n\nBob: me too", None)]
    same = sendable([HumanMessage("hi", name="Ann"), HumanMessage("so", name="Ann")])
    assert [(m.content, m.name) for m in same] == [("hi\n\nso", "Ann")]


def test_names_that_the_protocol_refuses_are_made_fit() -> None:
    (sent,) = sendable([HumanMessage("hi", name="openai/gpt 4o")])
    assert sent.name == "openai-gpt-4o"


def test_blocks_are_joined_as_blocks() -> None:
    picture: Any = {"type": "image_url", "image_url": {"url": "data:,"}}
    (only,) = sendable([HumanMessage("look"), HumanMessage([picture])])
    assert only.content == [{"type": "text", "text": "look"}, picture]


def test_what_is_given_is_not_changed() -> None:
    given: list[BaseMessage] = [HumanMessage("a"), HumanMessage("b")]
    sendable(given)
    assert [m.content for m in given] == ["a", "b"]


def test_what_is_behind_an_error_that_says_nothing_is_named() -> None:
    class APIConnectionError(Exception):
        pass

    for behind, told in ((httpx.ReadError(""), "ReadError"), (OSError("away"), "away")):
        error = APIConnectionError("Connection error.")
        error.__cause__ = behind
        assert cause_of(error) == told
    assert cause_of(APIConnectionError("Connection error.")) == ""
