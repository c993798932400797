"""An expert that takes its time, and the next best asked beside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, route_of, scripted_expert, thread
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from der_graph import ChatDER, DERContext, create_der_graph
from der_graph.errors import PoolError
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability import check_hedge
from der_graph.pool import load_pool, pool_from
from der_graph.state import END_CHOICE, elapsed

AT_ONCE, NEVER = 0.001, 3600.0
PATIENCE = 30.0  # for events that come, on any machine


class Held:
    """An expert that answers once it is let go of; tells when it was asked."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer
        self.asked, self.go = threading.Event(), threading.Event()
        self.gave_up = threading.Event()

    def __call__(self, text: str) -> str:
        self.asked.set()
        if not self.go.wait(PATIENCE):
            self.gave_up.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def slow() -> Iterator[Held]:
    held = Held("from slow")
    yield held
    held.go.set()  # its thread ends


def experts(slow: Callable[[str], str], *quick: Any) -> list[Expert]:
    made = [as_expert(slow, name="slow", cost=4.0)]
    made += [scripted_expert("quick", *(quick or ("from quick",)), cost=2.0)[0]]
    return [*made, scripted_expert("dear", "from dear", cost=9.0)[0]]


def asked(der: Any, way: str, **more: Any) -> Any:
    if way == "sync":
        return der.invoke(a_human("Who?"), **more)
    return asyncio.run(der.ainvoke(a_human("Who?"), **more))


WAYS = pytest.mark.parametrize("way", ["sync", "async"])


@WAYS
def test_the_first_good_answer_is_taken_and_both_are_paid(way: str, slow: Held) -> None:
    der = create_der_graph(experts(slow), agent=ScriptedAgent("slow"), hedge=AT_ONCE).compile()
    result = asked(der, way)
    assert not slow.gave_up.is_set()  # nobody waited for it
    assert route_of(result) == ["slow", "quick", END_CHOICE]
    first, second, _ = result["route"]
    assert (result["answer"], result["cost"]) == ("from quick", 6.0)
    assert [step["reason"] for step in result["route"][:2]] == ["agent", "hedge"]
    assert (first["answer"]["failure"], first["answer"]["cost"]) == ("overtaken", 4.0)
    assert [first["spent"], second["spent"]] == [0.0, 4.0]
    assert [first["step"], second["step"]] == [0, 1]
    assert result["messages"][-1].response_metadata["der_cost"] == 6.0
    assert "from quick" in result["knowledge"]
    # The time of the two is that of the quicker one, and not their sum.
    least = max(first["answer"]["seconds"], AT_ONCE + second["answer"]["seconds"])
    assert elapsed(result["route"]) == pytest.approx(
        least + sum(step["seconds"] for step in result["route"])
    )


@WAYS
def test_nobody_else_is_asked_where_the_answer_comes_in_time(way: str) -> None:
    pool = experts(lambda text: "from slow")
    der = create_der_graph(pool, agent=ScriptedAgent("slow"), hedge=NEVER).compile()
    result = asked(der, way)
    assert route_of(result) == ["slow", END_CHOICE]
    assert (result["answer"], result["cost"]) == ("from slow", 4.0)


@WAYS
def test_the_slow_one_may_still_be_first(way: str) -> None:
    slow, other = Held("from slow"), Held("from quick")

    def wait_for_the_other(text: str) -> str:
        assert other.asked.wait(PATIENCE)
        return "from slow"

    pool = [
        as_expert(wait_for_the_other, name="slow", cost=4.0),
        as_expert(other, name="quick", cost=2.0),
    ]
    der = create_der_graph(pool, agent=ScriptedAgent("slow"), hedge=AT_ONCE).compile()
    result = asked(der, way)
    other.go.set()
    slow.go.set()
    assert route_of(result) == ["slow", "quick", END_CHOICE]
    assert (result["answer"], result["cost"]) == ("from slow", 6.0)
    assert result["route"][1]["answer"]["failure"] == "overtaken"


