"""Experts that ask a person, or hand over, in the middle of their work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, route_of, scripted_expert, thread
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from der_graph import ChatDER, create_der_graph
from der_graph.errors import ExpertError
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.server.engine import Account, outcome_of
from der_graph.state import END_CHOICE


def a_graph(name: str) -> Expert:
    """A graph that asks a person before it answers."""

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"{name} was told {interrupt(name)}")]}

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    return as_expert(builder.compile(name=f"graph-{name}"), name=name, cost=1.0)


def a_function(name: str) -> Expert:
    """The same as a function; the first of the pool is slow to ask."""

    def ask(text: str) -> str:
        time.sleep(0.1 if name == "a" else 0.0)
        return f"{name} was told {interrupt(name)}"

    return as_expert(ask, name=name, cost=1.0)


def told(graph: Any, asynchronous: bool, *, by_id: bool = True) -> tuple[list[str], dict[str, Any]]:
    """Whom a person was asked by, each answered by its name in capitals; and the state at the end."""

    def go_on(given: Any) -> Any:
        if asynchronous:
            return asyncio.run(graph.ainvoke(given, thread()))
        return graph.invoke(given, thread())

    asked: list[str] = []
    state = go_on(a_human("Who?"))
    while "__interrupt__" in state:
        (each,) = state["__interrupt__"]
        asked.append(each.value)
        answer = each.value.upper()
        state = go_on(Command(resume={each.id: answer} if by_id else answer))
    return asked, state


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("make", [a_graph, a_function])
def test_of_several_at_once_the_choice_asks_and_gets_what_it_was_told(
    make: Any, asynchronous: bool
) -> None:
    agent = ScriptedAgent("a", "b")
    builder = create_der_graph([make("a"), make("b")], agent=agent, parallel=2)
    asked, state = told(builder.compile(checkpointer=InMemorySaver()), asynchronous)
    assert asked == ["a", "b"]
    assert route_of(state) == ["a", "b", END_CHOICE]
    assert [step["answer"]["text"] for step in state["route"][:2]] == [
        "a was told A",
        "b was told B",
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_beside_one_that_asks_is_kept(asynchronous: bool) -> None:
    plain, model = scripted_expert("plain", "At once.", cost=1.0)
    agent = ScriptedAgent("a")
    builder = create_der_graph([a_graph("a"), plain], agent=agent, parallel=2)
    asked, state = told(builder.compile(checkpointer=InMemorySaver()), asynchronous)
    assert asked == ["a"]
    assert route_of(state) == ["plain", "a", END_CHOICE]
    assert [step["step"] for step in state["route"]] == [0, 1, 2]
    assert [step["spent"] for step in state["route"]] == [0.0, 1.0, 2.0]
    assert (state["answer"], state["cost"], len(model.prompts)) == ("a was told A", 2.0, 1)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_that_asks_beside_the_choice_is_left_out(asynchronous: bool) -> None:
    plain, _ = scripted_expert("plain", "At once.", cost=2.0)
    agent = ScriptedAgent("plain")
    builder = create_der_graph([plain, a_graph("a")], agent=agent, parallel=2)
    asked, state = told(builder.compile(checkpointer=InMemorySaver()), asynchronous)
    assert asked == []
    assert (route_of(state), state["cost"]) == (["plain", END_CHOICE], 2.0)
    assert [step["step"] for step in state["route"]] == [0, 1]


def test_one_that_is_asked_again_has_the_time_that_is_left() -> None:
    def slow(text: str) -> str:
        time.sleep(0.3)
        return "At once."

    def ask(text: str) -> str:
        return f"a was told {interrupt('a')}"

    experts = [as_expert(ask, name="a", cost=1.0), as_expert(slow, name="plain", cost=1.0)]
    builder = create_der_graph(experts, agent=ScriptedAgent("a"), parallel=2)
    sent: list[Any] = []
    node: Any = builder.nodes["der_together"].runnable

    def watched(given: Any, config: RunnableConfig) -> Any:
        sent.append(node.invoke(given, config))
        return sent[0]

    spec = builder.nodes["der_together"]
    builder.nodes["der_together"] = replace(spec, runnable=RunnableLambda(watched))
    graph = builder.compile(checkpointer=InMemorySaver())
    graph.invoke(a_human("Who?"), thread(), context={"deadline": 20.0})
    task = sent[0].goto.arg
    assert task["time_left"] < 19.75
    assert task["fallback"] == "answer"  # there is one by now


def test_a_call_that_was_left_out_costs_nothing() -> None:
    plain, _ = scripted_expert("plain", "At once.", cost=2.0)
    builder = create_der_graph([plain, a_graph("a")], agent=ScriptedAgent("plain"), parallel=2)
    account = Account(prices={"plain": 2.0, "a": 1.0})
    for event in builder.compile().stream(a_human("Who?"), stream_mode="custom"):
        account.note(event)
    assert account.cost == 2.0


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("answers", [True, False])
def test_a_backup_that_asks_is_left_out(answers: bool, asynchronous: bool) -> None:
    def slow(text: str) -> str:
        time.sleep(0.6)
        if not answers:
            raise ValueError("out of order")
        return "Late."

    experts = [as_expert(slow, name="slow", cost=1.0), a_function("b")]
    spare, _ = scripted_expert("spare", "Here.", cost=3.0)
    agent = ScriptedAgent("slow", "spare") if not answers else ScriptedAgent("slow")
    builder = create_der_graph([*experts, spare], agent=agent, hedge=0.3)
    asked, state = told(builder.compile(checkpointer=InMemorySaver()), asynchronous)
    assert asked == []
    assert route_of(state) == ["slow", *([] if answers else ["spare"]), END_CHOICE]
    assert state["answer"] == ("Late." if answers else "Here.")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("make", [a_graph, a_function])
def test_what_a_slow_expert_asks_is_told_to_no_backup(
    make: Any, by_id: bool, asynchronous: bool
) -> None:
    agent = ScriptedAgent("a")
    builder = create_der_graph([a_function("a"), make("b")], agent=agent, hedge=0.02)
    graph = builder.compile(checkpointer=InMemorySaver())
    asked, state = told(graph, asynchronous, by_id=by_id)
    assert asked == ["a"]
    assert (route_of(state), state["answer"]) == (["a", END_CHOICE], "a was told A")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_expert_cannot_hand_over(asynchronous: bool) -> None:
    def hand_over(state: MessagesState) -> Command[Any]:
        return Command(goto="billing", graph=Command.PARENT)

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("hand_over", hand_over)
    builder.add_edge(START, "hand_over")
    spare, _ = scripted_expert("spare", "Here.", cost=3.0)
    experts = [as_expert(builder.compile(name="agent"), name="agent", cost=1.0), spare]
    graph = create_der_graph(experts, agent=ScriptedAgent("agent", "spare")).compile()
    given: Any = a_human("Who?"), {"recursion_limit": 20}
    state = asyncio.run(graph.ainvoke(*given)) if asynchronous else graph.invoke(*given)
    assert route_of(state) == ["agent", "spare", END_CHOICE]
    failed = state["route"][0]["answer"]
    assert failed["failure"] == "error"
    assert "hands over to 'billing'" in failed["error"]


@pytest.mark.parametrize("make", [a_graph, a_function])
@pytest.mark.parametrize("way", ["invoke", "stream", "in a node"])
def test_a_chat_model_cannot_wait_for_a_person(way: str, make: Any) -> None:
    model = ChatDER(experts=[make("a")], agent=ScriptedAgent("a"))
    ways: dict[str, Callable[[], Any]] = {
        "invoke": lambda: model.invoke("Who?"),
        "stream": lambda: list(model.stream("Who?")),
        "in a node": lambda: in_a_node(model).invoke(a_human("Who?"), thread()),
    }
    with pytest.raises(ExpertError, match="nobody can be asked here"):
        ways[way]()


def in_a_node(model: ChatDER) -> Any:
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "model")
    return builder.compile(checkpointer=InMemorySaver())


def test_a_route_that_waits_for_a_person_is_no_answer_of_the_server() -> None:
    graph = create_der_graph([a_function("a")], agent=ScriptedAgent("a")).compile()
    with pytest.raises(ExpertError, match="nobody can be asked here"):
        outcome_of(graph.invoke(a_human("Who?")), 0.1)
