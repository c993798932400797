"""Settings of one request: who may be asked, how knowledge is transferred; here and in training alike."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from fakes import ScriptedAgent, a_human, an_answer, scripted_expert, three_experts
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from toy import toy_agent, toy_rules, toy_source

from der_graph import DERContext, create_der_graph
from der_graph.errors import BudgetError, PoolError, UnknownExpertError
from der_graph.nodes.ktp import KTPTemplate
from der_graph.nodes.rules import COST_TOLERANCE, RouteRules
from der_graph.policies.training.mdp import Lockstep, run_routes
from der_graph.state import END_CHOICE, as_context

RULES = RouteRules(("small", "middle", "large"), (1.0, 2.0, 7.0), max_steps=3)


# Who may be asked ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "mask"),
    [
        ({"allowed_experts": ["small", "large"]}, [True, False, True]),
        ({"forbidden_experts": ["small"]}, [False, True, True]),
        ({"allowed_experts": ["small", "large"], "forbidden_experts": ("large",)}, [True, False, False]),
        ({"forbidden_experts": []}, [True, True, True]),
    ],
)  # fmt: skip
def test_a_request_says_who_may_be_asked(settings: dict[str, Any], mask: list[bool]) -> None:
    assert RULES.mask([], DERContext(**settings)) == ([*mask, False], "agent")


def test_when_all_that_are_allowed_have_answered_the_route_ends() -> None:
    context = DERContext(allowed_experts=["small"])
    assert RULES.mask([an_answer("small")], context, spent=1.0) == (
        [False] * 3 + [True],
        "not_allowed",
    )


def test_the_first_bound_that_leaves_nobody_is_the_reason() -> None:
    # "middle" and "large" are left; the request allows "middle", and 2 more would be over 2.5.
    context = DERContext(allowed_experts=["small", "middle"], max_cost=2.5)
    assert RULES.mask([an_answer("small")], context, spent=1.0)[1] == "max_cost"
    refused = RULES.mask([an_answer("small")], context, spent=1.0, refused=["middle"])
    assert refused == ([False] * 3 + [True], "not_approved")


def test_nobody_allowed_is_an_error() -> None:
    for context in (
        DERContext(allowed_experts=[]),
        DERContext(allowed_experts=["small"], forbidden_experts=["small"]),
    ):
        with pytest.raises(
            BudgetError, match=r"leave no expert to ask; the pool has: small, middle"
        ):
            RULES.mask([], context)


def test_the_cheapest_of_the_allowed_is_named() -> None:
    with pytest.raises(BudgetError, match="cheapest expert is 'middle' at 2"):
        RULES.mask([], DERContext(max_cost=0.5, forbidden_experts=["small"]))


@pytest.mark.parametrize("field", ["allowed_experts", "forbidden_experts"])
def test_an_unknown_name_is_an_error_that_lists_the_pool(field: str) -> None:
    graph = create_der_graph(three_experts()[0], agent=ScriptedAgent("small")).compile()
    with pytest.raises(
        UnknownExpertError,
        match=f"{field}: there is no expert 'smal'; the pool has: small, middle, large",
    ):
        graph.invoke(a_human("2 + 3?"), context={field: ["smal"]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"allowed_experts": "small"}, "allowed_experts is 'small'; it must be a list"),
        ({"forbidden_experts": [1]}, r"forbidden_experts is \[1\]; it must be a list"),
        ({"max_cost": "3"}, "max_cost is '3'; it must be a number"),
        ({"max_cost": Decimal(3)}, r"max_cost is Decimal\('3'\); it must be a number"),
        ({"stickiness": 2.0}, "stickiness=2.0: it must be from 0 to 1"),
        ({"max_steps": 1.5}, "max_steps=1.5: it must be a whole number"),
        ({"cost_weight": -1}, "cost_weight=-1: it must be a number >= 0"),
    ],
)
def test_settings_of_another_type_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        as_context(settings)


def test_a_limit_of_numpy_can_be_kept_in_a_checkpoint() -> None:
    graph = create_der_graph(three_experts()[0], agent=ScriptedAgent("small"))
    app = graph.compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    context = DERContext(deadline=np.float32(30), max_cost=np.float64(9))  # type: ignore[arg-type]
    assert app.invoke(a_human("2 + 3?"), thread, context=context)["messages"]


def test_the_graph_asks_whom_the_request_allows() -> None:
    experts, models = three_experts()
    graph = create_der_graph(experts, agent=ScriptedAgent("small", "large", "middle")).compile()
    result = graph.invoke(a_human("2 + 3?"), context={"forbidden_experts": ["small"]})
    assert [step["choice"] for step in result["route"]] == ["middle", "large", "END"]
    assert result["route"][0]["mask"]["small"] is False
    assert not models["small"].prompts
    # The next request is free again.
    assert graph.invoke(a_human("2 + 3?"))["route"][0]["choice"] == "small"


@given(
    allowed=st.none() | st.sets(st.sampled_from(RULES.names)),
    forbidden=st.none() | st.sets(st.sampled_from(RULES.names)),
    refused=st.sets(st.sampled_from(RULES.names)),
    deadline=st.none() | st.floats(0.1, 10),
    elapsed=st.floats(0, 10),
    seconds=st.tuples(*[st.none() | st.floats(0.1, 10)] * 3),
    max_cost=st.none() | st.floats(1, 10),
    spent=st.floats(0, 10),
)
def test_whoever_may_be_asked_is_within_every_bound(
    allowed: set[str] | None,
    forbidden: set[str] | None,
    refused: set[str],
    deadline: float | None,
    elapsed: float,
    seconds: tuple[float | None, ...],
    max_cost: float | None,
    spent: float,
) -> None:
    rules = RouteRules(RULES.names, RULES.costs, max_steps=9, repeat_experts=True, seconds=seconds)
    context = DERContext(
        max_cost=max_cost,
        deadline=deadline,
        allowed_experts=None if allowed is None else sorted(allowed),
        forbidden_experts=None if forbidden is None else sorted(forbidden),
    )
    mask, reason = rules.mask(
        [an_answer("small")], context, spent=spent, elapsed=elapsed, refused=refused
    )
    expected = [
        (allowed is None or name in allowed)
        and name not in (forbidden or ())
        and name not in refused
        and (deadline is None or (elapsed < deadline and elapsed + (usual or 0) <= deadline))
        and (max_cost is None or spent + cost <= max_cost * (1 + COST_TOLERANCE))
        for name, cost, usual in zip(RULES.names, RULES.costs, seconds, strict=True)
    ]
    assert mask == [*expected, True]
    assert (reason == "agent") == any(expected)


# How knowledge is transferred ---------------------------------------------------------------------


def test_a_request_may_have_a_template_of_its_own() -> None:
    experts, models = three_experts()
    own, model = scripted_expert("own", "8", ktp=KTPTemplate("raw", "{answer}!"))
    agent = ScriptedAgent("small", "large", "own")
    graph = create_der_graph([*experts, own], agent=agent).compile()
    result = graph.invoke(a_human("2 + 3?"), context={"ktp": "paper"})
    assert "another student answered" in models["large"].prompts[0][-1].text.lower()
    assert model.prompts[0][-1].text == "It is 7.!"  # an expert's own stays
    assert "Another student" in result["knowledge"]
    graph.invoke(a_human("2 + 3?"))
    assert "<earlier_answer>" in models["large"].prompts[1][-1].text


def test_an_unknown_template_is_an_error_before_anybody_is_asked() -> None:
    experts, models = three_experts()
    graph = create_der_graph(experts, agent=ScriptedAgent("small")).compile()
    with pytest.raises(PoolError, match="ktp 'papre' is unknown; choose one of: default, paper"):
        graph.invoke(a_human("2 + 3?"), context={"ktp": "papre"})
    assert not models["small"].prompts


# In training --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "context",
    [
        DERContext(forbidden_experts=("writer",), max_cost=2.6),
        DERContext(allowed_experts=("facts", "parrot"), deadline=1e6),
        DERContext(deadline=40.0),
    ],
)
def test_the_graph_takes_the_route_of_the_environment(context: DERContext) -> None:
    """The toy's own calls take next to no time; of the usual times one does not fit into 40 s."""
    source = toy_source(10)
    agent = toy_agent(source)
    usual = (19.0, 30.0, 19.0, 50.0)
    for expert, seconds in zip(source.experts, usual, strict=True):
        object.__setattr__(expert, "seconds", seconds)
    rules = RouteRules(
        tuple(e.name for e in source.experts),
        tuple(e.cost for e in source.experts),
        3,
        seconds=usual,
    )
    episodes = run_routes(agent, source, rules, context=context)
    der = create_der_graph(source.experts, agent=agent, max_steps=3).compile()
    asked = set()
    for example, episode in zip(source.examples, episodes, strict=True):
        state = der.invoke({"messages": [("user", example.question)]}, context=context)
        choices = [step["choice"] for step in state["route"]]
        assert choices == [*(rules.names[i] for i in episode.experts), END_CHOICE]
        asked |= set(choices)
    forbidden = rules.barred(context) | ({"parrot"} if context.deadline == 40.0 else set())
    assert not asked & forbidden


