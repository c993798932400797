"""How long the agent takes to decide, encoding included, on the CPU.

    python benchmarks/decision.py [--agent demo] [--repeats 200]

The first decision on a question encodes the question; a later one encodes the last answer. Every text is new,
so nothing comes from the encoder's memory. Target: under 30 ms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch

from der_graph.data import load_examples
from der_graph.demo.showcase import demo_file
from der_graph.policies.agent import DERAgent, load_agent
from der_graph.state import Answer, Situation


def answer(expert: str, text: str) -> Answer:
    return Answer(
        expert=expert,
        text=text,
        value=None,
        cost=0.1,
        input_tokens=1,
        output_tokens=1,
        seconds=0.1,
        logprob=None,
        error=None,
    )


def timed(agent: DERAgent, situations: Sequence[Situation]) -> list[float]:
    """Milliseconds of each decision, one at a time."""
    out = []
    for situation in situations:
        start = time.perf_counter()
        agent.decide([situation])
        out.append((time.perf_counter() - start) * 1000)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default="demo")
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()
    agent = load_agent(args.agent)
    n = len(agent.names)
    questions = [e.question for e in load_examples(demo_file("train.jsonl"), limit=args.repeats)]
    everyone = [True] * n
    agent.decide([Situation("warm up", mask=[*everyone, False], max_steps=3)])
    first = [Situation(q, mask=[*everyone, False], max_steps=3) for q in questions]
    later = [
        Situation(
            q, [answer(agent.names[0], f"It may be {i} of them.")], [*everyone, True], max_steps=3
        )
        for i, q in enumerate(questions)
    ]
    # Again with the questions known: features and network alone.
    print(f"{torch.get_num_threads()} threads, {len(questions)} questions, milliseconds")
    for name, situations in (
        ("first decision (encodes the question)", first),
        ("later decision (encodes the last answer)", later),
        ("nothing new to encode", later),
    ):
        times = timed(agent, situations)
        print(f"{name:<42} p50 {np.median(times):6.2f}   p95 {np.quantile(times, 0.95):6.2f}")


if __name__ == "__main__":
    main()
