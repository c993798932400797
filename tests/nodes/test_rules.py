from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import an_answer
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda

from der_graph import Expert
from der_graph.errors import AllExpertsFailedError, BudgetError, PoolError
from der_graph.nodes.reliability.charge import TokenPrices
from der_graph.nodes.rules import COST_TOLERANCE, RouteRules
from der_graph.state import Answer, DERContext

RULES = RouteRules(names=("small", "middle", "large"), costs=(1.0, 2.0, 7.0), max_steps=3)
ASKED_SMALL = [an_answer("small")]


def test_before_the_first_answer_there_is_no_end() -> None:
    assert RULES.mask([]) == ([True, True, True, False], "agent")


def test_nobody_is_asked_twice() -> None:
    assert RULES.mask(ASKED_SMALL, spent=1.0) == ([False, True, True, True], "agent")


def test_unless_repeats_are_allowed_and_then_not_who_failed() -> None:
    rules = RouteRules(RULES.names, RULES.costs, max_steps=3, repeat_experts=True)
    answers = [an_answer("small"), an_answer("middle", error="boom")]
    assert rules.mask(answers, spent=3.0) == ([True, False, True, True], "agent")


def test_a_failed_call_gives_no_right_to_end() -> None:
    assert RULES.mask([an_answer("small", error="boom")]) == ([False, True, True, False], "agent")


def test_nothing_is_asked_that_the_budget_does_not_cover() -> None:
    assert RULES.mask(ASKED_SMALL, spent=1.0, context=DERContext(max_cost=3.0)) == (
        [False, True, False, True],
        "agent",
    )
    assert RULES.mask(ASKED_SMALL, spent=1.0, context=DERContext(max_cost=2.5)) == (
        [False, False, False, True],
        "max_cost",
    )


def test_a_budget_is_not_missed_by_a_rounding_error() -> None:
    rules = RouteRules(("a", "b", "c"), (0.1, 0.2, 0.3), max_steps=3)
    assert 0.1 + 0.2 > 0.3
    assert rules.mask([an_answer("a")], spent=0.1, context=DERContext(max_cost=0.3))[0] == [
        False,
        True,
        False,
        True,
    ]


def test_after_the_longest_route_only_the_end_is_left() -> None:
    answers = [an_answer("small"), an_answer("middle")]
    assert RULES.mask(answers, spent=3.0, context=DERContext(max_steps=2)) == (
        [False, False, False, True],
        "max_steps",
    )
    assert RULES.mask([*answers, an_answer("large")], spent=10.0)[1] == "max_steps"


def test_failed_calls_are_no_steps() -> None:
    answers = [an_answer("small"), an_answer("middle", error="boom")]
    given = RULES.mask(answers, spent=3.0, context=DERContext(max_steps=2))
    assert given == ([False, False, True, True], "agent")
    assert RULES.mask(answers, spent=3.0, context=DERContext(max_steps=1))[1] == "max_steps"


def test_who_fails_again_and_again_is_left_out_while_others_are_there() -> None:
    assert RULES.mask([], unavailable=["middle"]) == ([True, False, True, False], "agent")
    answers = [an_answer("small")]
    given = RULES.mask(answers, spent=1.0, unavailable=["middle", "large"])
    assert given == ([False, False, False, True], "unavailable")


def test_who_was_not_asked_after_all_comes_again_where_nobody_else_is_left() -> None:
    """Its breaker shut between the decision and the call: it has not failed on this question."""
    shut, broken = an_answer("middle", error="not asked"), an_answer("small", error="boom")
    shut["failure"] = "open"
    assert RULES.mask([shut, broken]) == ([False, False, True, False], "agent")
    third = an_answer("large", error="boom")
    assert RULES.mask([shut, broken, third]) == ([False, True, False, False], "agent")
    with pytest.raises(AllExpertsFailedError):  # once; whoever waits for it waits long
        RULES.mask([shut, broken, third, shut])
    with pytest.raises(AllExpertsFailedError):
        RULES.mask([shut, broken, third], DERContext(forbidden_experts=["middle"]))
    answers = [shut, an_answer("small"), third]
    assert RULES.mask(answers) == ([False, False, False, True], "no_expert_left")


def test_but_is_asked_where_nobody_else_could_answer() -> None:
    assert RULES.mask([], unavailable=RULES.names) == ([True, True, True, False], "agent")
    failed = [an_answer("small", error="boom")]
    assert RULES.mask(failed, unavailable=["middle", "large"])[0] == [False, True, True, False]
    cheap = DERContext(max_cost=1.0)
    assert RULES.mask([], cheap, unavailable=["small"])[0] == [True, False, False, False]


def test_when_everybody_was_asked_it_says_so() -> None:
    rules = RouteRules(("a",), (1.0,), max_steps=3)
    assert rules.mask([an_answer("a")], spent=1.0) == ([False, True], "no_expert_left")


def test_a_request_may_shorten_the_route_but_not_lengthen_it() -> None:
    assert RULES.steps(None) == 3
    assert RULES.steps(2) == 2
    assert RULES.steps(9) == 3


def test_the_dearest_route_asks_the_dearest_expert_again_where_it_may() -> None:
    assert RULES.dearest() == 10.0
    assert RouteRules(("a", "b"), (1.0, 3.0), 4, repeat_experts=True).dearest(2) == 6.0


# Wrong input --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, -1])
def test_a_route_has_at_least_one_step(steps: int) -> None:
    with pytest.raises(BudgetError, match=f"max_steps={steps}: a route needs at least 1 call"):
        RULES.steps(steps)
    with pytest.raises(PoolError, match=f"max_steps is {steps}"):
        RouteRules(("a",), (1.0,), max_steps=steps)


