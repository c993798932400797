"""How long an agent takes to decide, with few experts and with many."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np
import torch

from der_graph import load_agent
from der_graph.data import load_examples
from der_graph.demo.showcase import demo_file
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import Shape, make_network
from der_graph.policies.observation import ObservationConfig, Observer
from der_graph.policies.observation.encoder import Vectors
from der_graph.state import Answer, Situation
from timing.measuring import Spread, seconds_of, show, verdict


def an_answer(expert: str, text: str, value: str | None = None) -> Answer:
    return Answer(
        expert=expert, text=text, value=value, cost=1.0, input_tokens=20, output_tokens=30, seconds=0.1,
        logprob=None, error=None,
    )  # fmt: skip


def decision(args: argparse.Namespace) -> int:
    """How long the agent takes to decide, encoding included.

    The first decision on a question encodes the question; a later one encodes the last answer. Every text is
    new, so nothing comes from the encoder's memory.
    """
    agent = load_agent(args.agent)
    everyone = [True] * len(agent.names)
    questions = [e.question for e in load_examples(demo_file("train.jsonl"), limit=args.repeats)]
    agent.decide([Situation("warm up", mask=[*everyone, False], max_steps=3)])
    first = [Situation(q, mask=[*everyone, False], max_steps=3) for q in questions]
    said = [[an_answer(agent.names[0], f"It may be {i} of them.")] for i in range(len(questions))]
    later = [
        Situation(q, a, [*everyone, True], max_steps=3)
        for q, a in zip(questions, said, strict=True)
    ]
    rows = {}
    for name, situations in (
        ("first decision (encodes the question)", first),
        ("later decision (encodes the last answer)", later),
        ("nothing new to encode", later),
    ):
        times = [1000 * seconds_of(lambda s=s: agent.decide([s]))[0] for s in situations]  # type: ignore[misc]
        rows[name] = Spread.of(times)
    show(rows, f"ms, {torch.get_num_threads()} threads")
    return verdict("median under 30 ms", all(row.median < 30 for row in rows.values()))


class KnownTexts:
    """Stands for an encoder that has seen every text: a random direction for each."""

    name = "known"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(texts, 384)."""
        rows = np.random.default_rng(len(texts)).normal(size=(len(texts), 384))
        unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit


def random_agent(experts: int, seed: int = 0) -> DERAgent:
    """An agent for a large pool, with 1,500 probe questions and random weights."""
    rng = np.random.default_rng(seed)
    skill = rng.uniform(0.1, 0.9, experts)
    observer = Observer.fit(
        ObservationConfig(question_dims=3, answer_dims=0),
        [f"expert-{i}" for i in range(experts)],
        rng.lognormal(2.0, 1.0, experts).tolist(),
        KnownTexts(),
        questions=[f"question {i}" for i in range(1500)],
        answers=[],
        qualities=(rng.random((1500, experts)) < skill).astype(np.float32),
        lengths=rng.lognormal(4.0, 1.0, (1500, experts)).astype(np.float32),
    )
    shape = Shape(experts, observer.context_size, observer.expert_size, 64)
    return DERAgent(observer, make_network(shape), cost_weight=0.2, cost_weight_range=(0.02, 2.0))


def large_pool(args: argparse.Namespace) -> int:
    """How long a decision takes with many experts, beyond the encoder: texts are known already.

    The agent knows experts by profile; its weights are random, because the time does not depend on them.
    Routes have up to five answers.
    """
    rng = np.random.default_rng(1)
    rows = {}
    for experts in args.experts:
        agent, times = random_agent(experts), []
        for i in range(args.repeats + 10):
            asked = rng.choice(experts, int(rng.integers(0, 6)), replace=False).tolist()
            values = [str(rng.integers(0, 3)) for _ in asked]
            said = [
                an_answer(agent.names[k], f"It is {v}.", v)
                for k, v in zip(asked, values, strict=True)
            ]
            mask = [k not in asked for k in range(experts)] + [bool(said)]
            situation = Situation(f"new {i % 50}", said, mask, max_steps=6)
            agent.observer.observe([situation], [0.2])  # the question is looked up once per route
            times.append(1000 * seconds_of(lambda s=situation, a=agent: a.decide([s]))[0])  # type: ignore[misc]
        rows[experts] = Spread.of(times[10:])
    if args.out:
        found = [
            {"experts": n, "repeats": args.repeats, "p50_ms": row.median, "p95_ms": row.p95}
            for n, row in rows.items()
        ]
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show({f"{n} experts": row for n, row in rows.items()}, f"ms, {torch.get_num_threads()} threads")
    return 0
