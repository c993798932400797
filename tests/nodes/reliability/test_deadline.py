"""A request's time: who is still asked, and what happens to calls that are running."""

from __future__ import annotations

import asyncio
import json
import string
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, an_answer, scripted_expert
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from tiny_models import save_tiny

from der_graph import DERContext, Expert, create_der_graph
from der_graph.errors import AllExpertsFailedError, BudgetError, PoolError
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability import call_limit
from der_graph.nodes.rules import RouteRules
from der_graph.pool import load_pool
from der_graph.state import RouteStep, elapsed

RULES = RouteRules(("quick", "slow", "any"), (1.0, 2.0, 3.0), seconds=(0.5, 4.0, None))


# Who is asked -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deadline", "passed", "mask", "reason"),
    [
        (10.0, 0.0, [True, True, True], "agent"),
        (4.0, 0.0, [True, True, True], "agent"),  # 0 + 4 fits exactly
        (4.0, 0.1, [True, False, True], "agent"),
        (4.0, 3.5, [True, False, True], "agent"),
        (4.0, 3.6, [False, False, True], "agent"),  # unknown times fit until the deadline
        (4.0, 4.0, [False, False, False], "deadline"),
        (4.0, 9.0, [False, False, False], "deadline"),
    ],
)
def test_who_would_not_be_done_in_time_is_masked(
    deadline: float, passed: float, mask: list[bool], reason: str
) -> None:
    rules = RouteRules(RULES.names, RULES.costs, repeat_experts=True, seconds=RULES.seconds)
    given = rules.mask([an_answer("quick")], DERContext(deadline=deadline), elapsed=passed)
    assert given == ([*mask, True], reason)


def test_a_deadline_for_nobody_names_the_fastest() -> None:
    rules = RouteRules(("slow", "quick"), (1.0, 2.0), seconds=(4.0, 0.5))
    with pytest.raises(BudgetError, match=r"deadline=0\.2 .*fastest expert is 'quick'.* 0\.5 s"):
        rules.mask([], DERContext(deadline=0.2))


def test_among_those_that_the_request_allows() -> None:
    with pytest.raises(BudgetError, match=r"the fastest expert is 'slow'"):
        RULES.mask([], DERContext(deadline=0.2, allowed_experts=["slow"]))


def test_time_is_the_sum_of_decisions_and_answers() -> None:
    def step(seconds: float, answer: float | None) -> RouteStep:
        given = None if answer is None else {**an_answer(), "seconds": answer}
        return RouteStep(
            step=0, choice="a", probabilities={}, value=None, mask={}, reason="agent",
            cost_weight=None, spent=0.0, seconds=seconds, answer=given,  # type: ignore[typeddict-item]
        )  # fmt: skip

    assert elapsed([]) == 0.0
    assert elapsed([step(0.25, 1.0), step(0.5, 2.0), step(0.125, None)]) == 3.875


@pytest.mark.parametrize("deadline", [0.0, -1.0, float("nan"), float("inf"), "soon", True])
def test_a_deadline_is_a_number_of_seconds(deadline: Any) -> None:
    with pytest.raises(BudgetError, match="deadline"):
        DERContext(deadline=deadline)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_an_experts_usual_time_is_above_zero(seconds: float) -> None:
    with pytest.raises(PoolError, match="expert 'a': seconds is"):
        scripted_expert("a", "5", seconds=seconds)


# In the graph -------------------------------------------------------------------------------------


def test_a_route_ends_when_the_time_left_is_too_short_for_anyone() -> None:
    quick, _ = scripted_expert("quick", "5", seconds=1.0)
    slow, model = scripted_expert("slow", "6", seconds=10_000.0)
    agent = ScriptedAgent("quick", "slow")
    graph = create_der_graph([quick, slow], agent=agent).compile()
    result = graph.invoke(a_human("2 + 3?"), context=DERContext(deadline=5000.0))
    assert [step["choice"] for step in result["route"]] == ["quick", "END"]
    assert result["route"][0]["mask"]["slow"] is False
    assert result["route"][1]["reason"] == "deadline"
    assert not model.prompts
    assert agent.seen[0].deadline_left == 5000.0


def test_a_pause_for_a_person_does_not_count() -> None:
    """The route's log alone says what time has passed, so a checkpoint may wait for weeks."""
    person = Expert(
        "person",
        RunnableLambda(lambda messages: interrupt(messages[-1].text)),
        cost=0.0,
        seconds=1.0,
    )
    other, _ = scripted_expert("other", "6", seconds=1000.0)
    graph = create_der_graph([person, other], agent=ScriptedAgent("person", "other"))
    app = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    context = DERContext(deadline=1500.0)
    app.invoke(a_human("2 + 3?"), config, context=context)
    result = app.invoke(Command(resume="five"), config, context=context)
    assert [step["choice"] for step in result["route"]] == ["person", "other", "END"]


def test_an_asynchronous_call_is_given_up_at_the_deadline() -> None:
    cancelled = threading.Event()

    async def forever(messages: Any) -> AIMessage:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    stuck = Expert("stuck", RunnableLambda(lambda messages: "5", forever), cost=1.0)
    graph = create_der_graph([stuck], agent=ScriptedAgent("stuck")).compile()
    with pytest.raises(AllExpertsFailedError, match=r"stuck: deadline: no answer within"):
        asyncio.run(graph.ainvoke(a_human("2 + 3?"), context=DERContext(deadline=1.0)))
    assert cancelled.is_set()