@pytest.mark.parametrize("budget", [0.0, -1.0, 0.99, float("nan")])
def test_a_budget_below_the_cheapest_expert_names_it(budget: float) -> None:
    with pytest.raises(BudgetError, match=r"the cheapest expert is 'small' at 1; raise max_cost"):
        RULES.mask([], context=DERContext(max_cost=budget))


def test_when_all_fail_the_error_tells_each_cause() -> None:
    answers = [an_answer(name, error=f"{name} is down") for name in RULES.names]
    with pytest.raises(AllExpertsFailedError) as caught:
        RULES.mask(answers, spent=10.0)
    for name in RULES.names:
        assert f"{name}: {name} is down" in str(caught.value)


def test_when_some_fail_and_the_rest_is_too_dear_it_is_the_failure_that_counts() -> None:
    with pytest.raises(AllExpertsFailedError, match="small: boom"):
        RULES.mask([an_answer("small", error="boom")], spent=1.0, context=DERContext(max_cost=1.5))


def test_an_empty_pool_has_no_choices() -> None:
    with pytest.raises(PoolError, match="no experts"):
        RouteRules((), ()).mask([])


# Laws ---------------------------------------------------------------------------------------------


@given(
    costs=st.lists(st.floats(0, 100), min_size=1, max_size=6),
    max_steps=st.integers(1, 8),
    wanted=st.none() | st.integers(1, 10),
    max_cost=st.none() | st.floats(0, 300),
    repeats=st.booleans(),
    data=st.data(),
)
def test_no_route_is_too_long_too_dear_or_without_an_end(
    costs: list[float],
    max_steps: int,
    wanted: int | None,
    max_cost: float | None,
    repeats: bool,
    data: st.DataObject,
) -> None:
    names = tuple(f"e{i}" for i in range(len(costs)))
    rules = RouteRules(names, tuple(costs), max_steps=max_steps, repeat_experts=repeats)
    answers: list[Answer] = []
    spent = 0.0
    while True:
        try:
            mask, reason = rules.mask(
                answers, spent=spent, context=DERContext(max_cost=max_cost, max_steps=wanted)
            )
        except BudgetError:
            assert not answers
            assert max_cost is not None
            assert min(costs) > max_cost
            return
        except AllExpertsFailedError:
            assert all(answer["error"] for answer in answers)
            return
        assert len(mask) == len(names) + 1
        assert any(mask)  # there is always something to do
        assert mask[-1] == any(answer["error"] is None for answer in answers)
        assert (reason == "agent") == any(mask[:-1])
        allowed = [i for i, free in enumerate(mask) if free]
        index = data.draw(st.sampled_from(allowed))
        if index == len(names):
            break
        failed = data.draw(st.booleans())
        answers.append(an_answer(names[index], error="boom" if failed else None, cost=costs[index]))
        spent += costs[index]
        good = sum(answer["error"] is None for answer in answers)
        assert good <= min(max_steps, wanted or max_steps)
        assert len(answers) - good <= len(names)  # nobody fails twice
        if max_cost is not None:
            assert spent <= max_cost * (1 + COST_TOLERANCE)
        if not repeats:
            assert len({answer["expert"] for answer in answers}) == len(answers)


def test_the_rules_of_experts_are_what_they_say() -> None:
    priced = TokenPrices(input=1.0, output=2.0)
    model: Any = RunnableLambda(lambda _: "")
    experts = [
        Expert("a", model, cost=1.0, seconds=2.0),
        Expert("b", model, cost=3.0, token_prices=priced),
    ]
    rules = RouteRules.of(experts, max_steps=2, repeat_experts=True, cost_unit="usd")
    assert (rules.names, rules.costs, rules.seconds) == (("a", "b"), (1.0, 3.0), (2.0, None))
    assert (rules.max_steps, rules.repeat_experts, rules.cost_unit) == (2, True, "usd")
    assert rules.charges == tuple(expert.charge for expert in experts)
    assert rules.unbounded == {expert.name for expert in experts if expert.unbounded}


def test_who_would_not_be_done_in_time_is_not_asked() -> None:
    """The time that has passed and the usual time of a call count together, to the second."""
    rules = RouteRules(("a", "b", "c"), (1.0, 1.0, 1.0), seconds=(2.0, 5.0, None))
    within = DERContext(deadline=6.0)
    assert rules.mask([], within)[0] == [True, True, True, False]
    assert rules.mask([], within, elapsed=1.0)[0] == [True, True, True, False]
    assert rules.mask([], within, elapsed=1.5)[0] == [True, False, True, False]
    # One of unknown time is asked as long as any is left.
    assert rules.mask([], within, elapsed=5.9)[0] == [False, False, True, False]
    with pytest.raises(BudgetError, match="the fastest expert is 'a', which usually takes 2 s"):
        replace(rules, seconds=(2.0, 5.0, 3.0)).mask([], within, elapsed=5.0)
    with pytest.raises(BudgetError):  # nobody's time is known
        replace(rules, seconds=()).mask([], within, elapsed=6.0)


def test_a_refusal_ends_a_route_only_where_nobody_is_left() -> None:
    refused = [an_answer("small", "I do not know.")]
    assert RULES.mask(refused, spent=1.0)[0] == [False, True, True, False]
    assert RULES.mask(refused, spent=1.0, context=DERContext(max_steps=1))[0][-1] is True