@WAYS
def test_a_failure_beside_it_is_no_answer(way: str, slow: Held) -> None:
    def fails(text: str) -> str:
        slow.go.set()  # only then the slow one goes on
        raise ValueError("out of order")

    pool = [as_expert(slow, name="slow", cost=4.0), as_expert(fails, name="quick", cost=2.0)]
    for on_error in ("continue", "raise"):  # whoever raises: not for one that nobody had to ask
        slow.go.clear()
        for expert in pool:
            expert.health.breaker.success()
        strict: Any = on_error
        graph = create_der_graph(pool, agent=ScriptedAgent("slow"), hedge=AT_ONCE, on_error=strict)
        result = asked(graph.compile(), way)
        assert result["answer"] == "from slow"
        # Its failure may not have been heard of when the slow one answers.
        assert result["route"][1]["answer"]["failure"] in ("error", "overtaken")


@WAYS
def test_where_both_fail_the_agent_chooses_again(way: str) -> None:
    second = threading.Event()

    def slow(text: str) -> str:
        assert second.wait(PATIENCE)
        raise ValueError("late")

    def quick(text: str) -> str:
        second.set()
        raise ValueError("early")

    pool = [
        as_expert(slow, name="slow", cost=1.0),
        as_expert(quick, name="quick", cost=1.0),
        scripted_expert("dear", "from dear", cost=9.0)[0],
    ]
    agent = ScriptedAgent("slow", "slow", "dear")
    result = asked(create_der_graph(pool, agent=agent, hedge=AT_ONCE).compile(), way)
    assert route_of(result) == ["slow", "quick", "dear", END_CHOICE]
    assert result["answer"] == "from dear"


@pytest.mark.parametrize(
    ("bounds", "route"),
    [
        ({"max_cost": 6.0}, ["slow", "quick", END_CHOICE]),
        ({"max_cost": 5.9}, ["slow", END_CHOICE]),  # the other one does not fit beside it
        ({"forbidden_experts": ["quick"]}, ["slow", "dear", END_CHOICE]),
        ({"forbidden_experts": ["quick", "dear"]}, ["slow", END_CHOICE]),
        ({"max_steps": 1}, ["slow", "quick", END_CHOICE]),  # one answer counts
    ],
)
def test_the_bounds_hold(bounds: dict[str, Any], route: list[str], slow: Held) -> None:
    if len(route) == 2:
        slow.go.set()
    pool = experts(slow)
    der = create_der_graph(pool, agent=ScriptedAgent("slow"), hedge=AT_ONCE).compile()
    result = der.invoke(a_human("Who?"), context=DERContext(**bounds))
    assert route_of(result) == route
    assert result["cost"] <= bounds.get("max_cost", 13.0)


def test_events_tell_of_both_once(slow: Held) -> None:
    der = create_der_graph(experts(slow), agent=ScriptedAgent("slow"), hedge=AT_ONCE).compile()
    events = [e for e in der.stream(a_human("Who?"), stream_mode="custom")]
    told = [(e["type"], e.get("choice") or e.get("expert"), e.get("step")) for e in events]
    assert told == [
        ("der.decision", "slow", 0),
        ("der.decision", "quick", 1),
        ("der.answer", "slow", 0),
        ("der.answer", "quick", 1),
        ("der.decision", END_CHOICE, 2),
        ("der.final", "quick", None),
    ]


def test_it_is_the_pools_setting_for_every_way_in(slow: Held) -> None:
    pool = pool_from(experts(slow), hedge=AT_ONCE)
    answer = ChatDER(pool=pool, agent=ScriptedAgent("slow")).invoke("Who?")
    assert answer.text == "from quick"
    assert answer.response_metadata["der_experts"] == ["slow", "quick"]
    assert answer.response_metadata["der_cost"] == 6.0


def test_a_person_who_names_another_expert_gets_that_one_alone(slow: Held) -> None:
    builder = create_der_graph(
        experts(slow), agent=ScriptedAgent("slow"), hedge=AT_ONCE, approve_above=3.0
    )
    for resume, route in (
        (True, ["slow", "quick", END_CHOICE]),
        ({"expert": "dear"}, ["dear", END_CHOICE]),
    ):
        der = builder.compile(checkpointer=InMemorySaver())
        der.invoke(a_human("Who?"), thread())
        result = der.invoke(Command(resume=resume), thread())
        assert route_of(result) == route


def test_an_answer_that_is_shown_as_it_comes_is_not_hedged(slow: Held) -> None:
    slow.go.set()
    der = create_der_graph(experts(slow), agent=ScriptedAgent("slow"), hedge=AT_ONCE, max_steps=1)
    live = DERContext(stream_tokens="live")
    assert route_of(der.compile().invoke(a_human("Who?"), context=live)) == ["slow", END_CHOICE]


