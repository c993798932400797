"""Reading requests and writing responses: what is understood, refused, left out; and nothing leaks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import an_answer
from langchain_core.messages import AIMessage

from der_graph.errors import (
    AllExpertsFailedError,
    BudgetError,
    QuestionError,
    ServerError,
    UnknownExpertError,
)
from der_graph.server import read_keys
from der_graph.server.access import Keys
from der_graph.server.chat_replies import Outcome, Reply, public_event, to_json
from der_graph.server.chat_requests import KNOBS, ChatRequest, read_request
from der_graph.server.failures import RequestError, expert_error, failure_of
from der_graph.server.responses_api import read_response_request
from der_graph.state import RouteStep

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
TOLD = {"role": "tool", "tool_call_id": "c1", "content": "rainy"}


def called(arguments: Any) -> dict[str, Any]:
    function = {"name": "look", "arguments": arguments}
    calls = [{"id": "c1", "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def read(**fields: Any) -> ChatRequest:
    body = {"model": "der", "messages": HELLO, **fields}
    return read_request(json.dumps(body).encode())


def refused(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(**fields)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("called", "price"),
    [("der/0.5", 0.5), ("der/0", 0.0), ("der/.25", 0.25), ("der/2.", 2.0), ("der/1e-3", 0.001)],
)
def test_a_price_in_the_name_of_the_model(called: str, price: float) -> None:
    request = read(model=called)
    assert (request.model, request.called) == ("der", called)
    assert request.context.cost_weight == price
    assert read(model=called, der={"cost_weight": price}) == request  # said twice
    assert refused(model=called, der={"cost_weight": 7}).param == "der.cost_weight"


@pytest.mark.parametrize(
    "given", ["", "cheap", "-1", "inf", "nan", "1e999", " 1", "1_0", "0.5/2", "٣", "0x1", "1\n"]
)
def test_what_is_no_price_in_the_name_of_the_model(given: str) -> None:
    error = refused(model=f"der/{given}")
    assert (error.param, error.code) == ("model", "invalid_value")
    assert "a number >= 0 such as 'der/0.5'" in str(error)


def test_who_says_what_in_a_conversation_of_several() -> None:
    said: list[dict[str, Any]] = [{**HELLO[0], "name": "ann"}]
    said += [{"role": "assistant", "name": "der", "content": "hi"}, {**HELLO[0], "name": None}]
    assert [message.name for message in read(messages=said).messages] == ["ann", "der", None]
    error = refused(messages=[{**HELLO[0], "name": 5}])
    assert error.param == "messages[0].name"


def test_only_the_ensemble_has_a_price() -> None:
    for name in ("openai/0.5", "derby/0.5", "writer"):
        request = read(model=name)
        assert (request.model, request.context.cost_weight) == (name, None)


def test_a_whole_conversation() -> None:
    request = read(
        messages=[
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": None},
            {"role": "developer", "content": "Briefer."},
            {"role": "user", "content": "And now?"},
        ],
        der={"max_cost": 2, "max_steps": 1, "cost_weight": 0.5, "events": False},
        stream=True,
        stream_options={"include_usage": True},
        temperature=0.7,
        max_tokens=5,
        user="u-1",
        tools=[],
        seed=None,
    )
    assert [(m.type, m.text) for m in request.messages] == [
        ("system", "Be brief."),
        ("human", "a\nb"),
        ("ai", ""),
        ("system", "Briefer."),
        ("human", "And now?"),
    ]
    context = request.context
    assert (context.max_cost, context.max_steps, context.cost_weight) == (2, 1, 0.5)
    assert (request.stream, request.include_usage, request.events) == (True, True, False)
    assert context.model_settings == {"temperature": 0.7, "max_tokens": 5}
    assert request.ignored == ()


def test_the_knobs_are_those_of_the_graph_but_drafts_are_no_content() -> None:
    assert {"max_cost", "max_steps", "cost_weight", "stream_tokens"} <= set(KNOBS)
    assert refused(der={"stream_tokens": "all"}).param == "der.stream_tokens"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"model": None}, "model", "missing"),
        ({"model": 3}, "model", "a string"),
        ({"messages": None}, "messages", "missing"),
        ({"messages": []}, "messages", "is empty; it must have at least one"),
        ({"messages": ["hi"]}, "messages[0]", "an object"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role", "one of system"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content", "empty"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "a string"),
        ({"messages": [{"role": "tool", "content": "1"}]}, "messages[0].tool_call_id", "the id"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "messages[1].role", "last"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0]",
            "only parts of type 'text'",
        ),
        ({"n": 2}, "n", "must be 1"),
        ({"n": True}, "n", "an integer"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "an object with a name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "must be 'function'"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "a string"),
        ({"tools": [TOOL], "tool_choice": "look"}, "tool_choice", "names one of the tools"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        ({"functions": [{"name": "f"}]}, "functions", "not supported"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'json_schema'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
            "a JSON schema",
        ),
        ({"logprobs": 1}, "logprobs", "true or false"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs=true"),
        ({"temperature": "hot"}, "temperature", "from 0 to 2"),
        ({"temperature": 3}, "temperature", "from 0 to 2"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens", "an integer"),
        ({"seed": True}, "seed", "an integer"),
        ({"stop": [""]}, "stop", "not empty"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        (
            {"stream": True, "stream_options": {"include_usge": True}},
            "stream_options.include_usge",
            "did you mean 'include_usage'",
        ),
        (
            {"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"id": "1"}]}, TOLD]},
            "messages[1].tool_calls[0]",
            "id and function",
        ),
        (
            {"messages": [*HELLO, called({"place": "Ulm"}), TOLD]},
            "messages[1].tool_calls[0].function.arguments",
            "a JSON object",
        ),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream=true"),
        ({"der": 1}, "der", "an object"),
        ({"der": {"max_price": 1}}, "der.max_price", "allowed: max_cost"),
        ({"der": {"max_cost": "1"}}, "der.max_cost", "a number"),
        ({"der": {"max_cost": -1}}, "der.max_cost", ">= 0"),
        ({"der": {"max_steps": 1.5}}, "der.max_steps", "an integer"),
        ({"der": {"events": 1}}, "der.events", "true or false"),
    ],
)
def test_what_cannot_be_read_is_named(fields: dict[str, Any], param: str, words: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert words in error.message
    assert error.body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "/etc/passwd", "FILE:/etc/passwd", "ftp://host/a", "", None]
)
def test_pictures_are_on_the_web_or_in_the_request(url: str | None) -> None:
    def asked(address: str | None) -> list[dict[str, Any]]:
        image = {"type": "image_url", "image_url": {"url": address}}
        return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]

    assert refused(messages=asked(url)).param == "messages[0].content[1].image_url.url"
    for address in ("https://host/a.png", "data:image/png;base64,AAAA"):
        assert read(messages=asked(address)).messages[0].content[1]["image_url"]["url"] == address  # type: ignore[index]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'{"model": NaN}', b"\xff", b"[" * 100_000, b'{"a": "\\ud800"}']
)
def test_bodies_that_are_no_request(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        read_request(body)
    assert caught.value.status == 400


def test_text_that_is_no_text() -> None:
    body = b'{"model": "der", "messages": [{"role": "user", "content": "a \\ud800"}]}'
    with pytest.raises(RequestError, match="surrogate"):
        read_request(body)


def test_a_call_that_no_tool_could_take_goes_back_with_its_result() -> None:
    request = read(messages=[*HELLO, called('{"place": "Ul'), {**TOLD, "content": "not JSON"}])
    answer, result = request.messages[1:]
    assert isinstance(answer, AIMessage)
    assert answer.tool_calls == []
    assert [call["args"] for call in answer.invalid_tool_calls] == ['{"place": "Ul']
    assert result.text == "not JSON"


def test_fields_of_tools_and_results_that_are_null_count_as_left_out() -> None:
    function = {**TOOL["function"], "parameters": None, "strict": None}  # type: ignore[dict-item]
    nothing = {**TOLD, "content": None}
    request = read(tools=[{**TOOL, "function": function}], messages=[*HELLO, called("{}"), nothing])
    assert request.context.model_settings is not None
    assert request.context.model_settings["tools"] == [
        {"type": "function", "function": {"name": "look"}}
    ]
    assert request.messages[-1].text == ""


def test_no_log_probabilities_are_nothing_asked() -> None:
    # The protocol of responses has no `logprobs` beside it, and sends 0 where none are wanted.
    body = {"model": "der", "input": "hello", "top_logprobs": 0}
    request = read_response_request(json.dumps(body).encode())
    assert "top_logprobs" not in (request.context.model_settings or {})
    assert "top_logprobs" not in (read(top_logprobs=0).context.model_settings or {})


def test_what_an_earlier_answer_has_beside_its_text() -> None:
    no = {"role": "assistant", "content": None, "refusal": "I will not."}
    thought = {"type": "thinking", "thinking": "Hm."}
    said = {"role": "assistant", "content": [thought, {"type": "text", "text": "Hello."}]}
    request = read(messages=[*HELLO, no, *HELLO, said, *HELLO])
    assert [message.text for message in request.messages] == [
        "hello", "I will not.", "hello", "Hello.", "hello",
    ]  # fmt: skip


def test_errors_do_not_repeat_what_was_written() -> None:
    error = refused(messages=[{"role": "user", "content": {"secret": "swordfish"}}])
    assert "swordfish" not in to_json(error.body)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BudgetError("max_cost=1 is too small"), 400, "budget_too_small"),
        (QuestionError("the question is empty"), 400, "invalid_question"),
        (UnknownExpertError("there is no expert 'x'"), 400, "invalid_value"),
        (AllExpertsFailedError("a: key sk-123 refused"), 502, "experts_failed"),
        (
            AllExpertsFailedError(
                "a: ExpertError: the prompt has 900 tokens, and a reads at most 9"
            ),
            400,
            "context_length_exceeded",
        ),
        (RuntimeError("/home/me/sk-123"), 500, "internal"),
    ],
)
def test_what_callers_learn_of_errors(error: Exception, status: int, code: str) -> None:
    failure = failure_of(error, "chatcmpl-7")
    assert (failure.status, failure.code) == (status, code)
    text = to_json(failure.body)
    assert "sk-123" not in text
    assert ("chatcmpl-7" in text) == (status >= 500)


def test_of_an_experts_error_callers_learn_the_kind() -> None:
    assert expert_error(None) is None
    assert expert_error("ConnectError: https://10.0.0.7:8000") == "ConnectError"
    event = {"type": "der.answer", **an_answer("a", error="ConnectError: https://10.0.0.7")}
    assert public_event(event)["error"] == "ConnectError"


def test_numbers_that_json_does_not_know_become_null() -> None:
    assert to_json({"a": [float("nan"), 1.5, float("inf")]}) == '{"a":[null,1.5,null]}'


def test_usage_is_that_of_all_experts_together() -> None:
    decision: Any = {
        "step": 0,
        "choice": "a",
        "probabilities": {"a": 1.0},
        "value": None,
        "mask": {"a": True},
        "reason": "agent",
        "cost_weight": None,
        "spent": 0.0,
        "seconds": 0.1,
    }
    answers = [
        {**an_answer("a"), "input_tokens": 10, "output_tokens": 3},
        {**an_answer("b"), "input_tokens": 20, "output_tokens": 4},
        None,
    ]
    route: list[Any] = [RouteStep(**decision, answer=answer) for answer in answers]  # type: ignore[typeddict-item]
    outcome = Outcome("42", route, 2.0, 0.5)
    completion = Reply("der", "fp_1", "usd", ("seed",)).completion(outcome)
    assert completion["usage"] == {
        "prompt_tokens": 30,
        "completion_tokens": 7,
        "total_tokens": 37,
    }
    assert completion["der"]["experts"] == ["a", "b"]
    assert completion["der"]["cost_unit"] == "usd"
    assert completion["der"]["ignored"] == ["seed"]
    assert completion["choices"][0]["message"]["content"] == "42"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        (b"", "missing_api_key"),
        (b"Bearer ", "missing_api_key"),
        (b"Basic secret-one", "missing_api_key"),
        (b"Bearer secret", "invalid_api_key"),
        (b"Bearer secret-one2", "invalid_api_key"),
        (b"Bearer \xff", "invalid_api_key"),
    ],
)
def test_keys_that_do_not_open(header: bytes | None, code: str) -> None:
    keys = Keys(["secret-one", "secret-two"])
    headers = [] if header is None else [(b"authorization", header)]
    with pytest.raises(RequestError) as caught:
        keys.check(headers)
    assert (caught.value.status, caught.value.code) == (401, code)
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}


def test_keys_that_open() -> None:
    keys = Keys(["secret-one", "secret-two"])
    assert keys.check([(b"authorization", b"Bearer secret-two")]) == "key-2"
    assert keys.check([(b"authorization", b"bearer secret-one")]) == "key-1"
    assert Keys({"BILLING": "secret"}).check([(b"authorization", b"Bearer secret")]) == "BILLING"
    assert Keys([]).check([]) == "-"
    assert "secret" not in repr(vars(keys))


def test_where_keys_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DER_API_KEY", raising=False)
    assert read_keys() == {}
    monkeypatch.setenv("DER_API_KEY", " own ")
    monkeypatch.setenv("KEY_A", "a")
    monkeypatch.setenv("KEY_B", "")
    assert read_keys() == {"DER_API_KEY": "own"}
    assert read_keys(["KEY_A"]) == {"KEY_A": "a"}
    with pytest.raises(ServerError, match="KEY_B is not set"):
        read_keys(["KEY_A", "KEY_B"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": " "}, "input"),
        ({"instructions": "Be brief.", "input": [{"type": "reasoning"}]}, "input"),
        ({"input": [{"role": "assistant", "content": "Hello!"}]}, "input[0].role"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"instructions": "Be brief.", "input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": 5}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"type": "function_call_output", "output": "1"}]}, "input[0].call_id"),
        (
            {"input": [*HELLO, {"type": "function_call_output", "call_id": "1", "output": 5}]},
            "input[1].output",
        ),
        (
            {
                "instructions": "Be brief.",
                "input": [
                    *HELLO,
                    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                    {"type": "reasoning"},
                    {"type": "function_call", "call_id": 2, "name": "f", "arguments": "{}"},
                ],
            },
            "input[3].call_id",
        ),
        ({"input": "hi", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "hi", "text": {"format": {"type": "json_schema"}}}, "text.format.name"),
    ],
)
def test_what_is_wrong_in_a_responses_request_is_named_as_it_is_there(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_response_request(json.dumps({"model": "der", **fields}).encode())
    assert caught.value.param == param
    assert "messages[" not in caught.value.message
    assert "last message" not in caught.value.message
