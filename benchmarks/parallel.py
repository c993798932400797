"""What asking two experts at once saves: a route that asks two and looks whether they agree.

    python benchmarks/parallel.py [--repeats 40]

The experts answer after fixed times (0.20 and 0.25 s), so everything else is the graph's own. Target: at most
1.15 times the slower expert alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from der_graph.graph import create_der_graph
from der_graph.nodes.expert import Expert
from der_graph.policies.baselines.voting import Cascade

SECONDS = {"quick": 0.20, "slow": 0.25}


def expert(name: str) -> Expert:
    """Answers after its time."""

    def wait(_: Any) -> AIMessage:
        time.sleep(SECONDS[name])
        return AIMessage("The answer is 42.")

    return Expert(name, RunnableLambda(wait), cost=1.0)


def median(run: Any, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    pool = [expert(name) for name in SECONDS]
    alone = median(lambda: pool[1].model.invoke("?"), repeats)
    print(f"the slower one alone: {alone * 1000:.0f} ms")
    for parallel in (1, 2):
        agent = Cascade(list(SECONDS), [1.0, 1.0])
        der = create_der_graph(pool, agent=agent, parallel=parallel).compile()
        der.invoke({"messages": [("user", "?")]})  # warm
        taken = median(lambda: der.invoke({"messages": [("user", "?")]}), repeats)  # noqa: B023
        print(f"parallel={parallel}: {taken * 1000:.0f} ms, {taken / alone:.2f} times that")


if __name__ == "__main__":
    main()
