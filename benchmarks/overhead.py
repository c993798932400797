"""The graph's own time per step: everything but the experts' generation and the agent's network.

    python benchmarks/overhead.py [--routes 200] [--steps 4] [--json]

Experts answer at once and the agent follows a script, so what is measured is LangGraph's supersteps, the
rules, the Knowledge Transfer Prompt, the route log and, where asked for, the checkpoints. A step is one
expert with the decision before it; a route of n experts is timed as a whole, and its last decision (END) and
the answer node are shared among its steps. Target: p95 under 5 ms on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("LANGSMITH_TRACING", "false")  # the time of a tracer is not the graph's

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from der_graph import Expert, create_der_graph
from der_graph.nodes.hub import Choice
from der_graph.state import Situation

TARGET_MS = 5.0
ANSWER = "First there are three boxes of four apples, which makes twelve. The answer is 12. " * 5
QUESTION = "Ann has three boxes of four apples and eats one. How many apples are left? " * 2


class InTurn:
    """Asks the experts in the pool's order, as many as it is told to."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.size = 0

    def check_pool(self, names: Sequence[str]) -> None:
        """Any pool will do."""
        self.size = len(names)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """The next expert, or END after the last."""
        return [self._choose(len(situation.answers)) for situation in situations]

    def _choose(self, step: int) -> Choice:
        index = step if step < self.steps else self.size
        return Choice(index, [float(i == index) for i in range(self.size + 1)])


def instant_expert(name: str) -> Expert:
    """An expert that answers without thinking."""

    async def later(_: Any) -> AIMessage:
        return AIMessage(ANSWER)

    return Expert(name, RunnableLambda(lambda _: AIMessage(ANSWER), later), cost=1.0)


def measure(routes: int, steps: int, *, asynchronous: bool, checkpointed: bool) -> list[float]:
    """Milliseconds per step of each route, after a few to warm up."""
    experts = [instant_expert(f"expert-{i}") for i in range(6)]
    graph = create_der_graph(experts, agent=InTurn(steps), max_steps=steps).compile(
        checkpointer=InMemorySaver() if checkpointed else None
    )

    def inputs(i: int) -> tuple[dict[str, Any], RunnableConfig]:
        return {"messages": [("user", f"{QUESTION}{i}")]}, {"configurable": {"thread_id": str(i)}}

    times: list[float] = []

    def note(i: int, start: float, result: dict[str, Any]) -> None:
        if i >= 0:
            times.append((time.perf_counter() - start) * 1000 / steps)
        assert len(result["route"]) == steps + 1

    def run() -> None:
        for i in range(-5, routes):
            given, config = inputs(i)
            start = time.perf_counter()
            note(i, start, graph.invoke(given, config))

    async def arun() -> None:
        for i in range(-5, routes):
            given, config = inputs(i)
            start = time.perf_counter()
            note(i, start, await graph.ainvoke(given, config))

    gc.collect()
    runner: Callable[[], None] = (lambda: asyncio.run(arun())) if asynchronous else run
    runner()
    return times


def main() -> int:
    """Measure, print a table; 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--routes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=4, choices=range(1, 7))
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    options = parser.parse_args()
    rows = []
    for asynchronous in (False, True):
        for checkpointed in (False, True):
            start = time.process_time()
            times = measure(
                options.routes, options.steps, asynchronous=asynchronous, checkpointed=checkpointed
            )
            computing = (time.process_time() - start) * 1000 / (len(times) * options.steps)
            cuts = statistics.quantiles(times, n=20, method="inclusive")
            rows.append(
                {
                    "call": "ainvoke" if asynchronous else "invoke",
                    "checkpointer": "InMemorySaver" if checkpointed else "none",
                    "p50_ms": round(statistics.median(times), 3),
                    "p95_ms": round(cuts[18], 3),
                    "worst_ms": round(max(times), 3),
                    "cpu_ms": round(computing, 3),
                }
            )
    good = all(row["p95_ms"] < TARGET_MS for row in rows)
    if options.json:
        print(json.dumps({"routes": options.routes, "steps": options.steps, "rows": rows}))
        return 0 if good else 1
    print(f"The graph's own time per step: {options.routes} routes of {options.steps} experts\n")
    print(f"{'call':<9}{'checkpointer':<15}{'p50 ms':>9}{'p95 ms':>9}{'worst ms':>10}{'cpu ms':>9}")
    for row in rows:
        print(
            f"{row['call']:<9}{row['checkpointer']:<15}"
            f"{row['p50_ms']:>9.2f}{row['p95_ms']:>9.2f}{row['worst_ms']:>10.2f}{row['cpu_ms']:>9.2f}"
        )
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > (os.cpu_count() or 1):
        print(f"\nThe machine is busy (load {busy:.1f}): trust the CPU time (mean), not the clock.")
    print(f"\ntarget: p95 under {TARGET_MS:g} ms: {'met' if good else 'missed'}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