def test_the_answer_before_it_stands() -> None:
    async def forever(messages: Any) -> AIMessage:
        await asyncio.Event().wait()
        raise AssertionError

    good, _ = scripted_expert("good", "5")
    stuck = Expert("stuck", RunnableLambda(lambda messages: "6", forever), cost=1.0)
    other, model = scripted_expert("other", "7")
    agent = ScriptedAgent("good", "stuck", "other")
    graph = create_der_graph([good, stuck, other], agent=agent).compile()
    result = asyncio.run(graph.ainvoke(a_human("2 + 3?"), context=DERContext(deadline=1.0)))
    assert result["answer"] == "5"
    assert [step["choice"] for step in result["route"]] == ["good", "stuck", "END"]
    failed = result["route"][1]["answer"]
    assert failed["error"].startswith("deadline: no answer within")
    assert failed["cost"] == 0.0  # given up before a token
    assert result["route"][2]["reason"] == "deadline"
    assert not model.prompts


def test_a_models_own_timeout_is_not_called_a_deadline() -> None:
    async def fails(messages: Any) -> AIMessage:
        raise asyncio.TimeoutError("the server is slow")

    bad = Expert("bad", RunnableLambda(lambda messages: "5", fails), cost=1.0)
    answer = asyncio.run(bad.aask([], time_left=100.0))
    assert answer["error"] == "TimeoutError: the server is slow"


def test_no_time_at_all_is_a_deadline_too() -> None:
    async def forever(messages: Any) -> AIMessage:
        await asyncio.Event().wait()
        raise AssertionError

    stuck = Expert("stuck", RunnableLambda(lambda messages: "5", forever), cost=1.0)
    answer = asyncio.run(stuck.aask([], time_left=-1.0))
    assert (answer["error"], answer["failure"]) == ("deadline: no answer within 0 s", "deadline")


# Local models -------------------------------------------------------------------------------------


@pytest.fixture
def chat(tmp_path: Path) -> HuggingFaceChat:
    folder = save_tiny(tmp_path / "tiny")
    return HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 12}, dtype="float32")


def test_local_models_are_told_the_time_left(chat: HuggingFaceChat) -> None:
    assert call_limit(chat, None) == {}
    assert call_limit(chat, 3.0) == {"max_time": 3.0}
    assert call_limit(chat, -1.0) == {"max_time": 0.0}
    assert call_limit(chat.bind(max_new_tokens=3).with_retry(), 3.0) == {"max_time": 3.0}
    assert call_limit(chat.bind(max_time=2.0), 3.0) == {"max_time": 2.0}  # its own limit is kept
    assert call_limit(as_expert(chat.with_retry(), name="a", cost=1.0).model, 3.0) == {
        "max_time": 3.0
    }
    assert call_limit(RunnableLambda(lambda messages: "5"), 3.0) == {}


def test_a_local_model_is_cut_and_what_it_wrote_counts(chat: HuggingFaceChat) -> None:
    expert = Expert("tiny", chat.with_retry(), cost=1.0)
    prompt = expert.prompt([], "Tell me more", [], TEMPLATES["default"])
    for cut in (
        expert.ask([prompt], time_left=0.0)[0],
        asyncio.run(expert.aask(prompt, time_left=0.0)),
    ):
        assert cut["output_tokens"] == 1
    assert expert.ask([prompt])[0]["output_tokens"] > 1
    assert [each["output_tokens"] for each in expert.ask([prompt, prompt], time_left=0.0)] == [1, 1]


def test_a_local_model_that_could_say_nothing_in_time_says_so(chat: HuggingFaceChat) -> None:
    """Every text ends its answer, so there is none when the time is over."""
    expert = Expert("tiny", chat.bind(stop=[*string.printable]), cost=1.0)
    prompt = expert.prompt([], "Tell me more", [], TEMPLATES["default"])
    assert expert.ask([prompt], time_left=0.0)[0]["error"] == "deadline: no answer within 0 s"
    assert expert.ask([prompt], time_left=1e6)[0]["error"] == "returned an empty answer"


# In pool files ------------------------------------------------------------------------------------


def pool_file(folder: Path, expert: str, settings: str = "{}") -> Path:
    row = {"question": "2 + 3?", "answer": "5", "candidates": [{"model": "a", "text": "5"}]}
    (folder / "data.jsonl").write_text(json.dumps(row))
    path = folder / "pool.yaml"
    path.write_text(
        f"experts:\n  - {{name: a, backend: recorded, data: data.jsonl, {expert}}}\nsettings: {settings}\n"
    )
    return path


@pytest.mark.parametrize(
    ("expert", "settings", "seconds"),
    [
        ("cost: 1", "{}", None),
        ("cost: 1, seconds: 2.5", "{}", 2.5),
        ("cost: 3", "{cost_unit: seconds}", 3.0),  # the price is the time
        ("cost: 3, seconds: 2", "{cost_unit: seconds}", 2.0),
        ("cost: 0", "{cost_unit: seconds}", None),
    ],
)
def test_a_pool_file_says_how_long_an_expert_takes(
    tmp_path: Path, expert: str, settings: str, seconds: float | None
) -> None:
    pool = load_pool(pool_file(tmp_path, expert, settings))
    assert pool["a"].seconds == seconds
    assert pool.rules.seconds == (seconds,)


@pytest.mark.parametrize("seconds", ["0", "-1", ".inf", "soon"])
def test_a_pool_file_with_another_time_is_refused(tmp_path: Path, seconds: str) -> None:
    with pytest.raises(PoolError, match="expert 'a': seconds is"):
        load_pool(pool_file(tmp_path, f"cost: 1, seconds: {seconds}"))


def test_experts_made_in_python_may_say_it_too() -> None:
    assert as_expert(lambda question: "5", name="a", cost=1.0, seconds=2.0).seconds == 2.0
