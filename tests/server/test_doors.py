"""The contract of the doors: whoever asks, and however, gets one and the same answer.

Every kind of expert (local, remote, function, graph) is asked through every door of `doors.py`, and the
answer's text, its tokens, its cost, the route, the reason of its end and the calls of tools are compared with
those of a plain `invoke`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import ErrorObject, Seen, open_doors
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph
from provider_stub import USAGE, Provider, piece, provider, remote_model
from tiny_models import save_tiny

from der_graph.nodes.expert import Expert
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability import StreamClosedError
from der_graph.nodes.reliability.charge import TokenPrices
from der_graph.nodes.reliability.threads import STOPS

LOCAL = ("local",)
REMOTE = ("remote", "remote cut", "remote thinking", "remote cached", "remote filtered")
FUNCTIONS = ("function", "async function", "counting function")
GRAPHS = ("graph", "async graph", "graph without tokens")
PRICES = TokenPrices(1.0, 2.0, 0.5)
TEXT = "It is 42 then"
CALL = {"name": "calculator", "arguments": '{"sum": "6 * 7"}'}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Computes.",
        "parameters": {
            "type": "object",
            "properties": {"sum": {"type": "string"}},
            "required": ["sum"],
        },
    },
}


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """A provider: what it says is told by the model's name."""
    kind = body["model"]
    if kind == "broken":
        return {"status": 500, "error": {"message": "out of order"}}
    if body.get("tools"):
        calls = [{"id": "call_1", "type": "function", "function": CALL}]
        return {"content": None, "message": {"tool_calls": calls}, "finish": "tool_calls"}
    if body.get("response_format"):
        return {"content": json.dumps({"answer": 42})}
    text = {"thinking": "<think>41? No.</think> It is 42.", "unsure": "I do not know."}
    found: dict[str, Any] = {"content": text.get(kind, TEXT)}
    found["finish"] = {"cut": "length", "filtered": "content_filter"}.get(kind, "stop")
    if kind == "cached":
        found["usage"] = {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        }
    return found


@pytest.fixture(scope="module")
def stub() -> Iterator[Provider]:
    with provider(reply) as made:
        yield made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def an_expert(kind: str, url: str, tiny: Path, name: str = "first") -> Expert:
    more: dict[str, Any] = {"name": name, "cost": 1.0, "token_prices": PRICES}
    if kind == "local":
        return as_expert(HuggingFaceChat(model=str(tiny), generation={"max_new_tokens": 6}), **more)
    if kind.startswith("remote"):
        return as_expert(remote_model(url, kind.split()[-1]), **more)
    if kind == "function":
        return as_expert(lambda text: f"You asked {text}", **more)
    if kind == "async function":

        async def later(text: str) -> str:
            await asyncio.sleep(0)
            return f"You asked {text}"

        return as_expert(later, **more)
    if kind == "counting function":
        usage: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        return as_expert(lambda text: AIMessage(TEXT, usage_metadata=usage), **more)
    return as_expert(a_graph(kind, url), **more)