def test_a_route_in_training_is_charged_for_its_answers_time() -> None:
    source = toy_source(4)
    rules = toy_rules(source.experts)
    routes = Lockstep(source, rules, 1)
    routes.start(0, 0, DERContext(deadline=1e6))
    routes.advance([2])
    spent = routes.routes[0].answers[0]["seconds"]
    assert routes.situation(0).deadline_left == 1e6 - spent
    routes.start(0, 0, DERContext(**asdict(DERContext(deadline=1e-9, allowed_experts=["facts"]))))
    assert routes.mask(0) == [False, False, True, False, False]
    assert bool(routes.advance([2]).ended[0])  # its time is over


def test_a_saved_environment_keeps_its_requests() -> None:
    pytest.importorskip("stable_baselines3")
    from toy import toy_observer

    from der_graph.policies.training.env import Episodes, RequestConfig, RoutingVecEnv
    from der_graph.policies.training.reward import PRESETS

    source = toy_source(4)
    rules = toy_rules(source.experts)

    def make() -> RoutingVecEnv:
        episodes = Episodes(4, RequestConfig(), rules.costs, 0, rules.max_steps)
        return RoutingVecEnv(source, rules, toy_observer(source), PRESETS["default"], episodes, 1)

    env, other = make(), make()
    env.reset()
    env.lockstep.start(0, 1, DERContext(forbidden_experts=("parrot",), max_steps=2, max_cost=1.2))
    env.lockstep.advance([0])
    other.restore(json.loads(json.dumps(env.state())))
    assert other.lockstep.mask(0) == env.lockstep.mask(0) == [False, True, False, False, True]


def test_training_has_one_template() -> None:
    source = toy_source(2)
    with pytest.raises(PoolError, match=r"AnswerSource\(ktp=...\)"):
        Lockstep(source, toy_rules(source.experts), 1).start(0, 0, DERContext(ktp="paper"))


def test_a_misspelt_setting_is_an_error_that_names_the_nearest() -> None:
    graph = create_der_graph(three_experts()[0], agent=ScriptedAgent("small")).compile()
    wanted = "no setting 'max_cots'; did you mean 'max_cost'\\? allowed: max_cost, max_steps, .*"
    with pytest.raises(BudgetError, match=wanted):
        graph.invoke(a_human("2 + 3?"), context={"max_cots": 3})
    context = DERContext(max_cost=3, model_settings={"seed": 1})
    for same in (pickle.loads(pickle.dumps(context)), copy.deepcopy(context), replace(context)):
        assert same == context
    assert "max_cost" in str(graph.get_context_jsonschema())
