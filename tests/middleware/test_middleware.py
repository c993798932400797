"""DERMiddleware in LangChain's create_agent: who acts, what is kept, which bounds hold."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from fakes import FailingAgent, ScriptedAgent, scripted_expert
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
    ToolRetryMiddleware,
)
from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from provider_stub import USAGE, Reply, piece, provider, remote_model
from pydantic import BaseModel
from tool_fakes import ToolModel, tool_expert

from der_graph.errors import (
    AllExpertsFailedError,
    BudgetError,
    DataError,
    PoolError,
    ToolsNotSupportedError,
)
from der_graph.middleware import DERMiddleware, outcome_of
from der_graph.nodes.decision import Choice
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability.breaker import Breaker
from der_graph.nodes.reliability.charge import Charge, TokenPrices
from der_graph.nodes.reliability.health import Health
from der_graph.pool import Pool, PoolSettings
from der_graph.state import DERContext, Situation


@tool
def double(number: int) -> int:
    """Twice a number."""
    if number < 0:
        raise ValueError("no number below 0")
    return 2 * number


def call(number: int, **more: Any) -> AIMessage:
    calls = [{"name": "double", "args": {"number": number}, "id": f"call-{number}"}]
    return AIMessage("", tool_calls=calls, **more)


def ask(agent: Any, **more: Any) -> Any:
    return agent.invoke({"messages": [("user", "What is twice 21?")]}, **more)


class ByCall(ScriptedAgent):
    """Follows a script by model call of the run; within one call, the next allowed one after a failure."""

    def _choose(self, situation: Situation) -> Choice:
        assert situation.loop is not None
        wanted = self.script[min(situation.loop.calls, len(self.script) - 1)]
        index = self.names.index(wanted)
        if not situation.mask[index]:
            index = situation.mask.index(True)
        return Choice(index, [float(i == index) for i in range(len(situation.mask))])


def agent_of(
    experts: Sequence[Any], chooser: Any, *around: Any, tools: Any = (double,), **settings: Any
) -> Any:
    der = DERMiddleware(experts, agent=chooser, **settings)
    return create_agent(der.model, list(tools), middleware=[*around, der])


def choices(result: Any) -> list[str]:
    return [step["choice"] for step in result["der_route"]]


def test_each_call_is_made_by_the_expert_that_was_chosen_for_it() -> None:
    small, large = tool_expert("small", call(21)), tool_expert("large", "It is 42.", cost=7.0)
    chooser = ByCall("small", "large")
    result = ask(agent_of([small, large], chooser))
    assert result["messages"][-1].text == "It is 42."
    assert choices(result) == ["small", "large"]
    assert [step["call"] for step in result["der_route"]] == [0, 1]
    assert [step["phase"] for step in result["der_route"]] == ["planning", "executing"]
    assert result["der_cost"] == 8.0
    assert [s.loop.last_expert for s in chooser.seen if s.loop] == [None, "small"]
    assert chooser.seen[1].loop is not None
    assert chooser.seen[1].loop.last_tools == ("double",)
    # One good answer ends the route of a call, and agents that plan ahead see so.
    assert [s.max_steps for s in chooser.seen] == [1, 1]
    assert result["messages"][-1].response_metadata["der_experts"] == ["large"]
    large_model: Any = large.model
    assert [m.type for m in large_model.prompts[0]] == ["human", "ai", "tool"]
    assert large_model.settings[0]["tools"]


@pytest.mark.parametrize(("price", "first"), [(0.001, "large"), (2.0, "small")])
def test_without_an_agent_the_planner_chooses(price: float, first: str) -> None:
    # At a price of 2 the large one's cost, 7 of 8, is worth 1.75: more than any answer.
    large, small = tool_expert("large", "42", cost=7.0), tool_expert("small", "42", cost=1.0)
    der = DERMiddleware([large, small], bounds=DERContext(cost_weight=price))
    agent: Any = create_agent(der.model, tools=[double], middleware=[der])
    result = agent.invoke({"messages": [("user", "What is twice 21?")]})
    assert choices(result) == [first]


def test_experts_are_made_of_chat_models() -> None:
    models = [ToolModel(answers=[call(21)], name="small"), ToolModel(answers=["42"], name="large")]
    result = ask(agent_of(models, ByCall("small", "large")))
    assert choices(result) == ["small", "large"]
    assert result["der_cost"] == 2.0  # a call of each, at a price of 1


def test_asynchronous_runs_are_the_same() -> None:
    experts = [tool_expert("small", call(21)), tool_expert("large", "It is 42.", cost=7.0)]
    agent = agent_of(experts, ByCall("small", "large"))
    result = asyncio.run(agent.ainvoke({"messages": [("user", "What is twice 21?")]}))
    assert choices(result) == ["small", "large"]
    assert result["der_cost"] == 8.0


def test_an_expert_that_fails_is_replaced_and_paid_for() -> None:
    experts = [
        tool_expert("small", ValueError("out of order")),
        tool_expert("large", "42", cost=7.0),
    ]
    result = ask(agent_of(experts, ByCall("small")))
    assert choices(result) == ["small", "large"]
    assert result["der_route"][0]["answer"]["error"] == "ValueError: out of order"
    assert result["der_cost"] == 8.0
    assert result["messages"][-1].response_metadata["der_experts"] == ["small", "large"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_expert_that_fails_again_and_again_is_not_asked_any_more(asynchronous: bool) -> None:
    broken, whole = tool_expert("broken", OSError("out of order")), tool_expert("whole", "42")
    agent = agent_of([broken, whole], ByCall("broken"))

    def run() -> Any:
        question = {"messages": [("user", "What is twice 21?")]}
        return asyncio.run(agent.ainvoke(question)) if asynchronous else agent.invoke(question)

    assert [choices(run()) for _ in range(4)] == [["broken", "whole"]] * 3 + [["whole"]]
    model: Any = broken.model
    assert len(model.prompts) == 3
    assert whole.health.usual is not None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_probe_at_a_time_finds_out_whether_it_answers_again() -> None:
    clock = Clock()
    health = Health(breaker=Breaker(failures=1, cooldown=5.0, clock=clock))
    small = replace(tool_expert("small", GraphInterrupt(), "42"), health=health)
    agent = agent_of([small, tool_expert("large", "43")], ByCall("small"))
    health.failed("unavailable")
    assert choices(ask(agent)) == ["large"]
    clock.now = 6.0
    assert health.breaker.enter()  # somebody else's probe
    assert choices(ask(agent)) == ["large"]
    health.breaker.leave()
    ask(agent)  # its probe is interrupted, which says nothing
    assert choices(ask(agent)) == ["small"]
    assert health.view()["state"] == "closed"


def test_a_probe_that_another_call_took_meanwhile_is_a_failed_answer() -> None:
    clock = Clock()
    health = Health(breaker=Breaker(failures=1, cooldown=5.0, clock=clock))
    small = replace(tool_expert("small", "42"), health=health)

    class Slow(ByCall):
        def _choose(self, situation: Situation) -> Choice:
            health.breaker.enter()
            return super()._choose(situation)

    health.failed("unavailable")
    clock.now = 6.0
    result = ask(agent_of([small, tool_expert("large", "43")], Slow("small")))
    assert choices(result) == ["small", "large"]
    assert "not asked: it failed 1 times in a row" in result["der_route"][0]["answer"]["error"]
    assert result["der_cost"] == 1.0


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SystemExit(3), "exit"),
        (KeyboardInterrupt(), "exit"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
def test_what_would_end_the_run_ends_the_call(
    error: BaseException, kind: str, asynchronous: bool
) -> None:
    def exits(question: str) -> str:
        raise error

    good, _ = scripted_expert("good", "5")
    experts = [as_expert(exits, name="bad", cost=1.0), good]
    middleware = DERMiddleware(experts, agent=ScriptedAgent("bad", "good"))
    agent: Any = create_agent(middleware.model, middleware=[middleware])
    asked = {"messages": [HumanMessage("2 + 3?")]}
    state = asyncio.run(agent.ainvoke(asked)) if asynchronous else agent.invoke(asked)
    assert state["messages"][-1].text == "5"
    assert state["der_route"][0]["answer"]["failure"] == kind


def test_all_experts_failing_says_why() -> None:
    experts = [tool_expert("a", ValueError("no")), tool_expert("b", KeyError("never"))]
    with pytest.raises(AllExpertsFailedError, match=r"a: ValueError: no; b: KeyError: 'never'"):
        ask(agent_of(experts, ByCall("a")))


def test_errors_can_be_left_to_the_middleware_around() -> None:
    experts = [tool_expert("a", ValueError("no")), tool_expert("b", "42")]
    with pytest.raises(ValueError, match="no"):
        ask(agent_of(experts, ByCall("a"), on_error="raise"))


def test_only_experts_that_call_tools_are_asked_where_tools_are_bound() -> None:
    writer, _ = scripted_expert("writer", "words")
    caller = tool_expert("caller", "42", cost=3.0)
    chooser = ByCall("writer")
    assert choices(ask(agent_of([writer, caller], chooser))) == ["caller"]
    assert chooser.seen[0].mask == [False, True, False]
    assert choices(ask(agent_of([writer, caller], ByCall("writer"), tools=()))) == ["writer"]


def test_tools_without_any_expert_for_them_are_refused() -> None:
    writer, _ = scripted_expert("writer", "words")
    with pytest.raises(ToolsNotSupportedError, match="no expert can call tools: writer"):
        ask(agent_of([writer], ByCall("writer")))


def test_wrapped_models_act_too() -> None:
    inner = ToolModel(answers=[call(21), "It is 42."])
    expert = Expert("retried", inner.with_retry(stop_after_attempt=2), cost=1.0)
    result = ask(agent_of([expert], ByCall("retried")))
    assert result["messages"][-1].text == "It is 42."
    assert inner.settings[0]["tools"]


def test_after_a_tool_failed_a_dearer_expert_recovers() -> None:
    small = tool_expert("small", call(-1), "done")
    large = tool_expert("large", call(21), "It is 42.", cost=7.0)
    chooser = ByCall("small")
    result = ask(agent_of([small, large], chooser, ToolRetryMiddleware(max_retries=0)))
    assert choices(result) == ["small", "large", "small"]
    assert [step["phase"] for step in result["der_route"]] == [
        "planning",
        "recovering",
        "executing",
    ]
    recovering = chooser.seen[1]
    assert recovering.mask == [False, True, False]
    assert recovering.loop is not None
    assert (recovering.loop.errors, recovering.loop.last_expert) == (1, "small")
    assert "no number below 0" in str(recovering.answers[0]["error"])
    assert (
        result["der_cost"] == 9.0
    )  # the failed answer that opens the second route is not paid twice


def test_the_dearest_expert_corrects_its_own_calls() -> None:
    small = tool_expert("small", "It is 42.")
    large = tool_expert("large", call(-1), call(21), "It is 42.", cost=7.0)
    chooser = ByCall("large")
    result = ask(agent_of([small, large], chooser, ToolRetryMiddleware(max_retries=0)))
    assert choices(result) == ["large", "large", "large"]
    assert chooser.seen[1].answers == []


def test_what_a_failure_is_can_be_said() -> None:
    @tool
    def lookup(name: str) -> str:
        """Looks a name up."""
        return "nothing found"

    calls = AIMessage("", tool_calls=[{"name": "lookup", "args": {"name": "x"}, "id": "1"}])
    experts = [tool_expert("small", calls), tool_expert("large", "There is none.", cost=2.0)]
    agent = agent_of(
        experts, ByCall("small"), tools=[lookup], tool_failed=lambda m: "nothing" in m.text
    )
    assert choices(ask(agent)) == ["small", "large"]


class Checker(ScriptedAgent):
    """Asks the second expert about every first answer, then ends."""

    def __init__(self) -> None:
        super().__init__("small", "large")


def test_a_second_opinion_reads_the_draft_and_counts() -> None:
    small, large = tool_expert("small", call(12)), tool_expert("large", call(21), "42", cost=7.0)
    result = ask(agent_of([small, large], Checker(), second_opinion=True))
    assert choices(result)[:3] == ["small", "large", "END"]
    first = result["messages"][1]
    assert first.tool_calls[0]["args"] == {"number": 21}
    assert first.response_metadata["der_experts"] == ["small", "large"]
    large_model: Any = large.model
    shown = large_model.prompts[0][-1].text
    assert "What is twice 21?" in shown
    assert 'call double({"number": 12})' in shown
    assert "earlier_answer" in shown
    assert len(large_model.prompts[0]) == 1


def test_who_is_asked_alone_reads_no_draft() -> None:
    small, large = tool_expert("small", call(12)), tool_expert("large", call(21), "42", cost=7.0)
    checker: Any = Checker()
    checker.alone = ("large",)
    result = ask(agent_of([small, large], checker, second_opinion=True))
    assert choices(result)[:3] == ["small", "large", "END"]
    large_model: Any = large.model
    assert large_model.prompts[0][-1].text == "What is twice 21?"


def test_agents_see_whether_two_calls_agree() -> None:
    small, large = tool_expert("small", call(21)), tool_expert("large", call(21), "42")
    route = ask(agent_of([small, large], Checker(), second_opinion=True))["der_route"]
    assert (
        route[0]["answer"]["value"] == route[1]["answer"]["value"] == '["double", {"number": 21}]'
    )


def test_drafts_are_not_heard_in_the_stream_of_messages() -> None:
    small, large = tool_expert("small", "It is 12."), tool_expert("large", "It is 42.")
    agent = agent_of([small, large], Checker(), second_opinion=True)
    heard = [
        message.text
        for message, _ in agent.stream({"messages": [("user", "?")]}, stream_mode="messages")
        if isinstance(message, AIMessage)
    ]
    assert heard == ["It is 42."]


def test_decisions_are_events_and_runs_of_their_own() -> None:
    class Runs(BaseCallbackHandler):
        def __init__(self) -> None:
            self.names: list[Any] = []
            self.metadata: list[Any] = []

        def on_chain_start(self, *_: Any, **more: Any) -> None:
            self.names.append(more.get("name"))

        def on_chat_model_start(self, *_: Any, **more: Any) -> None:
            self.metadata.append(more["metadata"])

    runs = Runs()
    agent = agent_of([tool_expert("small", call(21), "42")], ByCall("small"))
    events = list(
        agent.stream({"messages": [("user", "?")]}, {"callbacks": [runs]}, stream_mode="custom")
    )
    assert [e["type"] for e in events] == ["der.decision", "der.answer"] * 2
    assert runs.names.count("der_decision") == 2
    assert [m["der_expert"] for m in runs.metadata] == ["small", "small"]


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


def test_a_new_question_opens_a_new_run() -> None:
    der = DERMiddleware([tool_expert("small", "one", "two")], agent=ByCall("small"))
    agent: Any = create_agent(der.model, [double], middleware=[der], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    ask(agent, config=thread)
    result = ask(agent, config=thread)
    assert result["der_cost"] == 1.0
    assert len(result["der_route"]) == 1


class Torn(ByCall):
    """Finds the second expert better than the first by so much."""

    def __init__(self, by: float) -> None:
        super().__init__("first")
        self.by = by

    def _choose(self, situation: Situation) -> Choice:
        assert situation.loop is not None
        if situation.loop.calls == 0:
            return super()._choose(situation)
        low = (1 - self.by) / 2
        return Choice(1, [low, 1 - low, 0.0])


@pytest.mark.parametrize(("by", "second"), [(0.04, "first"), (0.2, "second")])
def test_an_expert_that_is_as_good_goes_on(by: float, second: str) -> None:
    experts = [tool_expert("first", call(21), "42"), tool_expert("second", "42")]
    assert choices(ask(agent_of(experts, Torn(by)))) == ["first", second]


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
    ],
)
def test_prices_that_cannot_be(prices: dict[str, float], said: str) -> None:
    experts = [tool_expert("plain", "42"), priced("priced", 4.0, AIMessage("42"))]
    with pytest.raises(PoolError, match=re.escape(said)):
        DERMiddleware(experts, agent=ByCall("plain"), cached_prices=prices)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"exit_behavior": "stop"}, "exit_behavior is 'stop'"),
        ({"stickiness": 2}, "stickiness is 2"),
        ({"ktp": "nothing"}, "ktp 'nothing' is unknown"),
    ],
)
def test_settings_that_cannot_be(settings: Any, said: str) -> None:
    with pytest.raises(PoolError, match=re.escape(said)):
        DERMiddleware([tool_expert("small", "42")], agent=ByCall("small"), **settings)


def test_a_pool_needs_experts_with_names_of_their_own() -> None:
    with pytest.raises(PoolError, match="no experts"):
        DERMiddleware([], agent=ByCall("small"))
    with pytest.raises(PoolError, match="two experts are named 'a'"):
        DERMiddleware([tool_expert("a", "1"), tool_expert("a", "2")], agent=ByCall("a"))


def test_structured_answers() -> None:
    class Number(BaseModel):
        value: int

    calls = AIMessage("", tool_calls=[{"name": "Number", "args": {"value": 42}, "id": "1"}])
    der = DERMiddleware([tool_expert("small", calls)], agent=ByCall("small"))
    agent: Any = create_agent(der.model, [double], middleware=[der], response_format=Number)
    result = ask(agent)
    assert result["structured_response"] == Number(value=42)
    assert choices(result) == ["small"]


def test_system_prompts_of_agent_and_expert() -> None:
    model = ToolModel(answers=["42"])
    expert = Expert("small", model, cost=1.0, system="Be brief.")
    der = DERMiddleware([expert], agent=ByCall("small"))
    ask(create_agent(der.model, [double], middleware=[der], system_prompt="You are a calculator."))
    assert model.prompts[0][0] == SystemMessage("Be brief.\n\nYou are a calculator.")


# With models elsewhere ------------------------------------------------------------------------------

BROKEN: Any = {"content": "It is", "breaks": True}
CUT_CALL: Any = {
    "chunks": [
        piece(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "c",
                        "function": {"name": "double", "arguments": '{"number": 2'},
                    }
                ]
            }
        ),
        piece({}, "length"),
    ]
}


def streamed(first: Reply, *around: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last state of a run that is streamed, with two remote experts; and what they were sent."""

    def reply(body: dict[str, Any]) -> Reply:
        return first if body["model"] == "small" else {"content": "It is 42."}

    with provider(reply) as stub:
        experts = [
            as_expert(remote_model(stub.url, name), name=name, cost=cost)
            for name, cost in (("small", 1.0), ("large", 7.0))
        ]
        der = DERMiddleware(experts, agent=ScriptedAgent("small", "large"))
        agent: Any = create_agent(der.model, [double], middleware=[der, *around])
        given = {"messages": [("user", "What is twice 21?")]}
        modes = ["messages", "values"]
        parts = list(agent.stream(given, {"recursion_limit": 20}, stream_mode=modes))
        return [part for mode, part in parts if mode == "values"][-1], stub.requests


