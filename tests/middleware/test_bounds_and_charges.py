"""What a run of an agent may cost and take: budgets, deadlines, prices of tokens and of cached ones."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from agent_loop import ByCall, agent_of, ask, call, choices, double
from langchain.agents import create_agent
from langchain_core import exceptions
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from tool_fakes import ToolModel, tool_expert

from der_graph.errors import (
    AllExpertsFailedError,
    BudgetError,
    ContextLengthError,
    PoolError,
)
from der_graph.middleware import DERMiddleware
from der_graph.nodes.expert import Expert
from der_graph.nodes.reliability.charge import Charge, TokenPrices
from der_graph.pool import Pool, PoolSettings
from der_graph.state import DERContext


def test_a_budget_holds_for_the_whole_run() -> None:
    experts = [tool_expert("small", call(21), call(21), "42"), tool_expert("large", "42", cost=7.0)]
    agent = agent_of(experts, ByCall("small"), bounds=DERContext(max_cost=2.0))
    result = ask(agent)
    assert result["der_cost"] == 2.0
    assert choices(result) == ["small", "small"]
    assert "max_cost=2.0" in result["messages"][-1].text
    strict = agent_of(
        [tool_expert("small", call(21))],
        ByCall("small"),
        bounds=DERContext(max_cost=1.0),
        exit_behavior="error",
    )
    with pytest.raises(BudgetError, match="max_cost=1"):
        ask(strict)


def test_a_budget_that_pays_for_nothing_is_an_error_at_once() -> None:
    agent = agent_of([tool_expert("small", "42")], ByCall("small"), bounds=DERContext(max_cost=0.5))
    with pytest.raises(BudgetError, match="the cheapest expert is 'small' at 1"):
        ask(agent)


def test_who_cannot_read_so_long_a_conversation_is_not_asked() -> None:
    small = replace(tool_expert("small", call(21), "never"), context_length=500)
    large = tool_expert("large", "42", cost=7.0)

    @tool("double")
    def at_length(number: int) -> str:
        """Twice a number."""
        return f"It is {2 * number}. " * 300

    result = ask(agent_of([small, large], ByCall("small"), tools=(at_length,)))
    assert choices(result) == ["small", "large"]
    assert result["der_cost"] == 8.0
    assert [step["mask"]["small"] for step in result["der_route"]] == [True, False]


def test_a_conversation_that_nobody_can_read_is_langchains_error() -> None:
    small = replace(tool_expert("small", "never"), context_length=50)
    agent = agent_of([small], ByCall("small"))
    with pytest.raises(ContextLengthError, match="shorten it") as caught:
        agent.invoke({"messages": [("user", "word " * 200)]})
    assert isinstance(caught.value, getattr(exceptions, "ContextOverflowError", Exception))


def test_a_budget_is_not_given_to_what_nothing_bounds() -> None:
    function: Any = RunnableLambda(lambda _: AIMessage("42"))
    endless = Expert("endless", function, cost=0.1, token_prices=(1.0, 1.0))
    agent = agent_of([endless], ByCall("endless"), tools=(), bounds=DERContext(max_cost=1.0))
    with pytest.raises(BudgetError, match="nothing bounds its tokens"):
        ask(agent)


def test_the_agent_is_told_how_calls_are_charged() -> None:
    class Told(ByCall):
        def for_pool(
            self,
            names: Sequence[str],
            costs: Any,
            *,
            charges: Sequence[Charge] = (),
            unit: str = "",
        ) -> Told:
            self.told = charges, unit
            return self

    chooser, expert = Told("priced"), priced("priced", 4.0, AIMessage("42"))
    settings = PoolSettings(cost_unit="usd")
    DERMiddleware(Pool((expert,), settings), agent=chooser)
    assert chooser.told == ((Charge(1.0, TokenPrices(4.0, 4.0), 0.0),), "usd")


def test_a_request_bounds_its_own_run() -> None:
    experts = [tool_expert("small", "42"), tool_expert("large", "42", cost=7.0)]
    der = DERMiddleware(experts, agent=ByCall("small"), bounds=DERContext(max_cost=7.0))
    agent: Any = create_agent(der.model, [double], middleware=[der], context_schema=DERContext)
    assert choices(ask(agent, context=DERContext(forbidden_experts=["small"]))) == ["large"]
    with pytest.raises(BudgetError, match=r"max_cost=6.*'large' at 7"):
        ask(agent, context=DERContext(allowed_experts=["large"], max_cost=6.0))
    with pytest.raises(BudgetError, match="leave no expert to ask"):
        ask(agent, context=DERContext(allowed_experts=[]))


def test_a_deadline_counts_tools_and_not_pauses() -> None:
    @tool
    def slow() -> str:
        """Takes its time."""
        time.sleep(0.3)
        return "done"

    calls = AIMessage("", tool_calls=[{"name": "slow", "args": {}, "id": "1"}])
    agent = agent_of(
        [tool_expert("small", calls, "42")],
        ByCall("small"),
        tools=[slow],
        bounds=DERContext(deadline=0.25),
    )
    assert "deadline=0.25" in ask(agent)["messages"][-1].text

    der = DERMiddleware(
        [tool_expert("small", call(21), "42")],
        agent=ByCall("small"),
        bounds=DERContext(deadline=0.25),
    )
    paused: Any = create_agent(
        der.model,
        [double],
        middleware=[der],
        checkpointer=InMemorySaver(),
        interrupt_before=["tools"],
    )
    thread: Any = {"configurable": {"thread_id": "1"}}
    ask(paused, config=thread)
    time.sleep(0.3)
    assert paused.invoke(None, thread)["messages"][-1].text == "42"


def test_a_call_that_is_late_is_given_up() -> None:
    async def wait(_: Any) -> AIMessage:
        await asyncio.sleep(600)
        return AIMessage("late")

    slow = Expert("slow", RunnableLambda(lambda _: AIMessage("late"), wait), cost=1.0)
    agent = agent_of([slow], ByCall("slow"), tools=(), bounds=DERContext(deadline=1.5))
    with pytest.raises(AllExpertsFailedError, match="deadline"):
        asyncio.run(agent.ainvoke({"messages": [("user", "?")]}))


def priced(name: str, price: float, *answers: Any) -> Expert:
    usage = {"input_tokens": 1000, "output_tokens": 10, "total_tokens": 1010}
    messages = [answer.model_copy(update={"usage_metadata": usage}) for answer in answers]
    return Expert(name, ToolModel(answers=messages), cost=1.0, token_prices=(price, price))


def test_a_prompt_cache_keeps_the_expert_that_it_makes_cheaper() -> None:
    def experts() -> list[Expert]:
        return [
            priced("dear", 10.0, call(21), AIMessage("42")),
            priced("cheap", 4.0, AIMessage("42")),
        ]

    chooser = ByCall("dear", "cheap")
    assert choices(ask(agent_of(experts(), chooser))) == ["dear", "cheap"]
    kept = ask(agent_of(experts(), chooser, cached_prices={"dear": 1.0}))
    assert choices(kept) == ["dear", "dear"]
    assert kept["der_route"][1]["reason"] == "prompt_cache"
    # A cache that saves too little changes nothing, and a dearer expert was not chosen for its price.
    assert choices(ask(agent_of(experts(), chooser, cached_prices={"dear": 9.0}))) == [
        "dear",
        "cheap",
    ]
    turned = [priced("dear", 10.0, AIMessage("42")), priced("cheap", 4.0, call(21))]
    result = ask(agent_of(turned, ByCall("cheap", "dear"), cached_prices={"cheap": 0.1}))
    assert choices(result) == ["cheap", "dear"]


def test_cached_tokens_are_charged_at_their_price() -> None:
    usage = {
        "input_tokens": 1_000_000,
        "output_tokens": 0,
        "total_tokens": 1_000_000,
        "input_token_details": {"cache_read": 400_000},
    }
    model = ToolModel(answers=[AIMessage("42", usage_metadata=usage)])
    expert = Expert("dear", model, cost=20.0, token_prices=(10.0, 30.0))
    agent = agent_of([expert], ByCall("dear"), cached_prices={"dear": 1.0})
    assert ask(agent)["der_cost"] == pytest.approx(0.6 * 10 + 0.4 * 1)


@pytest.mark.parametrize(
    ("own", "cached_prices", "cost"),
    [
        (TokenPrices(10.0, 30.0, 2.0), {}, 0.1 * 10 + 0.9 * 2),
        (TokenPrices(10.0, 30.0, 2.0), {"dear": 1.0}, 0.1 * 10 + 0.9 * 1),
        (TokenPrices(10.0, 30.0, 2.0), {"dear": 10.0}, 10.0),
        (TokenPrices(10.0, 30.0, 2.0, minimum=3.0), {"dear": 1.0}, 3.0),
    ],
)
def test_cached_tokens_are_discounted_once(
    own: TokenPrices, cached_prices: dict[str, float], cost: float
) -> None:
    usage: Any = {
        "input_tokens": 1_000_000,
        "output_tokens": 0,
        "total_tokens": 1_000_000,
        "input_token_details": {"cache_read": 900_000},
    }
    model = ToolModel(answers=[AIMessage("42", usage_metadata=usage)])
    expert = Expert("dear", model, cost=20.0, token_prices=own)
    agent = agent_of([expert], ByCall("dear"), cached_prices=cached_prices)
    assert ask(agent)["der_cost"] == pytest.approx(cost)


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ({"nobody": 1.0}, "'nobody' is not in the pool"),
        ({"plain": 1.0}, "'plain' has no token_prices"),
        ({"priced": 9.0}, "it must be from 0 to its input price, 4"),
        ({"priced": "1"}, "'priced' has '1'; it must be from 0"),
        ([1.0], "cached_prices is [1.0]; give a price for each name"),
    ],
)
def test_prices_that_cannot_be(prices: Any, said: str) -> None:
    experts = [tool_expert("plain", "42"), priced("priced", 4.0, AIMessage("42"))]
    with pytest.raises(PoolError, match=re.escape(said)):
        DERMiddleware(experts, agent=ByCall("plain"), cached_prices=prices)


def test_bounds_may_be_a_dict() -> None:
    agent = agent_of([tool_expert("a", "42")], ByCall("a"), bounds={"max_cost": 0.5})
    with pytest.raises(BudgetError, match="does not pay for a single call"):
        ask(agent)
    with pytest.raises(BudgetError, match="did you mean 'max_cost'"):
        agent_of([tool_expert("a", "42")], ByCall("a"), bounds={"max_csot": 1})
    with pytest.raises(PoolError, match="bounds is 3; it must be a DERContext"):
        agent_of([tool_expert("a", "42")], ByCall("a"), bounds=3)


def test_a_budget_that_is_spent_is_not_called_too_small_for_one_call() -> None:
    agent = agent_of(
        [tool_expert("a", call(1), "42")],
        ByCall("a"),
        bounds=DERContext(max_cost=1.5),
    )
    text = ask(agent)["messages"][-1].text
    assert "1 of max_cost=1.5 is spent, and what is left does not pay for another call" in text
