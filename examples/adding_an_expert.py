"""A new expert joins a trained agent: ten probe questions, no training.

Run it with `python examples/adding_an_expert.py`; it takes a minute, and needs no GPU and no key. The same
from the command line: `der train ...`, then `der pool add ...`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from der_graph import Expert, create_der_graph
from der_graph.data import Example
from der_graph.nodes.langchain import as_expert
from der_graph.policies.agent import DERAgent
from der_graph.policies.observation import TextEncoder
from der_graph.policies.training import preset, split_dev, train_agent
from der_graph.policies.training.new_experts import probe_expert
from der_graph.pool import pool_from


def guesser(question: str) -> str:
    """Cheap, and right now and then."""
    return "7"


def half(question: str) -> str:
    """Adds up, but only even numbers."""
    a, b = (int(n) for n in re.findall(r"\d+", question)[:2])
    return str(a + b) if a % 2 == 0 else "?"


def adder(question: str) -> str:
    """Adds up."""
    a, b = (int(n) for n in re.findall(r"\d+", question)[:2])
    return str(a + b)


def questions() -> list[Example]:
    """Sums."""
    pairs = [(i % 17 + 1, i % 13 + 2) for i in range(120)]
    return [
        Example(f"sum/{i}", f"What is {a} + {b}?", str(a + b)) for i, (a, b) in enumerate(pairs)
    ]


def main(steps: int = 30_000, encoder: TextEncoder | None = None) -> Sequence[str]:
    """Train without the adder, add it, and ask; returns the experts of the route."""
    old: list[Expert] = [
        as_expert(guesser, name="guesser", cost=0.5),
        as_expert(half, name="half", cost=1.0),
    ]
    new = as_expert(adder, name="adder", cost=1.0)
    train, dev = split_dev(questions(), share=0.2)
    config = preset("default", steps=steps, envs=64)
    with tempfile.TemporaryDirectory() as folder:
        before = train_agent(
            old, train, dev, Path(folder), config, rules=pool_from(old, max_steps=2).rules,
            encoder=encoder, say=print,
        )  # fmt: skip
    assert isinstance(before, DERAgent)  # the other kind reads texts and takes no new experts
    agent, quality = probe_expert(before, new, train, count=10)
    print(f"adder: quality {quality:.2f} on 10 probe questions")
    der = create_der_graph(pool_from([*old, new], max_steps=2), agent=agent).compile(name="der")
    state = der.invoke({"messages": [("user", "What is 5 + 6?")]})
    route = [step["choice"] for step in state["route"]]
    print(" -> ".join(route), "=", state["answer"])
    return route


if __name__ == "__main__":
    main()
