"""Threads: turns after one another, runs that broke off, interrupts, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import (
    AskingAgent,
    FailingAgent,
    ScriptedAgent,
    a_human,
    route_of,
    thread,
    three_experts,
)
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, interrupt

from der_graph import Expert, create_der_graph
from der_graph.policies.planning import Learner, Planner

# Turns --------------------------------------------------------------------------------------------


def test_a_second_turn_on_a_thread_starts_a_new_route() -> None:
    experts, models = three_experts()
    graph = create_der_graph(experts, agent=ScriptedAgent("small")).compile(
        checkpointer=InMemorySaver()
    )
    config = thread()
    graph.invoke(a_human("2 + 3?"), config)
    second = graph.invoke(a_human("2 + 3?"), config)
    assert route_of(second) == ["small", "END"]
    assert second["cost"] == 1.0
    assert [message.type for message in second["messages"]] == ["human", "ai", "human", "ai"]
    assert [message.text for message in models["small"].prompts[1]] == [
        "2 + 3?",
        "It is 5.",
        "2 + 3?",
    ]


def test_a_turn_after_a_failed_one_starts_a_new_route() -> None:
    experts, _ = three_experts()
    graph = create_der_graph(
        experts, agent=FailingAgent(1, "small", "large"), on_error="raise"
    ).compile(checkpointer=InMemorySaver())
    config = thread()
    with pytest.raises(ConnectionError):
        graph.invoke(a_human("2 + 3?"), config)
    result = graph.invoke(a_human("And 3 + 4?"), config)
    assert route_of(result) == ["small", "large", "END"]
    assert result["cost"] == 8.0


def test_asking_with_the_same_message_again_starts_a_new_route() -> None:
    experts, _ = three_experts()
    graph = create_der_graph(experts, agent=ScriptedAgent("small")).compile(
        checkpointer=InMemorySaver()
    )
    config = thread()
    question = {"messages": [HumanMessage("2 + 3?", id="fixed")]}
    assert route_of(graph.invoke(question, config)) == ["small", "END"]
    assert route_of(graph.invoke(question, config)) == ["small", "END"]


def test_what_a_checkpoint_holds_is_what_was_written() -> None:
    # LANGGRAPH_STRICT_MSGPACK is on: anything but plain data and messages would be refused.
    experts, _ = three_experts()
    graph = create_der_graph(experts, agent=ScriptedAgent("small", "large")).compile(
        checkpointer=InMemorySaver()
    )
    config = thread()
    result = graph.invoke(a_human("2 + 3?"), config)
    values = graph.get_state(config).values
    assert values["route"] == result["route"]
    assert values["answer"] == result["answer"]
    assert len(list(graph.get_state_history(config))) >= 6


# Broken off and interrupted -----------------------------------------------------------------------


def test_a_run_that_broke_off_in_the_policy_goes_on_from_there() -> None:
    experts, models = three_experts()
    graph = create_der_graph(
        experts, agent=FailingAgent(1, "small", "large"), on_error="raise"
    ).compile(checkpointer=InMemorySaver())
    config = thread()
    with pytest.raises(ConnectionError):
        graph.invoke(a_human("2 + 3?"), config)
    result = graph.invoke(None, config)
    assert route_of(result) == ["small", "large", "END"]
    assert [len(model.prompts) for model in models.values()] == [1, 0, 1]


def test_an_interrupt_in_the_agent_is_resumed_without_asking_an_expert_again() -> None:
    experts, models = three_experts()
    graph = create_der_graph(experts, agent=AskingAgent("small")).compile(
        checkpointer=InMemorySaver()
    )
    config = thread()
    paused = graph.invoke(a_human("2 + 3?"), config)
    assert [each.value for each in paused["__interrupt__"]] == [{"after": "It is 5."}]
    result = graph.invoke(Command(resume="large"), config)
    assert route_of(result) == ["small", "large", "END"]
    assert [len(model.prompts) for model in models.values()] == [1, 0, 1]


def test_an_interrupt_in_an_expert_is_not_a_failure() -> None:
    person = Expert(
        "person", RunnableLambda(lambda messages: interrupt(messages[-1].text)), cost=0.0
    )
    graph = create_der_graph([person], agent=ScriptedAgent("person")).compile(
        checkpointer=InMemorySaver()
    )
    config = thread()
    assert graph.invoke(a_human("2 + 3?"), config)["__interrupt__"][0].value == "2 + 3?"
    assert graph.invoke(Command(resume="five"), config)["answer"] == "five"


def test_a_route_ends_whatever_its_explanations_hold() -> None:
    class Explaining(ScriptedAgent):
        def decide(self, situations: Any) -> Any:
            told: Any = {0: 0.5, "END": {1}, ("a", "b"): object()}
            return [replace(choice, explanation=told) for choice in super().decide(situations)]

    experts, _ = three_experts()
    graph = create_der_graph(experts, agent=Explaining("small")).compile()
    assert graph.invoke(a_human("2 + 3?"))["messages"][-1].id.startswith("der-")


def test_a_route_whose_end_is_replayed_is_one_route() -> None:
    experts, _ = three_experts()
    store = InMemoryStore()
    learner = Learner(Planner.from_prior(("small", "middle", "large"), (1.0, 2.0, 7.0)), store)
    graph = create_der_graph(experts, agent=learner).compile(checkpointer=InMemorySaver())
    state = graph.invoke(a_human("2 + 3?"), thread())
    key = state["messages"][-1].id
    learner.rate(key, 0.5)
    last, *_, first = [s for s in graph.get_state_history(thread()) if s.next == ("der_agent",)]
    assert graph.invoke(None, last.config)["messages"][-1].id == key  # the agent ends it again
    learner.flush()
    assert [(route.key, route.score) for route in learner.memory.routes()] == [(key, 0.5)]
    assert graph.invoke(None, first.config)["messages"][-1].id != key  # everybody is asked again
    learner.flush()
    assert len(learner.memory.routes()) == 2
