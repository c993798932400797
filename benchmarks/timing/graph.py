"""The graph's own time per step; see `overhead`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send

from der_graph import Expert, create_der_graph
from der_graph.nodes.decision import Choice
from der_graph.state import Situation
from timing.measuring import Spread, show, verdict

LONG_ANSWER = (
    "First there are three boxes of four apples, which makes twelve. The answer is 12. " * 5
)
LONG_QUESTION = "Ann has three boxes of four apples and eats one. How many apples are left? " * 2


class InTurn:
    """Asks the experts in the pool's order, as many as it is told to."""

    def __init__(self, steps: int) -> None:
        self.steps, self.size = steps, 0

    def check_pool(self, names: Sequence[str]) -> None:
        """Any pool will do."""
        self.size = len(names)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """The next expert, or END after the last."""
        done = [len(situation.answers) for situation in situations]
        chosen = [step if step < self.steps else self.size for step in done]
        return [Choice(i, [float(k == i) for k in range(self.size + 1)]) for i in chosen]


def instant_expert(name: str) -> Expert:
    """An expert that answers without thinking."""

    async def later(_: Any) -> AIMessage:
        return AIMessage(LONG_ANSWER)

    return Expert(name, RunnableLambda(lambda _: AIMessage(LONG_ANSWER), later), cost=1.0)


class BareState(MessagesState):
    """State of the bare loop."""

    route: list[str]


def bare_loop(experts: Sequence[Expert], steps: int, asynchronous: bool) -> Any:
    """The least that LangGraph needs for the same: a hub, an edge that sends, and nodes."""

    def hub(state: BareState) -> None:
        """Does nothing."""

    async def later_hub(state: BareState) -> None:
        """Does nothing."""

    def edge(state: BareState) -> Send:
        route = state.get("route") or []
        name = experts[len(route)].name if len(route) < steps else "answer"
        return Send(name, {"messages": state["messages"], "route": route})

    async def later_edge(state: BareState) -> Send:
        return edge(state)

    def answer(task: BareState) -> dict[str, Any]:
        return {"messages": [AIMessage(task["route"][-1])], "route": [*task["route"], "END"]}

    async def later_answer(task: BareState) -> dict[str, Any]:
        return answer(task)

    def node_of(expert: Expert) -> Any:
        def node(task: BareState) -> dict[str, Any]:
            said = expert.model.invoke(task["messages"])
            return {"route": [*task["route"], said.text]}

        async def later_node(task: BareState) -> dict[str, Any]:
            said = await expert.model.ainvoke(task["messages"])
            return {"route": [*task["route"], said.text]}

        return later_node if asynchronous else node

    graph: Any = StateGraph(BareState)
    graph.add_node("hub", later_hub if asynchronous else hub)
    graph.add_edge(START, "hub")
    for expert in experts:
        step: Any = node_of(expert)
        graph.add_node(expert.name, step)
        graph.add_edge(expert.name, "hub")
    graph.add_node("answer", later_answer if asynchronous else answer)
    names = [*(expert.name for expert in experts), "answer"]
    graph.add_conditional_edges("hub", later_edge if asynchronous else edge, names)
    return graph


def time_per_step(
    routes: int, steps: int, *, asynchronous: bool, saved: bool, bare: bool = False
) -> list[float]:
    """Milliseconds per step of each route, after a few to warm up."""
    experts = [instant_expert(f"expert-{i}") for i in range(6)]
    builder = (
        bare_loop(experts, steps, asynchronous)
        if bare
        else create_der_graph(experts, agent=InTurn(steps), max_steps=steps)
    )
    graph = builder.compile(checkpointer=InMemorySaver() if saved else None)
    times: list[float] = []

    async def run() -> None:
        for i in range(-5, routes):
            given: Any = {"messages": [("user", f"{LONG_QUESTION}{i}")]}
            config: RunnableConfig = {"configurable": {"thread_id": str(i)}}
            start = time.perf_counter()
            if asynchronous:
                result = await graph.ainvoke(given, config)
            else:
                result = graph.invoke(given, config)
            if i >= 0:
                times.append((time.perf_counter() - start) * 1000 / steps)
            assert len(result["route"]) == steps + 1

    gc.collect()
    asyncio.run(run())
    return times


def overhead(args: argparse.Namespace) -> int:
    """The graph's own time per step: everything but the experts' generation and the agent's network.

    Experts answer at once and the agent follows a script, so what is measured is LangGraph's supersteps, the
    rules, the Knowledge Transfer Prompt, the route log and the checkpoints. A step is one expert with the
    decision before it; a route is timed as a whole, END and the answer node are shared among its steps. The
    bare loop is the same route in plain LangGraph: what is above it is this project's.
    """
    rows, cpu = {}, {}
    for asynchronous in (False, True):
        for saved in (False, True):
            for bare in (False, True):
                saver = "InMemorySaver" if saved else "no checkpointer"
                name = f"{'ainvoke' if asynchronous else 'invoke'}, {saver}{', bare loop' * bare}"
                start = time.process_time()
                times = time_per_step(
                    args.routes, args.steps, asynchronous=asynchronous, saved=saved, bare=bare
                )
                cpu[name] = (time.process_time() - start) * 1000 / (len(times) * args.steps)
                rows[name] = Spread.of(times)
    if args.json:
        print(json.dumps({name: {**row._asdict(), "cpu": cpu[name]} for name, row in rows.items()}))
        return 0
    show(rows, f"ms per step, {args.routes} routes of {args.steps} experts")
    print("CPU time per step, ms:", ", ".join(f"{name} {ms:.2f}" for name, ms in cpu.items()))
    ratios = {n: cpu[n] / cpu[f"{n}, bare loop"] for n in cpu if "bare" not in n}
    print("times the bare loop (CPU):", ", ".join(f"{n} {r:.2f}" for n, r in ratios.items()))
    return verdict(
        "p95 under 5 ms", all(row.p95 < 5.0 for name, row in rows.items() if "bare" not in name)
    )
