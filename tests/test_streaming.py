"""Tokens, drafts, decisions and the end of a route, in every stream; models stop when nobody listens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from fakes import ScriptedAgent, a_human, an_answer, chat_expert, scripted_expert
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from tiny_models import save_tiny

from der_graph import DERContext, Expert, create_der_graph
from der_graph.errors import BudgetError, PoolError
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.rules import RouteRules
from der_graph.nodes.stopping import stoppable
from der_graph.nodes.streaming import Audiences

Modes = ["messages", "updates", "custom"]


def experts() -> list[Expert]:
    """Two that stream word by word, at 1 and 2."""
    return [chat_expert("small", "one draft"), chat_expert("large", "the final word", cost=2.0)]


def build(
    stream_tokens: Any = "all", script: tuple[str, ...] = ("small", "large"), **more: Any
) -> Any:
    agent = ScriptedAgent(*script)
    return create_der_graph(experts(), agent=agent, stream_tokens=stream_tokens, **more)


def parent_of(builder: Any) -> Any:
    """The graph as a node of another one."""
    outer: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    outer.add_node("der", builder.compile(name="der"))
    outer.add_edge(START, "der")
    outer.add_edge("der", END)
    return outer.compile()


def parts_of(graph: Any, *, asynchronous: bool, **settings: Any) -> list[Any]:
    """Everything that a stream gives."""
    if not asynchronous:
        return list(graph.stream(a_human("Count"), **settings))

    async def collect() -> list[Any]:
        return [part async for part in graph.astream(a_human("Count"), **settings)]

    return asyncio.run(collect())


def spoken(parts: list[Any]) -> list[tuple[str, str, Any]]:
    """The `messages` stream: node, text, and the id of the message, joined by message."""
    joined: dict[str, list[str]] = {}
    for message, metadata in (part[-1] for part in parts if part[-2] == "messages"):
        if message.text:
            entry = joined.setdefault(message.id, [metadata["langgraph_node"], ""])
            entry[1] += message.text
    return [(node, text, message_id) for message_id, (node, text) in joined.items()]


def events(parts: list[Any]) -> list[dict[str, Any]]:
    return [part[-1] for part in parts if part[-2] == "custom"]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_all_tokens_say_who_speaks_at_which_step(asynchronous: bool, nested: bool) -> None:
    graph = parent_of(build()) if nested else build().compile()
    parts = parts_of(graph, asynchronous=asynchronous, stream_mode=Modes, subgraphs=True)
    heard = [
        (chunk.text, metadata["der_expert"], metadata["der_step"])
        for _, mode, part in parts
        if mode == "messages"
        for chunk, metadata in [part]
        if isinstance(chunk, AIMessageChunk) and chunk.text.strip()
    ]
    assert heard == [
        ("one", "small", 0),
        ("draft", "small", 0),
        ("the", "large", 1),
        ("final", "large", 1),
        ("word", "large", 1),
    ]
    assert [event["type"] for event in events(parts)] == [
        "der.decision",
        "der.answer",
        "der.decision",
        "der.answer",
        "der.decision",
        "der.final",
    ]
    assert [event.get("choice") for event in events(parts)][::2] == ["small", "large", "END"]
    own = [ns for ns, mode, _ in parts if mode != "updates"]
    assert all(bool(ns) == nested for ns in own)  # a subgraph's parts say where they come from
    updated = [
        next(iter(part)) for ns, mode, part in parts if mode == "updates" and bool(ns) == nested
    ]
    assert updated == ["der_agent", "small", "der_agent", "large", "der_agent", "answer"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_end_is_told_with_what_it_took(asynchronous: bool) -> None:
    parts = parts_of(build().compile(), asynchronous=asynchronous, stream_mode=["custom", "values"])
    final, state = events(parts)[-1], parts[-1][1]
    seconds = final.pop("seconds")
    assert final == {
        "type": "der.final",
        "expert": "large",
        "text": "the final word",
        "message_id": state["messages"][-1].id,
        "experts": ["small", "large"],
        "cost": 3.0,
    }
    assert seconds == pytest.approx(
        sum(step["seconds"] + (step["answer"] or {}).get("seconds", 0.0) for step in state["route"])
    )


def test_without_subgraphs_a_parents_stream_has_the_answer_alone() -> None:
    parts = parts_of(parent_of(build()), asynchronous=False, stream_mode=["messages", "updates"])
    assert [text for _, text, _ in spoken(parts)] == ["the final word"]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_drafts_are_kept_from_the_end_user(asynchronous: bool, nested: bool) -> None:
    """Nobody knows that `large` is the last until the agent says so: its tokens are drafts as well."""
    experts_ = [*experts(), chat_expert("third", "never asked")]
    builder = create_der_graph(
        experts_, agent=ScriptedAgent("small", "large"), stream_tokens="final"
    )
    graph = parent_of(builder) if nested else builder.compile()
    parts = parts_of(graph, asynchronous=asynchronous, stream_mode=Modes, subgraphs=True)
    (only,) = [each for each in spoken(parts) if each[0] != "der"]
    assert only[:2] == ("answer", "the final word")
    drafts = [event for event in events(parts) if event["type"] == "der.draft"]
    assert [(d["expert"], d["step"], d["text"]) for d in drafts if d["text"].strip()] == [
        ("small", 0, "one"),
        ("small", 0, "draft"),
        ("large", 1, "the"),
        ("large", 1, "final"),
        ("large", 1, "word"),
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("bound", ["pool", "max_steps", "max_cost", "allowed_experts"])
def test_an_answer_that_must_be_the_last_is_streamed_as_it_comes(
    asynchronous: bool, bound: str
) -> None:
    context = {
        "pool": DERContext(stream_tokens="final"),
        "max_steps": DERContext(stream_tokens="final", max_steps=2),
        "max_cost": DERContext(stream_tokens="final", max_cost=4.0),
        "allowed_experts": DERContext(stream_tokens="final", allowed_experts=["small", "large"]),
    }[bound]
    third = [] if bound == "pool" else [chat_expert("third", "never asked", cost=1.5)]
    graph = create_der_graph(
        [*experts(), *third], agent=ScriptedAgent("small", "large"), max_steps=4
    ).compile()
    parts = parts_of(
        graph, asynchronous=asynchronous, stream_mode=[*Modes, "values"], context=context
    )
    final = next(e for e in events(parts) if e["type"] == "der.final")
    # One message, from the expert's own node, with the id that the conversation keeps.
    assert spoken(parts) == [("large", "the final word", final["message_id"])]
    state = [part for mode, part in parts if mode == "values"][-1]
    assert state["messages"][-1].id == final["message_id"]
    chunks = [p for mode, p in parts if mode == "messages" and p[0].text.strip()]
    assert len(chunks) == 3  # word by word, and not again in one piece
    drafts = {event["expert"] for event in events(parts) if event["type"] == "der.draft"}
    assert drafts == {"small"}


def test_a_final_answer_that_fails_gives_way_to_the_one_before() -> None:
    class Breaking(GenericFakeChatModel):
        def _stream(self, *args: Any, **more: Any) -> Iterator[Any]:
            yield from list(super()._stream(*args, **more))[:1]
            raise RuntimeError("the line is dead")

    broken = Expert("large", Breaking(messages=iter([AIMessage("half an answer")])), cost=1.0)
    graph = create_der_graph(
        [chat_expert("small", "one draft"), broken],
        agent=ScriptedAgent("small", "large"),
        stream_tokens="final",
    ).compile()
    heard = spoken(parts_of(graph, asynchronous=False, stream_mode=["messages", "custom"]))
    assert [(node, text) for node, text, _ in heard] == [("large", "half"), ("answer", "one draft")]
    assert heard[0][2] != heard[1][2]  # another message: the last one counts


def test_a_second_turn_has_a_message_of_its_own() -> None:
    small = chat_expert("small", "first", "second")
    graph = create_der_graph([small], agent=ScriptedAgent("small"), stream_tokens="final").compile(
        checkpointer=InMemorySaver()
    )
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    heard = []
    for question in ("one?", "two?"):
        parts = list(graph.stream(a_human(question), config, stream_mode=["messages", "custom"]))
        heard += spoken(cast(Any, parts))
    texts = [message.text for message in graph.get_state(config).values["messages"]]
    assert texts == ["one?", "first", "two?", "second"]
    assert [text for _, text, _ in heard] == ["first", "second"]


def test_experts_of_several_models_are_drafts_until_the_end() -> None:
    """A chain or an agent may stream what is not its answer."""
    model = GenericFakeChatModel(messages=iter([AIMessage("thinking aloud")]))
    chain = model | (lambda message: AIMessage("the answer"))
    graph = create_der_graph(
        [Expert("chain", chain, cost=1.0)], agent=ScriptedAgent("chain"), stream_tokens="final"
    ).compile()
    parts = parts_of(graph, asynchronous=False, stream_mode=["messages", "custom"])
    assert [(node, text) for node, text, _ in spoken(parts)] == [("answer", "the answer")]
    drafts = [event["text"] for event in events(parts) if event["type"] == "der.draft"]
    assert "".join(drafts) == "thinking aloud"


def test_a_function_has_no_tokens_but_an_answer() -> None:
    expert, _ = scripted_expert("small", "It is 5.")
    graph = create_der_graph(
        [expert], agent=ScriptedAgent("small"), stream_tokens="final"
    ).compile()
    parts = parts_of(graph, asynchronous=False, stream_mode=["messages", "custom"])
    assert [(node, text) for node, text, _ in spoken(parts)] == [("answer", "It is 5.")]
    assert "der.draft" not in [event["type"] for event in events(parts)]


def test_a_request_decides_against_the_graph() -> None:
    parts = parts_of(
        build("final").compile(),
        asynchronous=False,
        stream_mode=["messages", "custom"],
        context=DERContext(stream_tokens="all"),
    )
    assert [node for node, _, _ in spoken(parts)] == ["small", "large", "answer"]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(PoolError, match="stream_tokens is 'last'; allowed: 'all', 'final'"):
        build("last")
    with pytest.raises(BudgetError, match="stream_tokens is 'last'"):
        DERContext(stream_tokens=cast(Any, "last"))


# Who hears an expert ---------------------------------------------------------------------------------------

RULES = RouteRules(names=("a", "b", "c"), costs=(1.0, 2.0, 4.0), max_steps=3)


@pytest.mark.parametrize(
    ("choice", "asked", "context", "audience"),
    [
        ("a", [], DERContext(), "draft"),
        ("a", [], DERContext(max_steps=1), "final"),
        ("c", ["a", "b"], DERContext(), "final"),
        ("b", ["a"], DERContext(), "draft"),
        ("b", ["a"], DERContext(max_cost=7.0), "draft"),  # 1 + 2 + 4 = 7: c may follow
        ("b", ["a"], DERContext(max_cost=6.9), "final"),
        ("b", ["a"], DERContext(forbidden_experts=["c"]), "final"),
        ("END", ["a"], DERContext(), "all"),
    ],
)
def test_only_what_nothing_can_follow_is_final(
    choice: str, asked: list[str], context: DERContext, audience: str
) -> None:
    answers = [an_answer(name) for name in asked]
    spent = float(len(asked))  # a at 1
    given = Audiences(RULES, "final").of(
        choice, answers, context, spent=spent, elapsed=0.0, refused=()
    )
    assert given == audience


def test_a_price_by_the_token_may_leave_room_for_another() -> None:
    by_token = Audiences(RULES, "final", frozenset({"b"}))
    settings: dict[str, Any] = {"spent": 1.0, "elapsed": 0.0, "refused": ()}
    answers = [an_answer("a")]
    # b at no more than 2, but perhaps at nothing: then c at 4 fits into 6.
    assert by_token.of("b", answers, DERContext(max_cost=6.0), **settings) == "draft"
    assert by_token.of("b", answers, DERContext(max_cost=4.9), **settings) == "final"
    voting = Audiences(RULES, "final", votes=True)
    assert voting.of("b", answers, DERContext(max_steps=2), **settings) == "draft"
    assert by_token.of("b", [], DERContext(), spent=0.0, elapsed=0.0, refused=("a", "c")) == "final"


# Nobody listens any more -----------------------------------------------------------------------------------


class Gate:
    """Lets a model go one step at a time, and counts its steps."""

    def __init__(self, chat: HuggingFaceChat) -> None:
        self.steps = 0
        self.closing = threading.Event()
        self.loaded = chat.load()
        self._forward = self.loaded.model.forward
        self.loaded.model.forward = self

    def __call__(self, *args: Any, **given: Any) -> Any:
        self.steps += 1
        if self.steps > 3:
            self.closing.wait(
                10
            )  # the fourth step runs when the stream has been closed, not before
        return self._forward(*args, **given)

    def settled(self) -> int:
        """Steps taken once the model is idle."""
        self.loaded.run(lambda: None)
        return self.steps


@pytest.fixture
def local(tmp_path: Path) -> tuple[Any, Gate]:
    """A graph with one local model that would speak for 60 tokens."""
    chat = HuggingFaceChat(model=str(save_tiny(tmp_path / "m")), generation={"max_new_tokens": 60})
    expert = Expert("tiny", chat, cost=1.0)
    return create_der_graph([expert], agent=ScriptedAgent("tiny")), Gate(chat)


@pytest.fixture
def told(local: tuple[Any, Gate], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the model go on as soon as it has been told that the stream is closed."""

    class Told(threading.Event):
        def set(self) -> None:
            super().set()
            local[1].closing.set()

    monkeypatch.setattr("der_graph.nodes.stopping.Event", Told)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("nested", [False, True])
