"""What each part is worth, on the recorded pool: train again with one thing changed, and test.

    python benchmarks/ablations.py --data recorded_pool --out ablations.json [--work FOLDER] [--folds 2]

Longest route, size of the pool, number of training questions, a task never trained on, the reward's beta, a
bad expert, copies of every expert, and how far routes differ between two seeds. See `ablation_plan` for the
list and `ablation_tables` for how a row is made. Each training's results go to `--work` at once: an
interrupted run goes on where it stopped. One process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from ablation_plan import Item, Training, part, plan, trainings
from ablation_tables import tables
from bad_experts import Fault, cloned, spoiled
from recorded_data import METRIC, Recorded, load, split
from recorded_pool import MAX_STEPS, PRICES, settings

from der_graph.data import Example
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.quality import get_metric
from der_graph.policies.reward import reward_config
from der_graph.policies.rollout import run_routes
from der_graph.policies.train import train_agent
from der_graph.state import DERContext

ONE_PRICE = (0.2,)
"""Where a fault is looked at: a user's knob stays where it was when an expert breaks."""


def train(
    recorded: Recorded, questions: Sequence[Example], how: Training, seed: int, steps: int
) -> DERAgent:
    """Train one agent."""
    config = settings(seed, steps, any_pool=how.any_pool)
    if how.beta is not None:
        config = replace(config, reward=reward_config("paper", gain=how.beta))
    with tempfile.TemporaryDirectory() as folder:
        agent: DERAgent = train_agent(
            recorded.experts,
            questions,
            questions[:50],  # for the curve alone: the last agent is kept
            folder,
            replace(config, evaluations=1),
            rules=recorded.rules(how.max_steps),
            ktp="none",
            metric=get_metric(METRIC),
            encoder=recorded.encoder,
            progress=False,
        )
    return agent


def chosen(questions: Sequence[Example], how: Training, seed: int) -> list[Example]:
    """The training questions that a training may use."""
    left = [example for example in questions if example.task != how.without_task]
    if how.questions is None:
        return left
    order = np.random.default_rng(seed).permutation(len(left))[: how.questions]
    return [left[i] for i in sorted(order.tolist())]


def only(recorded: Recorded, names: Sequence[str]) -> Recorded:
    """The pool of some of its experts."""
    return recorded._replace(experts=[e for e in recorded.experts if e.name in names])


def bad_one(recorded: Recorded, told: str) -> Recorded:
    """The pool with the bad expert of `expert:fault`."""
    name, _, fault = told.partition(":")
    kind: Fault = "noise" if fault == "noise" else "wrong"
    return spoiled(recorded, name, kind)


def tested(
    agent: DERAgent, recorded: Recorded, fold: int, how: Training, test: str
) -> dict[str, Any]:
    """Route the test questions, under the conditions of one test."""
    name, _, value = test.partition("=")
    prices: Sequence[float] = PRICES
    context = DERContext()
    if name == "max_steps":
        context = DERContext(max_steps=int(value))
    elif name == "part":
        recorded = only(recorded, part(int(value)))
    elif name == "bad":
        recorded, prices = bad_one(recorded, value), ONE_PRICE
    elif name == "clones":
        before = sum(expert.cost for expert in recorded.experts)
        recorded, agent = cloned(recorded, agent, int(value))
        # The price is a share of asking everyone: the same price per parameter is a larger number.
        scale = sum(expert.cost for expert in recorded.experts) / before
        prices = [price * scale for price in PRICES[1::2]]
    rules: RouteRules = recorded.rules(how.max_steps)
    agent = agent.for_pool(rules.names, rules.costs)
    source = recorded.source(split(recorded.examples, fold)[1])
    points, routes = [], []
    start, decided = time.perf_counter(), 0
    for price in prices:
        episodes = run_routes(agent, source, rules, context=replace(context, cost_weight=price))
        points.append(
            [[e.quality for e in episodes], [e.cost for e in episodes], [e.calls for e in episodes]]
        )
        routes.append([" ".join(map(str, e.experts)) for e in episodes])
        decided += sum(e.calls for e in episodes)
    seconds = time.perf_counter() - start
    found: dict[str, Any] = {"prices": list(prices), "points": points}
    if test == "plain":
        found["routes"] = routes
    return {**found, "ms_per_call": 1000 * seconds / max(1, decided)}


def run(recorded: Recorded, item: Item, fold: int, seed: int, steps: int) -> dict[str, Any]:
    """One training with its tests."""
    how = item.training
    recorded = only(recorded, part(how.experts))
    if how.bad:
        recorded = bad_one(recorded, how.bad)
    learnt, asked = split(recorded.examples, fold)
    start = time.perf_counter()
    agent = train(recorded, chosen(learnt, how, seed), how, seed, steps)
    seconds = time.perf_counter() - start
    return {
        "training": asdict(how), "fold": fold, "seed": seed, "steps": steps, "seconds": seconds,
        "tasks": [example.task for example in asked],
        "tests": {test: tested(agent, recorded, fold, how, test) for test in item.tests},
    }  # fmt: skip


def collected(
    recorded: Recorded, work: Path, *, folds: int, seeds: int, steps: int, items: Sequence[Item]
) -> list[dict[str, Any]]:
    """All trainings: those in `work` are read, the others run."""
    units: list[dict[str, Any]] = []
    work.mkdir(parents=True, exist_ok=True)
    jobs = trainings(items, folds, seeds)
    for number, (item, fold, seed) in enumerate(jobs, 1):
        file = work / f"{item.training.key}.fold{fold}.seed{seed}.json"
        unit = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if unit is None or unit["steps"] != steps or set(item.tests) - set(unit["tests"]):
            unit = run(recorded, item, fold, seed, steps)
            part_file = file.with_suffix(".part")
            part_file.write_text(json.dumps(unit) + "\n", encoding="utf-8")
            part_file.replace(file)  # whole or not at all
            print(
                f"{number}/{len(jobs)} {item.training.key} fold {fold} seed {seed}: {unit['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        units.append(unit)
    return units


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recorded pool")
    parser.add_argument("--vectors", type=Path, default=Path("runs/recorded_vectors.npz"))
    parser.add_argument("--work", type=Path, default=Path("runs/results/ablations"))
    parser.add_argument("--folds", type=int, default=2, help="run only the first K of the 5 folds")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=150_000, help="of each training")
    parser.add_argument("--only", help="trainings whose key has this word (see --work); for trying")
    parser.add_argument(
        "--read", action="store_true", help="train nothing: table of what --work has"
    )
    parser.add_argument("--out", type=Path, required=True, help="write the tables as JSON")
    args = parser.parse_args(argv)
    if args.read:
        units = [json.loads(file.read_text("utf-8")) for file in sorted(args.work.glob("*.json"))]
    else:
        import torch

        torch.set_num_threads(1)
        items = [i for i in plan() if not args.only or args.only in i.training.key]
        units = collected(
            load(args.data, args.vectors), args.work, folds=args.folds, seeds=args.seeds,
            steps=args.steps, items=items,
        )  # fmt: skip
    found = tables(units)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for study, rows in found["studies"].items():
        for row in rows:
            mean, cost = row["quality"]["estimate"], row["cost"]
            print(f"{study:<16} {row['label']:<44} {mean:.3f}  {cost:.1f} B")


if __name__ == "__main__":
    assert Training().max_steps == MAX_STEPS
    main()