@pytest.mark.parametrize("first", [BROKEN, CUT_CALL], ids=["text", "call"])
def test_what_broke_off_in_a_stream_is_no_message(first: Reply) -> None:
    result, _ = streamed(first)
    assert choices(result) == ["small", "large"]
    assert result["messages"][-1].text == "It is 42."


def test_thoughts_are_put_aside_and_tokens_counted_in_streams() -> None:
    result, sent = streamed({"content": "<think>21 + 21</think>It is 42."})
    message = result["messages"][-1]
    assert message.text == "It is 42."
    assert message.additional_kwargs["reasoning_content"] == "21 + 21"
    assert sent[0]["stream_options"] == {"include_usage": True}
    assert message.usage_metadata["output_tokens"] == USAGE["completion_tokens"]


def test_other_middleware_sees_a_model_of_its_providers_class() -> None:
    seen = []

    class Looks(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            seen.append((isinstance(request.model, type(remote_model("http://x"))), request.model))
            return handler(request)

    streamed({"content": "It is 42."}, Looks())
    ((is_one, model),) = seen
    assert is_one
    assert model.model_name == "small"


# With LangChain's own middleware ------------------------------------------------------------------


def test_a_fallback_around_it_comes_after_the_pool() -> None:
    experts = [tool_expert("a", ValueError("no")), tool_expert("b", ValueError("no"))]
    spare = ToolModel(answers=["spare"])
    agent = agent_of(experts, ByCall("a"), ModelFallbackMiddleware(spare))
    assert ask(agent)["messages"][-1].text == "spare"
    whole = ToolModel(answers=["unused"])
    agent = agent_of([tool_expert("a", "42")], ByCall("a"), ModelFallbackMiddleware(whole))
    assert ask(agent)["messages"][-1].text == "42"
    assert whole.prompts == []


def test_a_retry_around_it_asks_the_pool_again() -> None:
    experts = [tool_expert("a", ValueError("no"), "42")]
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0)
    assert ask(agent_of(experts, ByCall("a"), retry))["messages"][-1].text == "42"


