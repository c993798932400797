"""How long a decision takes with many experts, beyond the encoder, on the CPU.

    python benchmarks/large_pool.py [--experts 1000] [--repeats 200]

An agent that knows experts by profile (random weights: the time does not depend on them), 1,500 probe
questions, routes of up to five answers. Texts are known already, so the encoder has nothing to do. Target:
under 10 ms for 1,000 experts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import Shape, make_network
from der_graph.policies.observation import ObservationConfig, Observer
from der_graph.policies.observation.encoder import Vectors
from der_graph.state import Answer, Situation


class KnownTexts:
    """Stands for an encoder that has seen every text: a random direction for each."""

    name = "known"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(texts, 384)."""
        rows = np.random.default_rng(len(texts)).normal(size=(len(texts), 384))
        unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit


def make_agent(experts: int, seed: int = 0) -> DERAgent:
    rng = np.random.default_rng(seed)
    names = [f"expert-{i}" for i in range(experts)]
    skill = rng.uniform(0.1, 0.9, experts)
    observer = Observer.fit(
        ObservationConfig(question_dims=3, answer_dims=0),
        names,
        rng.lognormal(2.0, 1.0, experts).tolist(),
        KnownTexts(),
        questions=[f"question {i}" for i in range(1500)],
        answers=[],
        qualities=(rng.random((1500, experts)) < skill).astype(np.float32),
        lengths=rng.lognormal(4.0, 1.0, (1500, experts)).astype(np.float32),
    )
    shape = Shape(experts, observer.context_size, observer.expert_size, 64)
    return DERAgent(observer, make_network(shape), cost_weight=0.2, cost_weight_range=(0.02, 2.0))


def answer(agent: DERAgent, index: int, value: int) -> Answer:
    return Answer(
        expert=agent.names[index],
        text=f"It is {value}.",
        value=str(value),
        cost=1.0,
        input_tokens=20,
        output_tokens=30,
        seconds=0.1,
        logprob=None,
        error=None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    rows = []
    print(f"{torch.get_num_threads()} threads, milliseconds")
    for experts in args.experts:
        agent = make_agent(experts)
        times = []
        for i in range(args.repeats + 10):
            asked = rng.choice(experts, int(rng.integers(0, 6)), replace=False).tolist()
            answers = [answer(agent, k, int(rng.integers(0, 3))) for k in asked]
            mask = [k not in asked for k in range(experts)] + [bool(answers)]
            situation = Situation(f"new {i % 50}", answers, mask, max_steps=6)
            agent.observer.observe([situation], [0.2])  # the question is looked up once per route
            start = time.perf_counter()
            agent.decide([situation])
            times.append((time.perf_counter() - start) * 1000)
        kept = times[10:]
        p50, p95 = float(np.median(kept)), float(np.quantile(kept, 0.95))
        rows.append({"experts": experts, "repeats": args.repeats, "p50_ms": p50, "p95_ms": p95})
        print(f"{experts:>5} experts   p50 {p50:6.2f}   p95 {p95:6.2f}")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
