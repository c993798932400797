"""Experts alone make a graph: the planner decides, bounds hold, decisions explain themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, chat_expert, route_of, scripted_expert, three_experts
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from der_graph import ChatDER, create_der_graph
from der_graph.errors import AgentError, BudgetError, ChatModelError, PoolError
from der_graph.nodes.langchain import as_expert
from der_graph.policies.agent import find_agent
from der_graph.policies.planning import Planner, planner_for
from der_graph.policies.planning.probing.sizes import size_in_name
from der_graph.pool import as_pool
from der_graph.state import DERContext


def seven(question: str) -> str:
    return "7"


def eight(question: str) -> str:
    return "8"


class NamedModel(FakeListChatModel):
    """A chat model that knows its name."""

    model_name: str = ""


def model(name: str, *answers: str) -> NamedModel:
    return NamedModel(model_name=name, responses=list(answers))


def test_functions_alone() -> None:
    der = create_der_graph([seven, eight]).compile()
    state = der.invoke(a_human("What is 3 + 4?"))
    assert state["route"][0]["choice"] == "seven"  # equal prices: the first
    assert state["answer"] in ("7", "8")


def test_chat_models_are_priced_by_the_size_in_their_names() -> None:
    models = [model("org/small-1b", "7"), model("big-70B-chat", "8"), model("mixtral:8x7b", "8")]
    pool = as_pool(models)
    assert pool.names == ("small-1b", "big-70B-chat", "8x7b")
    assert [expert.cost for expert in pool] == [1.0, 70.0, 56.0]
    assert pool.settings.cost_unit == "parameters_b"


def test_where_a_size_is_unknown_all_calls_cost_one() -> None:
    pool = as_pool([model("gpt-9", "7"), model("gpt-9", "7"), model("small-1b", "7")])
    assert pool.names == ("gpt-9", "gpt-9-2", "small-1b")
    assert [expert.cost for expert in pool] == [1.0] * 3
    assert pool.settings.cost_unit == "calls"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no experts; add at least one"),
        ("openai:gpt-4o", "give a list of chat models"),
        ([as_expert(seven, name="seven", cost=2.0), eight], "'eight' has no price.*as_expert"),
        ([3], "an expert cannot be made of int"),
        ([RunnableLambda], r"of the class RunnableLambda; give a model: RunnableLambda\(\.\.\.\)$"),
    ],
)
def test_what_is_no_pool(given: Any, message: str) -> None:
    with pytest.raises(PoolError, match=message):
        create_der_graph(given)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"parallel": "two"}, "parallel is 'two'; it must be a whole number"),
        ({"parallel": 1.5}, "parallel is 1.5"),
        ({"approve_above": "1"}, "approve_above is '1'; it must be a price"),
        ({"stickiness": "x"}, "stickiness is 'x'"),
        ({"max_steps": 1.5}, "max_steps is 1.5; it must be a whole number"),
        ({"max_steps": "3"}, "max_steps is '3'"),
        ({"state_schema": 3}, "state_schema 3 is not a TypedDict"),
    ],
)
def test_settings_of_the_graph_of_another_type(setting: Any, message: str) -> None:
    with pytest.raises(PoolError, match=message):
        create_der_graph([seven, eight], **setting)


def test_who_decides() -> None:
    experts, _ = three_experts()
    pool = as_pool(experts)
    agent = ScriptedAgent("large")
    assert find_agent(agent, pool) is agent
    assert isinstance(find_agent(None, pool), Planner)
    assert isinstance(find_agent("planner", pool), Planner)
    with pytest.raises(AgentError, match=r"agent is 3; give an agent, 'planner'"):
        find_agent(3, pool)  # type: ignore[arg-type]
    with pytest.raises(AgentError, match="no-such-folder"):
        create_der_graph(experts, agent="./no-such-folder")


def test_cheap_first_on_where_answers_differ_and_stop_where_they_agree() -> None:
    def route(*answers: str) -> list[str]:
        names = ("small", "middle", "large")
        costs = (1.0, 1.0, 1.0)
        experts = [
            chat_expert(name, answer, cost=cost)
            for name, answer, cost in zip(names, answers, costs, strict=True)
        ]
        return route_of(
            create_der_graph(experts, agent="planner").compile().invoke(a_human("What?"))
        )

    alike, apart = (
        route("It is 7.", "It is 7.", "It is 7."),
        route("It is 7.", "It is 8.", "It is 9."),
    )
    assert alike[-1] == apart[-1] == "END"
    assert len(apart) > len(alike)
    assert route("I do not know.", "It is 7.", "It is 7.")[1] != "END"


def test_each_decision_explains_itself_in_state_stream_and_trace() -> None:
    experts, _ = three_experts()
    der = create_der_graph(experts).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    events = list(der.stream(a_human("What?"), config, stream_mode="custom"))
    decisions = [event for event in events if event["type"] == "der.decision"]
    route = der.get_state(config).values["route"]
    assert [step.get("explanation") for step in route] == [d.get("explanation") for d in decisions]
    first = route[0]["explanation"]
    assert first["source"] == "prior"
    assert f"{route[0]['choice']} is right on {first['skill']:.2f}" in first["why"]
    assert json.loads(json.dumps(route)) == route
    assert len(json.dumps(first)) < 600


@given(
    budget=st.floats(1.0, 12.0),
    steps=st.integers(1, 4),
    allowed=st.sets(st.sampled_from(["small", "middle", "large"]), min_size=1),
    weight=st.floats(0.0, 5.0),
)
@settings(max_examples=25, deadline=None)
def test_bounds_hold(budget: float, steps: int, allowed: set[str], weight: float) -> None:
    context = DERContext(
        max_cost=budget, max_steps=steps, allowed_experts=sorted(allowed), cost_weight=weight
    )
    experts, models = three_experts()
    der = create_der_graph(experts).compile()
    cheapest = min({"small": 1.0, "middle": 2.0, "large": 7.0}[name] for name in allowed)
    if cheapest > budget:
        with pytest.raises(BudgetError, match="does not pay"):
            der.invoke(a_human("What?"), context=context)
        return
    state = der.invoke(a_human("What?"), context=context)
    assert state["cost"] <= budget * (1 + 1e-9)
    assert len(state["route"]) - 1 <= steps
    assert {name for name, each in models.items() if each.prompts} <= allowed


def test_hints_move_the_choice() -> None:
    experts = [
        scripted_expert(name, "7", skill=skill)[0] for name, skill in (("a", 0.3), ("b", 0.9))
    ]
    assert route_of(create_der_graph(experts).compile().invoke(a_human("What?")))[0] == "b"
    with pytest.raises(PoolError, match=r"expert 'a': skill on 'maths' is 3; it is the share"):
        scripted_expert("a", "7", skill={"maths": 3})


def test_one_chat_model() -> None:
    der = ChatDER(experts=[model("small-1b", "7"), model("large-70b", "7")])
    assert der.invoke("What?").text == "7"
    assert isinstance(der.agent, Planner)
    before = der._identifying_params["agent"]
    assert (
        before
        != ChatDER(experts=[model("small-2b", "7"), model("large-70b", "7")])._identifying_params[
            "agent"
        ]
    )
    with pytest.raises(ChatModelError, match="a pool and experts"):
        ChatDER(experts=[seven], pool=[eight])


def test_a_planner_has_the_price_that_it_is_given() -> None:
    assert planner_for(as_pool(three_experts()[0]), price=0.7).cost_weight == 0.7


@pytest.mark.parametrize(
    ("name", "size"),
    [("llama3.2:1b", 1.0), ("Qwen2.5-0.5B", 0.5), ("model_7b_v2", 7.0), ("gpt-4o", None), ("a4bit", None),
     ("claude-3-5-haiku", None), ("x-9999b", None)],
)  # fmt: skip
def test_sizes_in_names(name: str, size: float | None) -> None:
    assert size_in_name(name) == size