def test_a_retry_inside_it_is_part_of_one_answer() -> None:
    der = DERMiddleware([tool_expert("a", ValueError("no"), "42")], agent=ByCall("a"))
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0)
    result = ask(create_agent(der.model, [double], middleware=[der, retry]))
    assert choices(result) == ["a"]


def test_a_limit_of_model_calls_ends_the_run() -> None:
    limit = ModelCallLimitMiddleware(run_limit=2, exit_behavior="end")
    result = ask(agent_of([tool_expert("a", call(21))], ByCall("a"), limit))
    assert len(result["der_route"]) == 2


def test_the_question_outlives_its_summary() -> None:
    summary = SummarizationMiddleware(
        ToolModel(answers=["they talked"]), trigger=("messages", 3), keep=("messages", 2)
    )
    chooser = ByCall("a")
    result = ask(agent_of([tool_expert("a", call(21), call(4), "8")], chooser, summary))
    assert result["messages"][-1].text == "8"
    assert any("they talked" in m.text for m in result["messages"] if isinstance(m, HumanMessage))
    assert {s.question for s in chooser.seen} == {"What is twice 21?"}
    assert chooser.seen[-1].loop is not None
    assert chooser.seen[-1].loop.phase == "executing"


def test_agents_inside_deepagents() -> None:
    deepagents = pytest.importorskip("deepagents", reason="pip install deepagents")
    der = DERMiddleware([tool_expert("a", call(21), "42")], agent=ByCall("a"))
    agent = deepagents.create_deep_agent(model=der.model, tools=[double], middleware=[der])
    assert choices(ask(agent)) == ["a", "a"]


