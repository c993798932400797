"""A route outlives its process: checkpoints in memory, SQLite and PostgreSQL, kills, time travel, changes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, an_answer, scripted_expert
from killed_route import QUESTION, ROUTE, build, open_saver, thread_config
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from der_graph import DERContext, create_der_graph
from der_graph.errors import AgentError
from der_graph.nodes.decision import Choice
from der_graph.state import END_CHOICE, Situation


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a durable checkpointer keeps its data."""
    if request.param == "postgres":
        found: str = request.getfixturevalue("postgres")
        return found
    pytest.importorskip("langgraph.checkpoint.sqlite")
    return str(tmp_path / "checkpoints.db")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield InMemorySaver()
        return
    pytest.importorskip(f"langgraph.checkpoint.{request.param}")
    durable = request.param == "postgres"
    at = request.getfixturevalue("postgres") if durable else str(tmp_path / "checkpoints.db")
    with open_saver(at) as opened:
        yield opened


@pytest.fixture
def config(request: pytest.FixtureRequest) -> Any:
    """A thread of its own for each test: the server is shared."""
    return thread_config(request.node.name)


def names(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def kill_at(where: str, address: str, thread: str, log: Path, durability: str) -> None:
    """Run the route in a process, and kill it there."""
    script = Path(__file__).parents[1] / "killed_route.py"
    command = [sys.executable, str(script), address, thread, str(log), where, durability]
    root = script.parent.parent
    paths = [str(root), str(script.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.kill()
        _, errors = process.communicate()
    assert said == "here\n", errors
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
@pytest.mark.parametrize(
    ("where", "durability"),
    [("second", "sync"), ("agent", "sync"), ("second", "default"), ("agent", "default")],
)
def test_a_killed_route_goes_on_at_its_next_hop(
    address: str, tmp_path: Path, where: str, durability: str
) -> None:
    log, thread = tmp_path / "log", f"killed-{where}-{durability}"
    kill_at(where, address, thread, log, durability)
    before = {"second": ["first", "second"], "agent": ["first"]}[where]
    assert names(log) == before
    with open_saver(address) as opened:
        graph = build(opened, log)
        result = graph.invoke(None, thread_config(thread))
        # `first` had answered and is not asked again; `second` had not, where it was killed.
        assert names(log) == [*before, "second", "third"]
        assert [step["choice"] for step in result["route"]] == [*ROUTE, END_CHOICE]
        assert result["answer"] == "the third answer"
        assert result["cost"] == 3.0
        texts = [message.text for message in result["messages"]]
        assert texts == [QUESTION, "the third answer"]
        assert graph.get_state(thread_config(thread)).next == ()


def test_saved_at_the_exit_a_killed_route_is_lost(tmp_path: Path) -> None:
    """The price of durability="exit": the thread is as it was, and the question is asked anew."""
    pytest.importorskip("langgraph.checkpoint.sqlite")
    log, address = tmp_path / "log", str(tmp_path / "checkpoints.db")
    kill_at("second", address, "1", log, "exit")
    with open_saver(address) as opened:
        graph = build(opened, log)
        assert graph.get_state(thread_config("1")).values == {}
        result = graph.invoke(a_human(QUESTION), thread_config("1"))
    assert result["answer"] == "the third answer"
    assert names(log) == ["first", "second", *ROUTE]


def test_an_error_is_survived(saver: Any, config: Any, tmp_path: Path) -> None:
    """Whatever the durability: what ran before the error is kept."""
    log = tmp_path / "log"

    def fail(where: str) -> None:
        if where == "agent":
            raise AgentError("the agent is not at home")

    for number, durability in enumerate(("sync", "async", "exit")):
        its = thread_config(f"{config['configurable']['thread_id']}-{number}")
        log.unlink(missing_ok=True)
        with pytest.raises(AgentError):
            build(saver, log, fail).invoke(a_human(QUESTION), its, durability=durability)
        result = build(saver, log).invoke(None, its, durability=durability)
        assert names(log) == list(ROUTE)
        assert [step["choice"] for step in result["route"]] == [*ROUTE, END_CHOICE]


def test_what_is_loaded_is_what_was_saved(saver: Any, config: Any, tmp_path: Path) -> None:
    graph = build(saver, tmp_path / "log")
    result = graph.invoke(a_human(QUESTION), config, context=DERContext(max_cost=9.0))
    loaded = graph.get_state(config).values
    assert {name: loaded[name] for name in result} == result
    assert loaded["route"] == result["route"]


def three() -> tuple[Any, dict[str, Any]]:
    made = {name: scripted_expert(name, f"from {name}") for name in ("small", "large", "other")}
    return [expert for expert, _ in made.values()], {
        name: model for name, (_, model) in made.items()
    }


def test_time_travel_forks_a_route(saver: Any, config: Any) -> None:
    """Back to the moment before the second decision; another agent goes on from there."""
    experts, models = three()
    first = create_der_graph(experts, agent=ScriptedAgent("small", "large")).compile(
        checkpointer=saver
    )
    assert first.invoke(a_human("2 + 3?"), config)["answer"] == "from large"
    history = list(first.get_state_history(config))
    assert [snapshot.next for snapshot in reversed(history)] == [
        ("__start__",),
        ("der_agent",),
        ("small",),
        ("der_agent",),
        ("large",),
        ("der_agent",),
        ("answer",),
        (),
    ]
    earlier = next(
        snapshot
        for snapshot in history
        if snapshot.next == ("der_agent",) and len(snapshot.values.get("route") or []) == 1
    )
    second = create_der_graph(experts, agent=ScriptedAgent("small", "other")).compile(
        checkpointer=saver
    )
    forked = second.invoke(None, earlier.config)
    assert [step["choice"] for step in forked["route"]] == ["small", "other", "END"]
    assert [message.text for message in forked["messages"]] == ["2 + 3?", "from other"]
    assert [len(models[name].prompts) for name in ("small", "large", "other")] == [1, 1, 1]
    # The thread is now where the fork ended; the first route is still in its history.
    assert second.get_state(config).values["answer"] == "from other"
    assert second.get_state(history[0].config).values["answer"] == "from large"


def test_time_travel_to_a_task_asks_that_expert_again(saver: Any, config: Any) -> None:
    experts, models = three()
    agent = ScriptedAgent("small", "large")
    graph = create_der_graph(experts, agent=agent).compile(checkpointer=saver)
    graph.invoke(a_human("2 + 3?"), config)
    decided = len(agent.seen)
    task = next(s for s in graph.get_state_history(config) if s.next == ("large",))
    again = graph.invoke(None, task.config)
    assert again["answer"] == "from large"
    assert [len(models[name].prompts) for name in ("small", "large", "other")] == [1, 2, 0]
    assert len(agent.seen) == decided + 1  # END alone: the decision for `large` is in the task


def test_a_changed_answer_is_what_the_next_expert_reads(saver: Any, config: Any) -> None:
    experts, models = three()
    graph = create_der_graph(experts, agent=ScriptedAgent("small", "large")).compile(
        checkpointer=saver
    )
    graph.invoke(a_human("2 + 3?"), config)
    earlier = next(
        snapshot
        for snapshot in graph.get_state_history(config)
        if snapshot.next == ("der_agent",) and len(snapshot.values.get("route") or []) == 1
    )
    step = earlier.values["route"][0]
    corrected = {**step, "answer": an_answer("small", "corrected by hand")}
    fork = graph.update_state(earlier.config, {"route": [corrected]}, as_node="small")
    result = graph.invoke(None, fork)
    assert [each["choice"] for each in result["route"]] == ["small", "large", "END"]
    assert "corrected by hand" in models["large"].prompts[-1][-1].text
    assert "from small" not in models["large"].prompts[-1][-1].text
    assert len(models["small"].prompts) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_messages_of_a_thread_are_edited(saver: Any, config: Any, asynchronous: bool) -> None:
    """As apps trim and correct a conversation: without naming a node."""
    experts, models = three()
    agent = ScriptedAgent("small")
    kept = InMemorySaver() if asynchronous else saver  # the others have one way each
    graph = create_der_graph(experts, agent=agent).compile(checkpointer=kept)
    graph.invoke(a_human("2 + 3?"), config)
    decided = len(agent.seen)

    def update(*messages: Any) -> tuple[str, ...]:
        values = {"messages": list(messages)}
        if asynchronous:
            asyncio.run(graph.aupdate_state(config, values))
        else:
            graph.update_state(config, values)
        return graph.get_state(config).next

    answer = graph.get_state(config).values["messages"][-1]
    assert update(AIMessage("corrected", id=answer.id)) == ()
    assert update(RemoveMessage(id=answer.id)) == ()
    assert update(HumanMessage("And 3 + 4?", id="q2")) == ("der_agent",)
    assert len(agent.seen) == decided  # its budget is known once the run goes on
    result = graph.invoke(None, config, context=DERContext(max_steps=1))
    assert [each["choice"] for each in result["route"]] == ["small", "END"]
    assert "3 + 4" in models["small"].prompts[-1][-1].text
    assert update(RemoveMessage(id=REMOVE_ALL_MESSAGES)) == ()
    assert graph.invoke(a_human("2 + 3?"), config)["answer"] == "from small"


def test_an_answer_can_be_set_by_hand_before_the_route_ends(saver: Any, config: Any) -> None:
    """Stop before the answer node, look, change, go on."""
    experts, _ = three()
    graph = create_der_graph(experts, agent=ScriptedAgent("small")).compile(
        checkpointer=saver, interrupt_before=["answer"]
    )
    graph.invoke(a_human("2 + 3?"), config)
    assert graph.get_state(config).next == ("answer",)
    assert graph.get_state(config).values["route"][0]["answer"]["text"] == "from small"
    assert graph.invoke(None, config)["answer"] == "from small"


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_asynchronous_savers(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """The savers that servers use; an agent fails in mid-route, and the route goes on."""
    log = tmp_path / "log"

    def fail(where: str) -> None:
        if where == "agent":
            raise AgentError("the agent is not at home")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        if kind == "sqlite":
            from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

            async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "a.db")) as saver:
                yield saver
        else:
            from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

            async with AsyncPostgresSaver.from_conn_string(at) as saver:
                await saver.setup()
                yield saver

    async def route() -> None:
        async with opened() as saver:
            its = thread_config("asynchronous")
            with pytest.raises(AgentError):
                await build(saver, log, fail).ainvoke(a_human(QUESTION), its)
            graph = build(saver, log)
            assert (await graph.ainvoke(None, its))["answer"] == "the third answer"
            history = [snapshot async for snapshot in graph.aget_state_history(its)]
            assert history[0].next == ()

    if kind == "sqlite":
        pytest.importorskip("aiosqlite")
    else:
        at = request.getfixturevalue("postgres")
    asyncio.run(route())
    assert names(log) == list(ROUTE)


def test_as_a_subgraph_a_route_goes_on_where_it_broke_off(saver: Any, config: Any) -> None:
    from langgraph.graph import END, START, MessagesState, StateGraph

    experts, models = three()

    class Absent(ScriptedAgent):
        home = False

        def decide(self, situations: Any) -> list[Choice]:
            seen: list[Situation] = list(situations)
            if seen[0].answers and not self.home:
                raise AgentError("the agent is not at home")
            return super().decide(situations)

    agent = Absent("small", "large")
    outer: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    outer.add_node(
        "der", create_der_graph(experts, agent=agent, on_error="raise").compile(name="der")
    )
    outer.add_edge(START, "der")
    outer.add_edge("der", END)
    app = outer.compile(checkpointer=saver)
    with pytest.raises(AgentError):
        app.invoke(a_human("2 + 3?"), config)
    agent.home = True
    result = app.invoke(None, config)
    assert [message.text for message in result["messages"]] == ["2 + 3?", "from large"]
    assert [len(models[name].prompts) for name in ("small", "large", "other")] == [1, 1, 0]
