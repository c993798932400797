"""Real clients against the server: each asks for a text, a stream, a tool's call and an object of a schema.

The experts are ChatOpenAI models of a provider on loopback; what stands between is `der serve`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import ScriptedAgent
from provider_stub import provider, remote_model
from pydantic import BaseModel
from server_calls import client

from der_graph.nodes.langchain import as_expert
from der_graph.pool import pool_from
from der_graph.server import create_app, in_background

TEXT = "It is rainy in Ulm."
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
FLAT: Any = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
QUESTION = "How is the weather in Ulm?"
ASKED: Any = [{"role": "user", "content": QUESTION}]


class Report(BaseModel):
    """A report of the weather."""

    city: str
    rainy: bool


REPORT = Report(city="Ulm", rainy=True)


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """A provider that does as it is asked: calls the first tool once, and answers in the form asked for."""
    told = any(message["role"] == "tool" for message in body["messages"])
    if body.get("tools") and not told:
        function = body["tools"][0]["function"]
        args = REPORT.model_dump() if "rainy" in str(function["parameters"]) else {"city": "Ulm"}
        call = {"name": function["name"], "arguments": json.dumps(args)}
        calls = [{"id": "call_1", "type": "function", "function": call}]
        return {"content": None, "message": {"tool_calls": calls}, "finish": "tool_calls"}
    if body.get("response_format", {}).get("type") in ("json_schema", "json_object"):
        return {"content": REPORT.model_dump_json()}
    return {"content": TEXT}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with provider(reply) as stub:
        experts = [as_expert(remote_model(stub.url), name="remote", cost=1.0)]
        # Who cannot call tools is not asked where there are some.
        experts.append(as_expert(lambda text: TEXT, name="function", cost=0.1))
        pool = pool_from(experts, max_steps=1)
        with in_background(create_app(pool, ScriptedAgent("remote"))) as found:
            yield found


@pytest.fixture
def api(address: str) -> Iterator[Any]:
    with client(address) as each:
        yield each


# OpenAI's own, chat completions ----------------------------------------------------------------------------


def test_openai_text_and_stream(api: Any) -> None:
    done = api.chat.completions.create(model="der", messages=ASKED)
    assert done.choices[0].message.content == TEXT
    chunks = api.chat.completions.create(model="der", messages=ASKED, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT


def test_openai_tools_there_and_back(api: Any) -> None:
    done = api.chat.completions.create(model="der", messages=ASKED, tools=[TOOL])
    message = done.choices[0].message
    assert done.choices[0].finish_reason == "tool_calls"
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Ulm"})
    result = {"role": "tool", "tool_call_id": call.id, "content": "rainy"}
    talk = [*ASKED, message.model_dump(exclude_none=True), result]
    again = api.chat.completions.create(model="der", messages=talk, tools=[TOOL])
    assert again.choices[0].message.content == TEXT
    with api.chat.completions.stream(model="der", messages=ASKED, tools=[TOOL]) as stream:
        stream.until_done()
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments


def test_openai_structured_output(api: Any) -> None:
    done = api.chat.completions.parse(model="der", messages=ASKED, response_format=Report)
    assert done.choices[0].message.parsed == REPORT


# OpenAI's own, responses ------------------------------------------------------------------------------------


def test_responses_text_and_stream(api: Any) -> None:
    done = api.responses.create(model="der", input=QUESTION, instructions="Be brief.")
    assert (done.output_text, done.status) == (TEXT, "completed")
    assert (done.usage.input_tokens, done.usage.output_tokens) == (10, 5)
    with api.responses.stream(model="der", input=QUESTION) as stream:
        said = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == said == TEXT


def test_responses_tools_there_and_back(api: Any) -> None:
    done = api.responses.create(model="der", input=QUESTION, tools=[FLAT])
    (call,) = done.output
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "weather",
        {"city": "Ulm"},
    )
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rainy"}
    talk = [*ASKED, call.model_dump(exclude_none=True), result]
    assert api.responses.create(model="der", input=talk, tools=[FLAT]).output_text == TEXT
    with api.responses.stream(model="der", input=QUESTION, tools=[FLAT]) as stream:
        (streamed,) = stream.get_final_response().output
    assert streamed.arguments == call.arguments


def test_responses_structured_output(api: Any) -> None:
    assert (
        api.responses.parse(model="der", input=QUESTION, text_format=Report).output_parsed == REPORT
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"previous_response_id": "resp_1"}, "nothing is kept"),
        ({"background": True}, "background"),
        ({"input": []}, "at least one item"),
        ({"input": [{"type": "computer_call"}]}, "computer_call"),
        ({"tools": [{"type": "web_search"}]}, "must be 'function'"),
        ({"text": {"formt": {}}}, "did you mean 'format'"),
    ],
)
def test_responses_that_cannot_be_given(api: Any, fields: dict[str, Any], words: str) -> None:
    import openai

    given: dict[str, Any] = {"model": "der", "input": QUESTION}
    with pytest.raises(openai.BadRequestError, match=words):
        api.responses.create(**given, extra_body=fields) if "input" not in fields else (
            api.responses.create(model="der", **fields)
        )


# Others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("responses", [False, True])
def test_langchain(address: str, responses: bool) -> None:
    model = remote_model(f"{address}/v1", "der", use_responses_api=responses)

    def weather(city: str) -> str:
        """The weather of a city."""
        return "rainy"

    assert model.invoke(QUESTION).text == TEXT
    assert "".join(chunk.text for chunk in model.stream(QUESTION)) == TEXT
    with_tools = model.bind_tools([weather])
    assert with_tools.invoke(QUESTION).tool_calls[0]["args"] == {"city": "Ulm"}
    first, *others = with_tools.stream(QUESTION)
    assert sum(others, first).tool_calls[0]["args"] == {"city": "Ulm"}
    for method in ("function_calling", "json_schema"):
        assert model.with_structured_output(Report, method=method).invoke(QUESTION) == REPORT


@pytest.mark.filterwarnings("ignore:Item:UserWarning")  # of its own classes
def test_litellm(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network for it
    litellm = pytest.importorskip("litellm", reason="litellm does not go with these versions")
    ask: Callable[..., Any] = litellm.completion
    given: Any = {
        "model": "openai/der",
        "api_base": f"{address}/v1",
        "api_key": "none",
        "messages": ASKED,
    }
    assert ask(**given).choices[0].message.content == TEXT
    parts = [chunk.choices[0].delta.content or "" for chunk in ask(**given, stream=True)]
    assert "".join(parts) == TEXT
    called = ask(**given, tools=[TOOL]).choices[0].message.tool_calls[0]
    assert json.loads(called.function.arguments) == {"city": "Ulm"}
    form = ask(**given, response_format=Report).choices[0].message.content
    assert Report.model_validate_json(form) == REPORT


def test_instructor(address: str) -> None:
    instructor = pytest.importorskip(
        "instructor", reason="instructor does not go with these versions"
    )
    import openai

    with openai.OpenAI(base_url=f"{address}/v1", api_key="none") as api:
        for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON):
            patched = instructor.from_openai(api, mode=mode)
            given: Any = {"model": "der", "messages": ASKED, "response_model": Report}
            found = patched.chat.completions.create(**given)  # of a class made from ours
            assert found.model_dump() == REPORT.model_dump()
        partial = instructor.from_openai(api).chat.completions.create_partial(**given)
        assert list(partial)[-1].model_dump() == REPORT.model_dump()


def test_pydantic_ai(address: str) -> None:
    ai = pytest.importorskip("pydantic_ai", reason="needs pydantic-ai-slim[openai]")
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def weather(city: str) -> str:
        """The weather of a city."""
        return "rainy"

    async def all_four() -> None:
        made = OpenAIProvider(base_url=f"{address}/v1", api_key="none")
        model = OpenAIChatModel("der", provider=made)
        plain = ai.Agent(model)
        assert (await plain.run(QUESTION)).output == TEXT
        async with plain.run_stream(QUESTION) as stream:
            assert await stream.get_output() == TEXT
        done = await ai.Agent(model, tools=[weather]).run(QUESTION)
        assert done.output == TEXT
        kinds = [part.part_kind for message in done.all_messages() for part in message.parts]
        assert kinds == ["user-prompt", "tool-call", "tool-return", "text"]
        assert (await ai.Agent(model, output_type=Report).run(QUESTION)).output == REPORT
        await made.client.close()

    asyncio.run(all_four())


@pytest.mark.parametrize("protocol", ["chat", "responses"])
def test_openai_agents(address: str, protocol: str) -> None:
    agents = pytest.importorskip("agents", reason="needs openai-agents")
    import openai

    agents.set_tracing_disabled(True)

    @agents.function_tool  # type: ignore[untyped-decorator]
    def weather(city: str) -> str:
        """The weather of a city."""
        return "rainy"

    async def all_four() -> None:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as api:
            kinds = {
                "chat": agents.OpenAIChatCompletionsModel,
                "responses": agents.OpenAIResponsesModel,
            }
            model = kinds[protocol](model="der", openai_client=api)
            plain = agents.Agent(name="a", model=model)
            assert (await agents.Runner.run(plain, QUESTION)).final_output == TEXT
            streamed = agents.Runner.run_streamed(plain, QUESTION)
            kinds_seen = [event.type async for event in streamed.stream_events()]
            assert "raw_response_event" in kinds_seen
            assert streamed.final_output == TEXT
            done = await agents.Runner.run(
                agents.Agent(name="a", model=model, tools=[weather]), QUESTION
            )
            assert done.final_output == TEXT
            assert [item.type for item in done.new_items] == [
                "tool_call_item",
                "tool_call_output_item",
                "message_output_item",
            ]
            typed = agents.Agent(name="a", model=model, output_type=Report)
            assert (await agents.Runner.run(typed, QUESTION)).final_output == REPORT

    asyncio.run(all_four())


def test_the_description_names_what_clients_send(address: str) -> None:
    from server_calls import raw

    status, described = raw(address, "GET", "/openapi.json")
    assert status == 200
    chat = described["paths"]["/v1/chat/completions"]["post"]
    schema = chat["requestBody"]["content"]["application/json"]["schema"]
    assert {"messages", "tools", "response_format", "der"} <= set(schema["properties"])
    assert "/v1/responses" in described["paths"]