def test_closing_a_stream_stops_the_model(local: tuple[Any, Gate], nested: bool) -> None:
    builder, gate = local
    if nested:
        stream: Any = stoppable(
            parent_of(builder).stream(a_human("hello"), stream_mode="messages", subgraphs=True)
        )
    else:
        stream = builder.compile().stream(a_human("hello"), stream_mode="messages")
    next(stream)
    stream.close()
    assert gate.settled() <= 4  # the one that ran is the last


def test_closing_an_asynchronous_stream_stops_the_model(local: tuple[Any, Gate]) -> None:
    builder, gate = local

    async def read_one() -> None:
        stream: Any = builder.compile().astream(a_human("hello"), stream_mode="messages")
        await anext_(stream)
        await stream.aclose()
        gate.closing.set()

    asyncio.run(read_one())
    assert gate.settled() <= 4


async def anext_(stream: Any) -> Any:
    return await stream.__anext__()


@pytest.mark.parametrize("streaming", [False, True])
def test_cancelling_a_task_stops_the_model(local: tuple[Any, Gate], streaming: bool) -> None:
    builder, gate = local
    graph = builder.compile()

    async def read() -> None:
        if streaming:
            async for _ in graph.astream(a_human("hello"), stream_mode="messages"):
                pass
        else:
            await graph.ainvoke(a_human("hello"))

    async def cancelled() -> None:
        task = asyncio.ensure_future(read())
        while gate.steps < 4:  # it waits at the gate
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.closing.set()

    asyncio.run(cancelled())
    assert gate.settled() <= 4