def test_the_breaker_holds_nothing_against_who_was_overtaken(slow: Held) -> None:
    pool = experts(slow)
    der = create_der_graph(pool, agent=ScriptedAgent("slow"), hedge=AT_ONCE).compile()
    for _ in range(4):
        assert route_of(der.invoke(a_human("Who?")))[0] == "slow"
    assert pool[0].health.view()["state"] == "closed"


@pytest.mark.parametrize("hedge", ["p0", "p100", "95", "fast", 0, -1, True, float("inf"), [1]])
def test_what_is_no_setting_is_refused(hedge: Any) -> None:
    with pytest.raises(PoolError, match="give a percentile of an expert's own times such as 'p95'"):
        check_hedge(hedge)
    with pytest.raises(PoolError, match="hedge is"):
        create_der_graph([scripted_expert("a", "b")[0]], agent=ScriptedAgent("a"), hedge=hedge)


def test_the_pool_file_may_say_so(tmp_path: Any) -> None:
    text = (
        "experts: [{name: a, backend: huggingface, model: some/model, cost: 1}]\n"
        "settings: {hedge: p95, parallel: 2}\n"
    )
    (tmp_path / "pool.yaml").write_text(text, encoding="utf-8")
    settings = load_pool(tmp_path / "pool.yaml").settings
    assert (settings.hedge, settings.parallel) == ("p95", 2)
    (tmp_path / "pool.yaml").write_text(text.replace("p95", "2"), encoding="utf-8")
    assert load_pool(tmp_path / "pool.yaml").settings.hedge == 2.0
    (tmp_path / "pool.yaml").write_text(text.replace("p95", "true"), encoding="utf-8")
    with pytest.raises(PoolError, match="hedge"):
        load_pool(tmp_path / "pool.yaml")
    (tmp_path / "pool.yaml").write_text(text.replace("p95", "p100"), encoding="utf-8")
    with pytest.raises(PoolError, match=r"pool.yaml: hedge is 'p100'"):
        load_pool(tmp_path / "pool.yaml")


def test_asynchronous_experts_are_cancelled() -> None:
    cancelled = asyncio.Event

    async def main() -> tuple[Any, bool]:
        gone = cancelled()

        async def slow(messages: Any) -> AIMessage:
            try:
                await asyncio.sleep(NEVER)
            except asyncio.CancelledError:
                gone.set()
                raise
            return AIMessage("never")

        def never(messages: Any) -> AIMessage:
            raise AssertionError("awaited, and not called")

        pool = [Expert("slow", RunnableLambda(never, slow), cost=1.0)]
        pool.append(scripted_expert("quick", "from quick")[0])
        der = create_der_graph(pool, agent=ScriptedAgent("slow"), hedge=AT_ONCE).compile()
        result = await der.ainvoke(a_human("Who?"))
        await asyncio.wait_for(gone.wait(), PATIENCE)
        return result, gone.is_set()

    result, gone = asyncio.run(main())
    assert result["answer"] == "from quick"
    assert gone


@WAYS
@pytest.mark.parametrize("setting", [{"hedge": AT_ONCE}, {"parallel": 2}])
def test_runs_of_both_name_their_own_expert(way: str, setting: dict[str, Any]) -> None:
    """Tracers add up costs by it, and functions read it in their configuration."""
    traced, told, heard = [], [], threading.Event()

    class Tracer(BaseCallbackHandler):
        def on_chat_model_start(self, *_: Any, **more: Any) -> None:
            metadata = more["metadata"]
            traced.append([metadata[f"der_{each}"] for each in ("expert", "step", "cost")])
            heard.set()

    def first(text: str, config: RunnableConfig) -> str:
        told.append([config["metadata"][f"der_{each}"] for each in ("expert", "step", "cost")])
        heard.wait(PATIENCE)
        return "from first"

    second = as_expert(FakeListChatModel(responses=["from second"]), name="second", cost=2.0)
    pool = [as_expert(first, name="first", cost=4.0), second]
    der = create_der_graph(pool, agent=ScriptedAgent("first", "second"), **setting).compile()
    asked(der, way, config={"callbacks": [Tracer()]})
    places = (0, 1) if "hedge" in setting else (1, 0)
    assert told == [["first", places[0], 4.0]]
    assert traced == [["second", places[1], 2.0]]