def a_graph(kind: str, url: str) -> Any:
    model = remote_model(url, stream_usage=True)  # its owner's to say: it is not asked by us

    async def later(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    nodes: dict[str, Any] = {
        "graph": lambda state: {"messages": [model.invoke(state["messages"])]},
        "async graph": later,
        "graph without tokens": lambda state: {"messages": [AIMessage(TEXT)]},
    }
    builder = StateGraph(MessagesState)
    builder.add_node("model", nodes[kind])
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    return builder.compile()


def other() -> Expert:
    return as_expert(lambda text: "never asked", name="other", cost=9.0)


def the_same(
    experts: list[Expert], script: list[str], settings: Any = None, **pool_settings: Any
) -> Seen:
    """What `invoke` gives, where every door gives the same."""
    seen = {}
    with open_doors(experts, script, settings, **pool_settings) as doors:
        for name, door in doors.items():
            for expert in experts:
                expert.health.breaker.success()  # what failed through one door is asked by the next
            seen[name] = door()
    expected = seen["invoke"]
    assert {name: each for name, each in seen.items() if each != expected} == {}, expected
    return expected


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("kind", [*LOCAL, *REMOTE, *FUNCTIONS, *GRAPHS])
def test_every_door_gives_the_same(kind: str, steps: int, stub: Provider, tiny: Path) -> None:
    """With one step the first answer is the last for certain, and streamed as it comes."""
    expected = the_same([an_expert(kind, stub.url, tiny), other()], ["first"], max_steps=steps)
    assert expected.route == ["first"]
    assert expected.text
    finish = {"remote cut": "length", "remote filtered": "content_filter", "local": "length"}
    assert expected.finish == finish.get(kind, "stop")
    if kind in (*REMOTE, "graph", "async graph", "counting function"):
        assert expected.tokens == (10, 5)
        assert expected.details == ((4, 3) if kind == "remote cached" else (0, 0))
        dear = 8 * 1.0 if kind == "remote cached" else 10 * 1.0
        assert expected.cost == pytest.approx((dear + 5 * 2.0) / 1e6)
        assert expected.text == ("It is 42." if kind == "remote thinking" else TEXT)
    elif kind == "local":
        assert expected.tokens[1] == 6
    else:
        assert expected.cost == 1.0  # nobody counts: the most that a call costs


@pytest.mark.parametrize("kind", ["local", "remote", "remote thinking", "function", "graph"])
def test_tokens_as_they_come_are_the_answer(kind: str, stub: Provider, tiny: Path) -> None:
    experts = [an_expert(kind, stub.url, tiny), other()]
    whole = the_same(experts, ["first"], max_steps=1)
    assert the_same(experts, ["first"], max_steps=1, stream_tokens="live") == whole


@pytest.mark.parametrize("kind", ["local", "remote", "counting function", "graph"])
def test_a_draft_and_then_the_answer(kind: str, stub: Provider, tiny: Path) -> None:
    """The second reads what the first said; both are counted."""
    experts = [an_expert(kind, stub.url, tiny), an_expert("remote", stub.url, tiny, "second")]
    expected = the_same(experts, ["first", "second"])
    assert (expected.text, expected.route) == (TEXT, ["first", "second"])
    if kind != "local":
        assert expected.tokens == (20, 10)
        assert expected.cost == pytest.approx(2 * (10 * 1.0 + 5 * 2.0) / 1e6)


@pytest.mark.parametrize("kind", ["function", "remote", "graph"])
def test_one_that_fails_and_another_that_answers(kind: str, stub: Provider, tiny: Path) -> None:
    def fails(text: str) -> str:
        raise ValueError("out of order")

    broken = {
        "function": fails,
        "remote": remote_model(stub.url, "broken"),
        "graph": _failing_graph(stub.url),
    }
    first = as_expert(broken[kind], name="first", cost=1.0)
    second = an_expert("remote", stub.url, tiny, "second")
    expected = the_same([first, second], ["first", "second"])
    assert (expected.text, expected.route) == (TEXT, ["first", "second"])
    assert expected.tokens == (10, 5)
    # One that fails after an answer leaves the answer.
    turned = the_same([second, first], ["second", "first"])
    assert (turned.text, turned.route) == (TEXT, ["second", "first"])
    assert turned.cost == expected.cost


def _failing_graph(url: str) -> Any:
    model = remote_model(url, "broken")
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "model")
    return builder.compile()


def test_calls_of_tools(stub: Provider, tiny: Path) -> None:
    experts = [an_expert("remote", stub.url, tiny), other()]
    expected = the_same(experts, ["first"], {"tools": [TOOL]}, max_steps=1)
    assert expected.calls == [("calculator", {"sum": "6 * 7"})]
    assert (expected.finish, expected.text, expected.tokens) == ("tool_calls", "", (10, 5))


def test_answers_of_a_form(stub: Provider, tiny: Path) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "an", "schema": schema}}
    with_form = {"response_format": form}
    experts = [an_expert("remote", stub.url, tiny), other()]
    with open_doors(experts, ["first"], with_form, max_steps=1) as doors:
        del doors["server response"], doors["server response stream"]  # another name there
        seen = {name: door() for name, door in doors.items()}
    assert seen == dict.fromkeys(seen, seen["invoke"])
    assert json.loads(seen["invoke"].text) == {"answer": 42}


@pytest.mark.parametrize("kind", ["local", "remote", "remote cut", "function", "graph"])
def test_texts_that_end_the_answer(kind: str, stub: Provider, tiny: Path) -> None:
    """`stop` holds for every kind, whether its model knows it or not."""
    experts = [an_expert(kind, stub.url, tiny), other()]
    whole = the_same(experts, ["first"], max_steps=1)
    end = whole.text.split()[1]
    with open_doors(experts, ["first"], {"stop": [end]}, max_steps=1) as doors:
        del doors["server response"], doors["server response stream"]  # not in that protocol
        seen = {name: door() for name, door in doors.items()}
    assert seen == dict.fromkeys(seen, seen["invoke"])
    assert seen["invoke"].text == whole.text[: whole.text.index(end)].strip()
    assert seen["invoke"].finish == "stop"


def test_two_at_once(stub: Provider, tiny: Path) -> None:
    experts = [an_expert("remote", stub.url, tiny), other()]
    expected = the_same(experts, ["first"], parallel=2)
    assert (expected.text, expected.route) == (TEXT, ["other", "first"])
    assert expected.cost == pytest.approx(9.0 + (10 * 1.0 + 5 * 2.0) / 1e6)