@pytest.mark.usefixtures("told")
def test_what_was_given_up_is_no_answer(local: tuple[Any, Gate]) -> None:
    """A run that goes on later asks the expert again: half an answer is none."""
    builder, gate = local
    graph = builder.compile(checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    stream: Any = graph.stream(a_human("hello"), config, stream_mode="messages")
    next(stream)
    stream.close()
    assert gate.settled() <= 4
    assert not graph.get_state(config).values.get("route")
    assert graph.get_state(config).next == ("tiny",)
    result = graph.invoke(None, config)
    undisturbed = builder.compile().invoke(a_human("hello"))
    assert result["answer"] == undisturbed["answer"]
    assert result["route"][0]["answer"]["output_tokens"] > 4
    assert [step["choice"] for step in result["route"]] == ["tiny", "END"]


def test_any_model_that_streams_is_left_at_its_next_token(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    left = threading.Event()

    class Told(threading.Event):
        def set(self) -> None:
            super().set()
            left.set()

    class Endless(GenericFakeChatModel):
        def _stream(self, *args: Any, **more: Any) -> Iterator[Any]:
            for chunk in super()._stream(*args, **more):
                if len(given) == 3:
                    assert left.wait(10)
                given.append(str(chunk.text))
                yield chunk

    monkeypatch.setattr("der_graph.nodes.stopping.Event", Told)
    expert = Expert("far", Endless(messages=iter([AIMessage(" ".join(["word"] * 50))])), cost=1.0)
    graph = create_der_graph([expert], agent=ScriptedAgent("far")).compile()
    stream: Any = graph.stream(a_human("hello"), stream_mode="messages")
    next(stream)
    stream.close()
    assert len(given) <= 4


def test_errors_and_results_pass_through() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    stream = stoppable(numbers())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="no more"):
        next(stream)
    assert list(stoppable([1, 2])) == [1, 2]
