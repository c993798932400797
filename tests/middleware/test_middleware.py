"""DERMiddleware in LangChain's create_agent: who acts, who takes over, what is kept."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import replace
from typing import Any

import pytest
from agent_loop import ByCall, Checker, agent_of, ask, call, choices, double
from fakes import FailingAgent, ScriptedAgent, scripted_expert
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelFallbackMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from pydantic import BaseModel
from tool_fakes import ToolModel, tool_expert

from der_graph.errors import (
    AllExpertsFailedError,
    ChatModelError,
    DataError,
    PoolError,
    QuestionError,
    ToolsNotSupportedError,
)
from der_graph.middleware import DERMiddleware, outcome_of
from der_graph.nodes.decision import Choice
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability.breaker import Breaker
from der_graph.nodes.reliability.health import Health
from der_graph.state import DERContext, Situation


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


class Exits(FakeListChatModel):
    """A chat model whose own code would end the run."""

    error: Any

    def _call(self, *_: Any, **__: Any) -> str:
        raise self.error

    async def _agenerate(self, *_: Any, **__: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("raw", [False, True])
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
    error: BaseException, kind: str, asynchronous: bool, raw: bool
) -> None:
    if kind == "cancelled" and asynchronous and raw and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 does not say whether somebody cancelled the task")

    def exits(question: str) -> str:
        raise error

    bad: Any = Exits(responses=["5"], error=error) if raw else exits

    good, _ = scripted_expert("good", "5")
    experts = [as_expert(bad, name="bad", cost=1.0), good]
    middleware = DERMiddleware(experts, agent=ScriptedAgent("bad", "good"))
    agent: Any = create_agent(middleware.model, middleware=[middleware])
    asked = {"messages": [HumanMessage("2 + 3?")]}
    state = asyncio.run(agent.ainvoke(asked)) if asynchronous else agent.invoke(asked)
    assert state["messages"][-1].text == "5"
    answer = state["der_route"][0]["answer"]
    assert (answer["failure"], type(error).__name__ in answer["error"]) == (kind, True)
    assert "generations" not in answer["error"]


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
    with pytest.raises(ToolsNotSupportedError, match="these experts cannot call tools: writer"):
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


@pytest.mark.parametrize(
    "nothing",
    [
        AIMessage(""),
        AIMessage(
            "",
            invalid_tool_calls=[
                {
                    "name": "double",
                    "args": "{",
                    "id": "1",
                    "error": "?",
                    "type": "invalid_tool_call",
                }
            ],
        ),
    ],
    ids=["empty", "broken call"],
)
def test_a_second_opinion_that_says_nothing_takes_no_place(nothing: AIMessage) -> None:
    small, large = tool_expert("small", "It is 42."), tool_expert("large", nothing)
    result = ask(agent_of([small, large], Checker(), second_opinion=True))
    assert choices(result) == ["small", "large", "END"]
    assert result["messages"][-1].text == "It is 42."


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
    assert [m["der_cost"] for m in runs.metadata] == [1.0, 1.0]


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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"exit_behavior": "stop"}, "exit_behavior is 'stop'"),
        ({"stickiness": 2}, "stickiness is 2"),
        ({"stickiness": "x"}, "stickiness is 'x'"),
        ({"tool_failed": 3}, "tool_failed is 3; it must be a function"),
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


def test_what_a_run_asks_of_the_models_reaches_them() -> None:
    small = tool_expert("small", call(21), "42")
    asked = DERContext(model_settings={"temperature": 0.1, "max_completion_tokens": 5})
    ask(agent_of([small], ByCall("small"), bounds=asked))
    model: Any = small.model
    assert [(s["temperature"], s["max_tokens"]) for s in model.settings] == [(0.1, 5), (0.1, 5)]
    assert all(s["tools"] for s in model.settings)
    for name, error in (("temprature", "did you mean 'temperature'"), ("tools", "create_agent")):
        wrong = DERContext(model_settings={name: []})
        with pytest.raises(ChatModelError, match=error):
            agent_of([small], ByCall("small"), bounds=wrong)
        agent = create_agent(
            DERMiddleware([small]).model,
            middleware=[DERMiddleware([small])],
            context_schema=DERContext,
        )
        with pytest.raises(ChatModelError, match=error):
            ask(agent, context=wrong)


@pytest.mark.parametrize("tools", [(), (double,)], ids=["no tools", "tools"])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_what_the_request_asks_goes_before_what_the_run_asks(tools: Any, name: str) -> None:
    class Sets(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(model_settings={"temperature": 0.9, name: 5}))

    small = tool_expert("small", "42")
    asked = DERContext(model_settings={"temperature": 0.1, "max_tokens": 7, "seed": 1, "stop": "."})
    ask(agent_of([small], ByCall("small"), Sets(), tools=tools, bounds=asked))
    model: Any = small.model
    told = {key: value for key, value in model.settings[0].items() if key != "tools"}
    assert told == {"temperature": 0.9, name: 5, "stop": "."}


PICTURE = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
SHOWN = HumanMessage([{"type": "text", "text": "What is this?"}, PICTURE])


def reader(name: str, *answers: Any, sees: bool = False, cost: float = 1.0) -> Expert:
    profile: Any = {"max_input_tokens": 10**6, "image_inputs": sees}
    return Expert(name, ToolModel(answers=list(answers), profile=profile), cost=cost)


def test_pictures_are_for_those_who_see() -> None:
    blind, seeing = reader("blind", "So it is."), reader("seeing", "A cat.", sees=True)
    agent = agent_of([blind, seeing], ByCall("blind"), tools=())
    result = agent.invoke({"messages": [SHOWN]})
    assert choices(result) == ["seeing"]
    result = agent.invoke({"messages": [*result["messages"], ("user", "And its colour?")]})
    assert choices(result) == ["blind"]
    model: Any = blind.model
    assert model.prompts[-1][0].text == "What is this?[image]"
    alone = agent_of([blind], ByCall("blind"), tools=())
    with pytest.raises(QuestionError, match="read text only"):
        alone.invoke({"messages": [SHOWN]})
    # A profile that does not speak of pictures says nothing of them.
    untold = Expert("untold", ToolModel(answers=["A cat."], profile={"max_input_tokens": 9}), 1.0)
    result = agent_of([untold], ByCall("untold"), tools=()).invoke({"messages": [SHOWN]})
    assert choices(result) == ["untold"]
    model = untold.model
    assert model.prompts[0][0].content == SHOWN.content


@pytest.mark.parametrize(
    "block",
    [
        {"type": "media", "mime_type": "image/png", "data": "aa"},
        {"cachePoint": {"type": "default"}},
        {"type": "guard_content", "text": "?"},
        {"type": "text-plain", "text": "words", "mime_type": "text/plain"},
        {"type": "search_result", "content": []},
        {"type": "container_upload", "file_id": "f"},
    ],
    ids=str,
)
def test_blocks_of_providers_own_are_left_to_the_model(block: dict[str, Any]) -> None:
    expert = reader("small", "42")
    asked = HumanMessage([{"type": "text", "text": "What?"}, block])
    agent_of([expert], ByCall("small")).invoke({"messages": [asked]})
    model: Any = expert.model
    assert model.prompts[0][0].content == asked.content


def test_a_document_of_text_is_text() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "Once upon a time"}
    document = {"type": "document", "source": source}
    asked = HumanMessage([{"type": "text", "text": "What?"}, document])
    expert = reader("small", "42")
    result = agent_of([expert], ByCall("small")).invoke({"messages": [asked]})
    assert choices(result) == ["small"]
    model: Any = expert.model
    assert model.prompts[0][0].text == "What?Once upon a time"
    whole = replace(expert, inputs=frozenset({"pdf"}))
    agent_of([whole], ByCall("small")).invoke({"messages": [asked]})
    assert model.prompts[1][0].content == asked.content
    source = {"type": "base64", "media_type": "application/pdf", "data": "aa"}
    printed = HumanMessage([{"type": "document", "source": source}])
    with pytest.raises(QuestionError, match="read text only"):
        agent_of([expert], ByCall("small")).invoke({"messages": [printed]})


def test_who_cannot_see_does_not_recover_either() -> None:
    seeing, blind = reader("seeing", call(-1), "A cat.", sees=True), reader("blind", "?", cost=7.0)
    agent = agent_of([seeing, blind], ByCall("seeing"), ToolRetryMiddleware(max_retries=0))
    result = agent.invoke({"messages": [SHOWN]})
    assert choices(result) == ["seeing", "seeing"]
    assert result["messages"][-1].text == "A cat."


def test_who_sees_and_calls_nothing_is_no_reason_to_speak_of_bounds() -> None:
    writer, _ = scripted_expert("writer", "words")
    seeing, blind = replace(writer, inputs=frozenset({"image"})), reader("blind", "?")
    with pytest.raises(QuestionError, match=r"these experts read text only.*: blind;"):
        agent_of([seeing, blind], ByCall("blind")).invoke({"messages": [SHOWN]})


@pytest.mark.parametrize("lacks", ["eyes", "tools"])
def test_what_nobody_in_the_pool_can_do_is_for_the_fallback(lacks: str) -> None:
    expert = reader("blind", "?") if lacks == "eyes" else scripted_expert("writer", "words")[0]
    spare = ToolModel(answers=["A cat."])
    agent = agent_of([expert], ByCall(expert.name), ModelFallbackMiddleware(spare))
    assert agent.invoke({"messages": [SHOWN]})["messages"][-1].text == "A cat."


def test_a_tool_that_fails_is_of_who_called_it() -> None:
    small = tool_expert("small", call(-1), "It is 12.")
    middle = tool_expert("middle", AIMessage(""), "It is 42.", cost=2.0)
    chooser = ScriptedAgent("small", "middle")
    retry = ToolRetryMiddleware(max_retries=0)
    result = ask(agent_of([small, middle], chooser, retry, second_opinion=True))
    assert result["messages"][1].response_metadata["der_experts"] == ["middle", "small"]
    failed = next(s for s in chooser.seen if s.loop is not None and s.loop.errors)
    assert failed.loop is not None
    assert failed.loop.last_expert == "small"
    assert [answer["expert"] for answer in failed.answers] == ["small"]
    assert result["messages"][-1].text == "It is 42."