def test_another_beside_one_that_takes_its_time(stub: Provider, tiny: Path) -> None:
    def until_stopped(messages: Any) -> Any:
        STOPS.get()[-1].wait(30)
        raise StreamClosedError

    async def until_cancelled(messages: Any) -> Any:
        await asyncio.sleep(30)

    slow = Expert("slow", RunnableLambda(until_stopped, until_cancelled), cost=4.0)
    expected = the_same([slow, an_expert("remote", stub.url, tiny)], ["slow"], hedge=0.001)
    assert (expected.text, expected.route) == (TEXT, ["slow", "first"])
    assert expected.cost == pytest.approx(4.0 + (10 * 1.0 + 5 * 2.0) / 1e6)
    assert expected.tokens == (10, 5)


FAULTS: dict[str, tuple[int, dict[str, Any]]] = {
    "rate_limit": (429, {"message": "slow down", "code": "rate_limit_exceeded"}),
    "context_length": (400, {"message": "too long", "code": "context_length_exceeded"}),
    "content_filter": (400, {"message": "filtered", "code": "content_filter"}),
    "auth": (401, {"message": "wrong key", "code": "invalid_api_key"}),
    "request": (400, {"message": "unknown parameter", "code": "unknown_parameter"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nobody_answers(fault: str) -> None:
    """Every door raises, and the provider is asked once."""
    import openai

    from der_graph.errors import AllExpertsFailedError

    status, error = FAULTS[fault]
    headers = {"retry-after": "60"} if status == 429 else {}
    reply = {"status": status, "error": error, "headers": headers}
    with provider(lambda body: reply) as stub:
        expert = as_expert(remote_model(stub.url), name="first", cost=1.0)
        with open_doors([expert], ["first"], max_steps=1) as doors:
            # Batches last: one of their calls may still be on its way when the other has failed.
            for name, door in sorted(doors.items(), key=lambda each: "batch" in each[0]):
                stub.requests.clear()
                expert.health.breaker.success()
                with pytest.raises(
                    (AllExpertsFailedError, openai.OpenAIError, ErrorObject)
                ) as seen:
                    door()
                assert _kind_of(seen.value) == fault, name
                if "batch" not in name:
                    assert len(stub.requests) == 1, name


def _kind_of(error: Any) -> str:
    """The kind of what a door raised: the failures of the experts, or what the server made of them."""
    if hasattr(error, "answers"):
        (answer,) = error.answers
        return str(answer["failure"])
    said = str(getattr(error, "body", None) or error)
    words = {
        "rate_limit_exceeded": "rate_limit",
        "context_length_exceeded": "context_length",
        "content_filter": "content_filter",
        "refused_by_experts": "request",
        "experts_failed": "auth",  # nothing of the server's keys is told
    }
    (kind,) = [kind for word, kind in words.items() if word in said]
    return kind


FENCED = '```json\n{"answer": 42}\n```'
LONE = "Is it 41? No.</think>\n\nIt is 42."
FORM: Any = {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize("stream_tokens", ["final", "live"])
@pytest.mark.parametrize(
    ("said", "settings", "text"), [(FENCED, FORM, '{"answer": 42}'), (LONE, {}, "It is 42.")]
)
def test_what_is_no_part_of_the_only_experts_answer(
    said: str, settings: dict[str, Any], text: str, stream_tokens: str
) -> None:
    with provider(said) as made:
        expert = as_expert(remote_model(made.url), name="only", cost=1.0)
        opened = open_doors([expert], ["only", "END"], settings, stream_tokens=stream_tokens)
        with opened as doors:
            ways = {k: v for k, v in doors.items() if not (settings and "response" in k)}
            assert {name: door().text for name, door in ways.items()} == dict.fromkeys(ways, text)


def test_a_thought_that_nobody_could_know_is_shown_once_and_then_no_more() -> None:
    """Its opening mark is in the prompt, so the first stream learns of it at its end."""
    with provider(LONE) as made:
        for way in ("stream", "astream", "ChatDER.stream", "ChatDER.astream", "server stream"):
            expert = as_expert(remote_model(made.url), name="only", cost=1.0)
            with open_doors([expert], ["only", "END"]) as doors:
                assert doors[way]().text == LONE  # what was shown is the answer, whole
                assert doors[way]().text == "It is 42."
                assert doors["invoke"]().text == "It is 42."


def test_an_answer_of_a_wrong_form_has_one_error_in_every_stream() -> None:
    with provider("No JSON") as made:
        expert = as_expert(remote_model(made.url), name="only", cost=1.0)
        with open_doors([expert], ["only", "END"], FORM) as doors:
            for way in ("server whole", "server stream"):
                with pytest.raises(Exception, match="no expert gave an answer of the form that"):
                    doors[way]()


def arguments_as_object(body: dict[str, Any]) -> dict[str, Any]:
    """A provider that calls a tool, as some servers do."""
    function = {"name": "calculator", "arguments": {"sum": "6 * 7"}}
    calls = [{"index": 0, "id": "call_1", "type": "function", "function": function}]
    ends = [piece({}, "tool_calls"), {"choices": [], "usage": USAGE}]
    return {
        "content": None,
        "message": {"tool_calls": calls},
        "finish": "tool_calls",
        "chunks": [piece({"role": "assistant", "content": None, "tool_calls": calls}), *ends],
    }


def test_arguments_of_tools_that_are_no_text() -> None:
    with provider(arguments_as_object) as made:
        model = remote_model(made.url)
        expert = as_expert(model, name="only", cost=1.0)
        with open_doors([expert], ["only", "END"], {"tools": [TOOL]}) as doors:
            seen = {name: door() for name, door in doors.items()}
    wanted = Seen("", (10, 5), 1.0, ["only"], "tool_calls", [("calculator", {"sum": "6 * 7"})])
    assert seen == dict.fromkeys(seen, wanted)
    assert type(model).__module__.startswith("langchain_openai")  # the caller's own is as it was


class InBlocks(BaseChatModel):
    """Says its text in blocks, as some providers do."""

    said: str

    @property
    def _llm_type(self) -> str:
        return "in-blocks"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        message = AIMessage([{"type": "text", "text": self.said, "index": 0}])
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for word in re.findall(r"\S+|\s+", self.said):
            block = {"type": "text", "text": word, "index": 0}
            yield ChatGenerationChunk(message=AIMessageChunk(content=[block]))


def test_text_in_blocks_is_streamed_as_it_is_answered() -> None:
    for said, settings, text in ((FENCED, FORM, '{"answer": 42}'), (f" {TEXT} \n", {}, TEXT)):
        expert = as_expert(InBlocks(said=said), name="only", cost=1.0)
        with open_doors([expert], ["only", "END"], settings) as doors:
            ways = {k: v for k, v in doors.items() if not (settings and "response" in k)}
            assert {name: door().text for name, door in ways.items()} == dict.fromkeys(ways, text)


def said_in_chunks(message: dict[str, Any], finish: str, chunks: list[dict[str, Any]]) -> Any:
    ends = [piece({}, finish), {"choices": [], "usage": USAGE}]
    reply = {"content": None, "message": message, "finish": finish, "chunks": [*chunks, *ends]}
    return lambda body: reply


CUT = '```json\n{"answer": 4'
NO_OBJECT = [
    {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "[1]"}}
]


@pytest.mark.parametrize(
    ("message", "finish", "deltas", "settings", "wanted"),
    [
        (
            {"refusal": "I cannot."},
            "stop",
            [{"refusal": "I can"}, {"refusal": "not."}],
            {},
            "refused to answer: I cannot|providers refused the conversation for its content",
        ),
        (
            {"tool_calls": NO_OBJECT},
            "tool_calls",
            [{"tool_calls": NO_OBJECT}],
            {"tools": [TOOL]},
            "called a tool with arguments that are no JSON object|no expert could answer; the server",
        ),
    ],
)
def test_what_a_provider_says_in_place_of_an_answer_is_one_error_everywhere(
    message: dict[str, Any], finish: str, deltas: list[Any], settings: dict[str, Any], wanted: str
) -> None:
    with provider(said_in_chunks(message, finish, [piece(each) for each in deltas])) as made:
        for way in ("invoke", "stream", "ChatDER.astream", "server whole", "server stream"):
            expert = as_expert(remote_model(made.url), name="only", cost=1.0)
            opened = open_doors([expert], ["only", "END"], settings)
            with opened as doors, pytest.raises(Exception, match=wanted):
                doors[way]()


def test_json_that_ends_at_the_limit_of_tokens_is_an_answer_that_was_cut() -> None:
    cut = [piece({"content": each}) for each in (CUT[:5], CUT[5:])]
    with provider(said_in_chunks({"content": CUT}, "length", cut)) as made:
        expert = as_expert(remote_model(made.url), name="only", cost=1.0)
        with open_doors([expert], ["only", "END"], FORM) as doors:
            ways = {k: v for k, v in doors.items() if "response" not in k}
            seen = {name: door() for name, door in ways.items()}
    wanted = Seen('{"answer": 4', (10, 5), 1.0, ["only"], "length", [])
    assert {k: each._replace(tokens=(10, 5)) for k, each in seen.items()} == dict.fromkeys(
        seen, wanted
    )
