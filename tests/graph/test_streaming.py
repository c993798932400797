"""Tokens, drafts, decisions and the end of a route, in every stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from fakes import ScriptedAgent, a_human, chat_expert, parent_of, scripted_expert
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from der_graph import DERContext, Expert, create_der_graph
from der_graph.errors import AllExpertsFailedError, BudgetError, ExpertError, PoolError

Modes = ["messages", "updates", "custom"]


def experts() -> list[Expert]:
    """Two that stream word by word, at 1 and 2."""
    return [chat_expert("small", "one draft"), chat_expert("large", "the final word", cost=2.0)]


def build(
    stream_tokens: Any = "final", script: tuple[str, ...] = ("small", "large"), **more: Any
) -> Any:
    agent = ScriptedAgent(*script)
    return create_der_graph(experts(), agent=agent, stream_tokens=stream_tokens, **more)


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
    graph = parent_of(build("all")) if nested else build("all").compile()
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
        "pool": DERContext(stream_tokens="live"),
        "max_steps": DERContext(stream_tokens="live", max_steps=2),
        "max_cost": DERContext(stream_tokens="live", max_cost=4.0),
        "allowed_experts": DERContext(stream_tokens="live", allowed_experts=["small", "large"]),
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


class Breaking(GenericFakeChatModel):
    """Says its first word and breaks off."""

    def _stream(self, *args: Any, **more: Any) -> Iterator[Any]:
        yield from list(super()._stream(*args, **more))[:1]
        raise RuntimeError("the line is dead")


def broken_off(stream_tokens: Any, *before: Expert) -> Any:
    broken = Expert("large", Breaking(messages=iter([AIMessage("half an answer")])), cost=1.0)
    names = [expert.name for expert in before]
    return create_der_graph(
        [*before, broken], agent=ScriptedAgent(*names, "large"), stream_tokens=stream_tokens
    ).compile()


def test_a_final_answer_that_fails_gives_way_to_the_one_before() -> None:
    graph = broken_off("final", chat_expert("small", "one draft"))
    heard = spoken(parts_of(graph, asynchronous=False, stream_mode=["messages", "custom"]))
    assert [(node, text) for node, text, _ in heard] == [("answer", "one draft")]


def test_a_reader_who_wants_it_live_is_told_where_an_answer_breaks_off() -> None:
    graph = broken_off("live", chat_expert("small", "one draft"))
    with pytest.raises(ExpertError, match=r"'large' broke off in mid-answer.*the line is dead"):
        parts_of(graph, asynchronous=False, stream_mode=["messages", "custom"])
    with pytest.raises(AllExpertsFailedError, match="large: RuntimeError: the line is dead"):
        parts_of(broken_off("final"), asynchronous=True, stream_mode=["messages"])


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


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("bound", ["bind", "with_config", "priced"])
def test_a_bound_model_is_heard_once(bound: str, asynchronous: bool) -> None:
    """A binding merges the configuration around it into its own, with whoever listens there."""
    expert = chat_expert("small", "the final word", cost=5.0)
    model: Any = expert.model
    given = {
        "bind": lambda: Expert("small", model.bind(), cost=1.0),
        "with_config": lambda: Expert("small", model.with_config(tags=["x"]), cost=1.0),
        "priced": lambda: Expert("small", model, cost=5.0, token_prices=(1.0, 2.0)),
    }
    der = create_der_graph([given[bound]()], agent=ScriptedAgent("small")).compile()
    parts = parts_of(der, asynchronous=asynchronous, stream_mode=Modes)
    assert [text for _, text, _ in spoken(parts)] == ["the final word"]


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
    heard = spoken(parts)
    assert [(node, text.split()) for node, text, _ in heard] == [
        ("small", ["one", "draft"]),
        ("large", ["the", "final", "word"]),
    ]
    # The closing message is the one whose tokens were heard: no front end shows it twice.
    final = next(e for e in events(parts) if e["type"] == "der.final")
    assert final["message_id"] == heard[-1][2]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(PoolError, match="stream_tokens is 'last'; allowed: 'all', 'final', 'live'"):
        build("last")
    with pytest.raises(BudgetError, match="stream_tokens is 'last'"):
        DERContext(stream_tokens=cast(Any, "last"))
