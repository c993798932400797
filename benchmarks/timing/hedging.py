"""Slow calls, with another expert asked beside them."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import numpy as np
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from der_graph import Expert, create_der_graph
from timing.graph import InTurn
from timing.measuring import Spread, verdict


def sleeping_expert(name: str, seed: int, slow: float) -> Expert:
    """An expert somewhere else: 50 to 150 ms for a call, twenty times that for the slow ones."""
    rng = np.random.default_rng(seed)

    async def answer(messages: Any) -> AIMessage:
        seconds = rng.uniform(0.05, 0.15) * (20.0 if rng.random() < slow else 1.0)
        await asyncio.sleep(seconds)
        return AIMessage("42")

    def never(messages: Any) -> AIMessage:
        raise NotImplementedError

    return Expert(name, RunnableLambda(never, answer), cost=1.0)


def hedging(args: argparse.Namespace) -> int:
    """Routes of one call, a share of which is slow, alone and with the next best expert asked beside it."""

    async def measure(hedge: Any) -> tuple[Spread, float, float]:
        experts = [sleeping_expert(name, i, args.slow / 100) for i, name in enumerate("ab")]
        der = create_der_graph(experts, agent=InTurn(1), max_steps=1, hedge=hedge).compile()
        places = asyncio.Semaphore(args.at_once)
        times, cost = [], 0.0

        async def route(i: int) -> None:
            nonlocal cost
            async with places:
                start = time.perf_counter()
                state = await der.ainvoke({"messages": [HumanMessage("6 * 7?", id=f"q{i}")]})
                if i >= 50:  # until then nobody knows what is usual
                    times.append(time.perf_counter() - start)
                    cost += state["cost"]

        for batch in (range(50), range(50, 50 + args.routes)):
            await asyncio.gather(*map(route, batch))
        return Spread.of(times), float(np.percentile(times, 99)), cost / len(times)

    tails, costs = [], []
    for hedge in (None, "p95", "p90"):
        spread, tail, cost = asyncio.run(measure(hedge))
        tails.append(tail)
        costs.append(cost)
        figures = [1000 * each for each in (spread.median, spread.p95, tail)]
        shown = "  ".join(
            f"{name} {ms:5.0f} ms"
            for name, ms in zip(("median", "p95", "p99"), figures, strict=True)
        )
        print(f"hedge {hedge or 'off':<4} {shown}  {cost:.3f} calls a route")
    met = min(tails[1:]) <= tails[0] / 2 and max(costs) <= 1.15
    return verdict("p99 halved for a tenth more calls", met)
