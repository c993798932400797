"""The graph in a larger one: fields and contexts of its user's own, messages, interrupts."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from fakes import (
    AskingAgent,
    ScriptedAgent,
    a_human,
    thread,
    three_experts,
)
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from der_graph import DERState, create_der_graph


class TopicState(DERState):
    """State with a field of the user's own."""

    topic: str
    notes: Annotated[list[str], operator.add]


def test_the_state_can_have_fields_of_the_users_own() -> None:
    experts, _ = three_experts()
    builder = create_der_graph(experts, agent=ScriptedAgent("small"), state_schema=TopicState)
    result = builder.compile().invoke({**a_human("2 + 3?"), "topic": "sums", "notes": ["one"]})
    assert result["topic"] == "sums"
    assert result["notes"] == ["one"]
    assert result["answer"] == "It is 5."


@dataclass
class ForeignContext:
    """The context of the parent graph, which knows nothing of this one's."""

    user: str = "ann"
    max_cost: float | None = None


def _parent(context_schema: type[Any], **settings: Any) -> Any:
    experts, _ = three_experts()
    der = create_der_graph(experts, agent=ScriptedAgent("small", "middle"), **settings).compile(
        name="der"
    )
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(
        MessagesState, context_schema=context_schema
    )
    builder.add_node("der", der)
    builder.add_node("after", lambda state: {"messages": [AIMessage("Anything else?")]})
    builder.add_edge(START, "der")
    builder.add_edge("der", "after")
    builder.add_edge("after", END)
    return builder


def test_as_a_subgraph_it_doubles_no_message() -> None:
    graph = _parent(ForeignContext).compile(checkpointer=InMemorySaver())
    config = thread()
    turn = ["2 + 3?", "It is 6.", "Anything else?"]
    first = graph.invoke(a_human("2 + 3?"), config)
    assert [message.text for message in first["messages"]] == turn
    second = graph.invoke(a_human("2 + 3?"), config)
    assert [message.text for message in second["messages"]] == turn * 2


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        (None, "It is 6."),
        (ForeignContext(), "It is 6."),
        (ForeignContext(max_cost=1.5), "It is 5."),
        ({"user": "bob", "max_cost": 1.5}, "It is 5."),
    ],
)
def test_a_parents_context_is_read_for_what_it_has(context: Any, answer: str) -> None:
    result = _parent(ForeignContext).compile().invoke(a_human("2 + 3?"), context=context)
    assert result["messages"][1].text == answer


def test_a_subgraphs_decisions_can_be_streamed_from_the_parent() -> None:
    graph = _parent(ForeignContext).compile()
    parts: list[Any] = list(graph.stream(a_human("2 + 3?"), stream_mode="custom", subgraphs=True))
    assert [part["type"] for _, part in parts] == ["der.decision", "der.answer"] * 2 + [
        "der.decision",
        "der.final",
    ]


def test_an_interrupt_in_a_subgraph_is_resumed_without_asking_an_expert_again() -> None:
    experts, models = three_experts()
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("der", create_der_graph(experts, agent=AskingAgent("small")).compile())
    builder.add_edge(START, "der")
    graph = builder.compile(checkpointer=InMemorySaver())
    config = thread()
    assert "__interrupt__" in graph.invoke(a_human("2 + 3?"), config)
    result = graph.invoke(Command(resume="large"), config)
    assert [message.text for message in result["messages"]] == ["2 + 3?", "It is 7."]
    assert len(models["small"].prompts) == 1
