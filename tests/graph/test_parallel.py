"""A first step that asks several experts at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, route_of, scripted_expert
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from der_graph import DERContext, create_der_graph
from der_graph.errors import ExpertError, PoolError
from der_graph.nodes.decision import Choice
from der_graph.nodes.expert import Expert
from der_graph.state import END_CHOICE, Situation, elapsed


class Ranking(ScriptedAgent):
    """Finds the experts so probable, in order; ends when two have answered, or when it has no choice."""

    def __init__(self, *chances: float) -> None:
        super().__init__()
        self.chances = chances

    def _choose(self, situation: Situation) -> Choice:
        free = [c if m else 0.0 for c, m in zip(self.chances, situation.mask, strict=False)]
        total = sum(free)
        if len(situation.answers) >= 2 or not total:
            return Choice(len(free), [*([0.0] * len(free)), 1.0])
        return Choice(free.index(max(free)), [*(c / total for c in free), 0.0])


def pool() -> tuple[list[Expert], dict[str, Any]]:
    made = {
        n: scripted_expert(n, f"from {n}", cost=c) for n, c in [("a", 1.0), ("b", 2.0), ("c", 4.0)]
    }
    return [expert for expert, _ in made.values()], {n: model for n, (_, model) in made.items()}


def test_the_two_most_probable_are_asked_and_the_choice_counts() -> None:
    experts, models = pool()
    agent = Ranking(0.5, 0.2, 0.3)
    der = create_der_graph(experts, agent=agent, parallel=2).compile()
    result = der.invoke(a_human("Who?"))
    assert route_of(result) == ["c", "a", END_CHOICE]
    assert [step["reason"] for step in result["route"]] == ["parallel", "agent", "agent"]
    assert [step["step"] for step in result["route"]] == [0, 1, 2]
    assert [step["spent"] for step in result["route"]] == [0.0, 4.0, 5.0]
    assert result["cost"] == 5.0
    assert result["answer"] == "from a"
    assert result["messages"][-1].response_metadata["der_experts"] == ["c", "a"]
    assert models["b"].prompts == []
    # Neither has seen the other's answer; the agent sees both, as of two calls.
    assert [m.text for m in models["a"].prompts[0]] == ["Who?"]
    assert [m.text for m in models["c"].prompts[0]] == ["Who?"]
    assert [answer["expert"] for answer in agent.seen[1].answers] == ["c", "a"]
    assert "from a" in result["knowledge"]


def test_asynchronous_routes_are_the_same() -> None:
    experts, _ = pool()
    der = create_der_graph(experts, agent=Ranking(0.5, 0.2, 0.3), parallel=3).compile()
    result = asyncio.run(der.ainvoke(a_human("Who?")))
    assert route_of(result) == ["b", "c", "a", END_CHOICE]
    assert result["cost"] == 7.0


@pytest.mark.parametrize(
    ("bounds", "asked"),
    [
        ({"max_cost": 5.0}, ["c", "a", END_CHOICE]),
        ({"max_cost": 4.9}, ["b", "a", END_CHOICE]),  # c no longer fits beside a
        ({"max_cost": 2.9}, ["a", END_CHOICE]),
        ({"forbidden_experts": ["c"]}, ["b", "a", END_CHOICE]),
        ({"max_steps": 1}, ["a", END_CHOICE]),
    ],
)
def test_the_bounds_hold(bounds: dict[str, Any], asked: list[str]) -> None:
    experts, _ = pool()
    der = create_der_graph(experts, agent=Ranking(0.5, 0.2, 0.3), parallel=2).compile()
    result = der.invoke(a_human("Who?"), context=DERContext(**bounds))
    assert route_of(result) == asked
    assert result["cost"] <= bounds.get("max_cost", 5.0)


def test_beside_an_agent_that_is_certain_the_cheapest_is_asked() -> None:
    experts, _ = pool()
    der = create_der_graph(experts, agent=ScriptedAgent("c"), parallel=2).compile()
    assert route_of(der.invoke(a_human("Who?"))) == ["a", "c", END_CHOICE]


def test_dear_experts_are_left_to_a_person() -> None:
    experts, models = pool()
    agent = Ranking(0.5, 0.2, 0.3)
    der = create_der_graph(experts, agent=agent, parallel=2, approve_above=3.0).compile()
    assert route_of(der.invoke(a_human("Who?"))) == ["b", "a", END_CHOICE]
    assert models["c"].prompts == []


def test_a_failure_beside_the_choice_is_recorded() -> None:
    experts, _ = pool()
    experts[2], _ = scripted_expert("c", ValueError("out of order"), cost=4.0)
    agent = Ranking(0.5, 0.2, 0.3)
    der = create_der_graph(experts, agent=agent, parallel=2).compile()
    result = der.invoke(a_human("Who?"))
    assert result["answer"] == "from a"
    assert result["route"][0]["answer"]["error"] == "ValueError: out of order"
    strict = create_der_graph(experts, agent=agent, parallel=2, on_error="raise").compile()
    with pytest.raises(ExpertError, match="expert 'c': ValueError"):
        strict.invoke(a_human("Who?"))


def test_the_time_of_the_route_is_that_of_the_slowest() -> None:
    both = threading.Barrier(2)

    def meeting(name: str, seconds: float) -> Expert:
        def wait(_: Any) -> AIMessage:
            both.wait(30)  # the other one is asked at the same time
            time.sleep(seconds)
            return AIMessage(f"from {name}")

        return Expert(name, RunnableLambda(wait), cost=1.0)

    experts = [meeting("a", 0.0), meeting("b", 0.1)]
    der = create_der_graph(experts, agent=Ranking(0.6, 0.4), parallel=2).compile()
    route = der.invoke(a_human("Who?"))["route"]
    assert [step["answer"]["error"] for step in route[:2]] == [None, None]
    seconds = [step["answer"]["seconds"] for step in route[:2]]
    decisions = sum(step["seconds"] for step in route)
    assert elapsed(route) == pytest.approx(max(seconds) + decisions)


def test_events_of_both() -> None:
    experts, _ = pool()
    der = create_der_graph(experts, agent=Ranking(0.5, 0.2, 0.3), parallel=2).compile()
    events = list(der.stream(a_human("Who?"), stream_mode="custom"))
    told = [(e["type"], e.get("choice") or e.get("expert")) for e in events]
    assert told[:2] == [("der.decision", "c"), ("der.decision", "a")]
    assert sorted(told[2:4]) == [("der.answer", "a"), ("der.answer", "c")]


def test_a_number_below_one_is_refused() -> None:
    experts, _ = pool()
    with pytest.raises(PoolError, match="parallel is 0"):
        create_der_graph(experts, agent=Ranking(1.0), parallel=0)


@pytest.mark.parametrize("choice", ["slow", "bad"])
def test_where_one_ends_the_run_nobody_waits_for_the_others(choice: str) -> None:
    """As with Ctrl-C."""
    go, asked, gave_up = threading.Event(), threading.Event(), threading.Event()

    def slow(_: Any) -> AIMessage:
        asked.set()
        if not go.wait(30):
            gave_up.set()
        return AIMessage("late")

    def fail(_: Any) -> AIMessage:
        asked.wait(30)
        raise ValueError("out of order")

    experts = [Expert(n, RunnableLambda(f), cost=1.0) for n, f in (("slow", slow), ("bad", fail))]
    agent = ScriptedAgent(choice)
    der = create_der_graph(experts, agent=agent, parallel=2, on_error="raise").compile()
    with pytest.raises(ExpertError, match="expert 'bad'"):
        der.invoke(a_human("Who?"))
    assert not gave_up.is_set()
    go.set()


def test_where_one_ends_an_asynchronous_run_the_others_are_cancelled() -> None:
    ended: list[str] = []

    async def slow(_: Any) -> AIMessage:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("slow")
        return AIMessage("late")

    async def fail(_: Any) -> AIMessage:
        await asyncio.sleep(0.01)
        raise ValueError("out of order")

    async def main() -> None:
        pair = (("slow", slow), ("bad", fail))
        experts = [Expert(name, RunnableLambda(ask), cost=1.0) for name, ask in pair]
        agent = ScriptedAgent("slow")
        der = create_der_graph(experts, agent=agent, parallel=2, on_error="raise").compile()
        with pytest.raises(ExpertError, match="expert 'bad'"):
            await der.ainvoke(a_human("Who?"))
        await asyncio.sleep(0)
        assert ended == ["slow"]

    asyncio.run(main())
