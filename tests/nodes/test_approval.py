"""A person's approval of dear experts: what is asked, what is remembered, what is not done twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import ScriptedAgent, ScriptedModel, a_human, route_of, three_experts
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from der_graph import DERContext, create_der_graph
from der_graph.errors import BudgetError, PoolError


class Case:
    """A graph that asks before anything over 1.5, on a thread of its own."""

    def __init__(self, *script: str, above: float = 1.5, **settings: Any) -> None:
        experts, self.models = three_experts()
        self.agent = ScriptedAgent(*script)
        builder = create_der_graph(experts, agent=self.agent, approve_above=above, **settings)
        self.graph = builder.compile(checkpointer=InMemorySaver())
        self.config: RunnableConfig = {"configurable": {"thread_id": "1"}}

    def ask(self, given: Any = None, **settings: Any) -> dict[str, Any]:
        question: Any = a_human("2 + 3?") if given is None else Command(resume=given)
        result: dict[str, Any] = self.graph.invoke(question, self.config, **settings)
        return result

    @property
    def asked(self) -> list[int]:
        return [len(model.prompts) for model in self.models.values()]


def payload(result: dict[str, Any]) -> dict[str, Any]:
    (each,) = result["__interrupt__"]
    value: dict[str, Any] = each.value
    return value


def test_what_is_not_dear_needs_no_approval() -> None:
    case = Case("small", "middle", above=2.0)
    assert route_of(case.ask()) == ["small", "middle", "END"]


def test_the_person_is_told_what_it_is_about_in_plain_data() -> None:
    case = Case("small", "large")
    told = payload(case.ask())
    decision = told.pop("decision")
    assert told == {
        "type": "der.approval",
        "expert": "large",
        "cost": 7.0,
        "spent": 1.0,
        "question": "2 + 3?",
        "allowed": ["middle", "large", "END"],
    }
    assert (decision["step"], decision["choice"], decision["reason"]) == (1, "large", "agent")
    assert case.asked == [1, 0, 0]


def test_a_yes_goes_on_and_does_nothing_twice() -> None:
    case = Case("small", "large")
    case.ask()
    result = case.ask(True)
    assert route_of(result) == ["small", "large", "END"]
    assert result["answer"] == "It is 7."
    assert result["cost"] == 8.0
    assert case.asked == [1, 0, 1]
    assert len(case.agent.seen) == 3  # one decision each: small, large, END


def test_a_no_lets_the_agent_choose_another_and_is_remembered() -> None:
    case = Case("large", "large", above=3.0)
    assert payload(case.ask())["expert"] == "large"
    result = case.ask(False)
    assert route_of(result) == ["small", "middle", "END"]  # the script's stand-ins
    assert [step["mask"]["large"] for step in result["route"]] == [False, False, False]
    assert result["cost"] == 3.0
    assert case.asked == [1, 1, 0]
    # The next question is asked without a grudge.
    assert payload(case.ask())["expert"] == "large"


def test_after_a_no_a_dear_one_is_asked_about_again() -> None:
    case = Case("large", "middle")
    assert payload(case.ask())["expert"] == "large"
    case.agent.script = ("middle",)
    assert payload(case.ask(False))["expert"] == "middle"
    result = case.ask(True)
    assert route_of(result) == ["middle", "END"]
    assert result["route"][0]["mask"] == {
        "small": True,
        "middle": True,
        "large": False,
        "END": False,
    }
    assert case.asked == [0, 1, 0]


def test_when_all_that_is_left_was_refused_the_route_ends() -> None:
    case = Case("small", "large")
    case.ask()
    case.ask(False)  # then "middle"
    result = case.ask(False)
    assert route_of(result) == ["small", "END"]
    assert result["route"][1]["reason"] == "not_approved"
    assert result["answer"] == "It is 5."


def test_when_nobody_is_approved_there_is_no_answer() -> None:
    case = Case("large")
    case.ask(context=DERContext(allowed_experts=["large"]))
    with pytest.raises(BudgetError, match="none was approved of large"):
        case.ask(False, context=DERContext(allowed_experts=["large"]))


def test_a_name_asks_that_expert_instead() -> None:
    case = Case("small", "large")
    case.ask()
    result = case.ask({"expert": "middle"})
    assert route_of(result) == ["small", "middle", "END"]
    assert result["route"][1]["reason"] == "person"
    assert result["route"][1]["probabilities"]["large"] == 1.0  # what the agent had wanted
    assert case.asked == [1, 1, 0]


def test_the_stream_tells_that_another_expert_is_asked() -> None:
    case = Case("small", "large")
    case.ask()
    given: Any = Command(resume={"expert": "middle"})
    parts: list[Any] = list(case.graph.stream(given, case.config, stream_mode="custom"))
    told = [
        (part["type"], part.get("choice", part.get("expert")), part.get("reason")) for part in parts
    ]
    assert told[:3] == [
        ("der.decision", "middle", "person"),
        ("der.answer", "middle", None),
        ("der.decision", "END", "agent"),
    ]


def test_another_process_goes_on_from_the_checkpoint() -> None:
    saver = InMemorySaver()
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}

    def process() -> tuple[Any, ScriptedAgent, dict[str, ScriptedModel]]:
        experts, models = three_experts()
        agent = ScriptedAgent("small", "large")
        graph = create_der_graph(experts, agent=agent, approve_above=1.5)
        return graph.compile(checkpointer=saver), agent, models

    graph, _, _ = process()
    assert payload(graph.invoke(a_human("2 + 3?"), config))["expert"] == "large"
    graph, agent, models = process()
    result = graph.invoke(Command(resume=True), config)
    assert route_of(result) == ["small", "large", "END"]
    assert [len(model.prompts) for model in models.values()] == [0, 0, 1]
    assert len(agent.seen) == 1  # END; the decision for "large" came with the checkpoint


def test_the_person_may_end_the_route() -> None:
    case = Case("small", "large")
    case.ask()
    result = case.ask({"expert": "END"})
    assert route_of(result) == ["small", "END"]
    assert result["answer"] == "It is 5."


@pytest.mark.parametrize(
    "given",
    ["yes", 1, {"expert": "small"}, {"expert": "nobody"}, {"expert": ["large"]}, {"other": 1}],
)
def test_what_is_not_understood_is_asked_again(given: Any) -> None:
    """`small` was asked already, so it is no choice."""
    case = Case("small", "large")
    case.ask()
    again = payload(case.graph.invoke(Command(resume=given), case.config))
    assert again["expert"] == "large"
    assert "is not understood: resume with True" in again["error"]
    assert case.asked == [1, 0, 0]
    assert route_of(case.ask(True)) == ["small", "large", "END"]
    assert case.asked == [1, 0, 1]


def test_asynchronously_too() -> None:
    case = Case("small", "large")

    async def run() -> tuple[Any, Any]:
        first = await case.graph.ainvoke(a_human("2 + 3?"), case.config)
        return first, await case.graph.ainvoke(Command(resume={"expert": "middle"}), case.config)

    first, result = asyncio.run(run())
    assert payload(first)["expert"] == "large"
    assert route_of(result) == ["small", "middle", "END"]
    assert case.asked == [1, 1, 0]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_inside_a_parent_graph(asynchronous: bool) -> None:
    experts, models = three_experts()
    agent = ScriptedAgent("small", "large", "middle")
    der = create_der_graph(experts, agent=agent, approve_above=1.5).compile(name="der")
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("der", der)
    builder.add_edge(START, "der")
    graph = builder.compile(checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}

    def ask(given: Any) -> dict[str, Any]:
        result: dict[str, Any] = (
            asyncio.run(graph.ainvoke(given, config))
            if asynchronous
            else graph.invoke(given, config)
        )
        return result

    assert payload(ask(a_human("2 + 3?")))["expert"] == "large"
    assert payload(ask(Command(resume=False)))["expert"] == "middle"
    result = ask(Command(resume=True))
    assert [message.text for message in result["messages"]] == ["2 + 3?", "It is 6."]
    assert [len(model.prompts) for model in models.values()] == [1, 1, 0]
    assert len(agent.seen) == 3  # small, large (refused), middle; then there is nothing to choose


def test_waiting_is_seen_in_the_drawing_and_in_the_stream() -> None:
    case = Case("small", "large")
    assert "der_approval" in case.graph.get_graph().draw_mermaid()
    parts = list(case.graph.stream(a_human("2 + 3?"), case.config, stream_mode="updates"))
    assert "__interrupt__" in parts[-1]


def test_without_a_price_there_is_no_such_node() -> None:
    drawn = (
        create_der_graph(three_experts()[0], agent=ScriptedAgent())
        .compile()
        .get_graph()
        .draw_mermaid()
    )
    assert "approval" not in drawn


@pytest.mark.parametrize("price", [-1.0, float("nan")])
def test_a_price_is_a_number_from_zero(price: float) -> None:
    with pytest.raises(PoolError, match="approve_above is"):
        create_der_graph(three_experts()[0], agent=ScriptedAgent(), approve_above=price)
