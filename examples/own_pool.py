"""A pool of your own: any chat model, Runnable or plain function is an expert; then an agent trained on it.

Run it with `python examples/own_pool.py`; it takes a minute, and needs no GPU and no key.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from der_graph import Expert, create_der_graph
from der_graph.data import Example
from der_graph.nodes.ktp import KTPTemplate
from der_graph.nodes.langchain import as_expert
from der_graph.policies.observation import TextEncoder
from der_graph.policies.training import preset, split_dev, train_agent
from der_graph.pool import Pool, pool_from

PRICES = {"tea": 3, "coffee": 4, "cake": 5, "soup": 7}


def price_list(question: str) -> str:
    """Knows prices, cannot calculate."""
    found = [
        f"{n} * {PRICES[item]}" for n, item in re.findall(r"(\d+) (tea|coffee|cake|soup)", question)
    ]
    return " + ".join(found) or "I do not sell that."


def till(expression: str) -> str:
    """Calculates, knows no prices."""
    terms = re.findall(r"(\d+) \* (\d+)", expression)
    return str(sum(int(a) * int(b) for a, b in terms)) if terms else "?"


def waiter(question: str) -> str:
    """Dear, and good at everything else."""
    return "We open at 8." if "open" in question else "Certainly."


def build_pool() -> Pool:
    """Three experts. The till gets what the expert before it said, and nothing else."""
    experts: list[Expert] = [
        as_expert(
            price_list, name="price-list", cost=1.0, ktp=KTPTemplate("question", "{question}")
        ),
        as_expert(till, name="till", cost=0.2, ktp=KTPTemplate("hand-over", "{answer}")),
        as_expert(waiter, name="waiter", cost=5.0),
    ]
    return pool_from(experts, max_steps=3)


def questions() -> list[Example]:
    """Orders, which need two experts, and a question that needs one."""
    rows = []
    for i in range(120):
        tea, cake = i % 9 + 1, i % 7 + 1
        if i % 3:
            question = f"What do {tea} tea and {cake} cake cost?"
            rows.append(Example(f"order/{i}", question, str(3 * tea + 5 * cake)))
        else:
            rows.append(Example(f"hours/{i}", f"Guest {i} asks: when do you open?", "8"))
    return rows


def main(steps: int = 30_000, encoder: TextEncoder | None = None) -> Sequence[str]:
    """Train, then ask; returns the experts of the last route."""
    pool = build_pool()
    train, dev = split_dev(questions(), share=0.2)
    with tempfile.TemporaryDirectory() as folder:
        agent = train_agent(
            list(pool), train, dev, Path(folder), preset("default", steps=steps, envs=64), rules=pool.rules,
            encoder=encoder, say=print,
        )  # fmt: skip
        der = create_der_graph(pool, agent=agent).compile(name="cafe")
        state = der.invoke({"messages": [("user", "What do 2 tea and 3 cake cost?")]})
    route = [step["choice"] for step in state["route"]]
    print(" -> ".join(route), "=", state["answer"])
    return route


if __name__ == "__main__":
    main()