def test_where_the_agent_fails_a_rule_decides() -> None:
    experts = [tool_expert("dear", "43", cost=2.0), tool_expert("cheap", "42")]
    result = ask(agent_of(experts, FailingAgent(0, "dear")))
    assert choices(result) == ["cheap"]
    assert result["der_route"][0]["reason"] == "agent_failed"


def test_tool_messages_keep_their_order_for_a_checker() -> None:
    small, large = tool_expert("small", call(21), "41"), tool_expert("large", call(21), "42")
    result = ask(agent_of([small, large], Checker(), second_opinion=True))
    assert result["messages"][-1].text == "42"
    large_model: Any = large.model
    last = large_model.prompts[-1]
    assert [m.type for m in last] == ["human", "ai", "tool", "human"]
    assert isinstance(last[2], ToolMessage)
    assert "41" in last[3].text


def test_a_run_becomes_a_row_to_train_from() -> None:
    experts = [tool_expert("small", call(21), "42"), tool_expert("large", "42", cost=7.0)]
    row = outcome_of(ask(agent_of(experts, ByCall("small"))), success=1)
    assert row == {
        "task": "What is twice 21?",
        "expert": "small",
        "success": 1.0,
        "cost": 2.0,
        "probability": 1.0,
    }
    with pytest.raises(DataError, match="no der_route"):
        outcome_of({"messages": []}, success=1)
