"""What each part is worth, on the recorded pool: train again with one thing changed, and test.

    python benchmarks/ablations.py --data recorded_pool --out ablations.json [--work FOLDER] [--folds 2]

Longest route, size of the pool, number of training questions, a task never trained on, the reward's beta, a
bad expert, copies of every expert, and how far routes differ between two seeds. See `ablation_studies` for
the list and `ablation_tables` for how a row is made. Each training's results go to `--work` at once: an
interrupted run goes on where it stopped.
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
from typing import Any, NamedTuple

import numpy as np
from ablation_studies import Item, Training, part, plan, trainings
from ablation_tables import tables
from bad_experts import Fault, cloned, spoiled
from recorded_data import Recorded, split
from recorded_pool import MAX_STEPS, PRICES, pool, settings, side_by_side, train

from der_graph.data import Example
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.training import TrainConfig, run_routes
from der_graph.policies.training.reward import reward_config
from der_graph.state import DERContext

ONE_PRICE = (0.2,)
"""Where a fault is looked at: a user's knob stays where it was when an expert breaks."""


def config_of(how: Training, seed: int, steps: int) -> TrainConfig:
    """Its settings."""
    warm = how.warm and how.beta is None
    config = settings(seed, steps, any_pool=how.any_pool, warm=warm)
    if how.beta is not None:
        config = replace(config, reward=reward_config("paper", gain=how.beta))
    return replace(config, evaluations=1)  # nobody looks at the curve


def trained(
    recorded: Recorded, questions: Sequence[Example], how: Training, config: TrainConfig
) -> DERAgent:
    """Train one agent."""
    with tempfile.TemporaryDirectory() as folder:
        return train(
            recorded,
            questions,
            config,
            Path(folder),
            watched=questions[:50],
            max_steps=how.max_steps,
        )


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
    config = config_of(how, seed, steps)
    start = time.perf_counter()
    agent = trained(recorded, chosen(learnt, how, seed), how, config)
    seconds = time.perf_counter() - start
    return {
        "training": asdict(how), "fold": fold, "seed": seed, "steps": steps, "seconds": seconds,
        "settings": repr(config),
        "tasks": [example.task for example in asked],
        "tests": {test: tested(agent, recorded, fold, how, test) for test in item.tests},
    }  # fmt: skip


class Job(NamedTuple):
    """One training with its tests, and where its results go."""

    data: Path
    vectors: Path
    work: Path
    item: Item
    fold: int
    seed: int
    steps: int

    @property
    def file(self) -> Path:
        """Its results."""
        return self.work / f"{self.item.training.key}.fold{self.fold}.seed{self.seed}.json"

    def done(self) -> dict[str, Any] | None:
        """Its results, if they are there whole and were made with the same settings."""
        unit: dict[str, Any] | None = None
        if self.file.is_file():
            unit = json.loads(self.file.read_text(encoding="utf-8"))
        config = config_of(self.item.training, self.seed, self.steps)
        if unit is None or unit.get("settings") != repr(config):
            return None
        return None if set(self.item.tests) - set(unit["tests"]) else unit


def do(job: Job) -> dict[str, Any]:
    """Read a job's results, or work them out and keep them."""
    unit = job.done()
    if unit is None:
        unit = run(pool(job.data, job.vectors), job.item, job.fold, job.seed, job.steps)
        part_file = job.file.with_suffix(".part")
        part_file.write_text(json.dumps(unit) + "\n", encoding="utf-8")
        part_file.replace(job.file)  # whole or not at all
    return unit


def collected(jobs: Sequence[Job], at_once: int) -> list[dict[str, Any]]:
    """All trainings: those whose results are there are read, the others run."""
    units: list[dict[str, Any]] = []
    for number, (job, unit) in enumerate(
        zip(jobs, side_by_side(do, jobs, at_once), strict=True), 1
    ):
        print(
            f"{number}/{len(jobs)} {job.file.stem}: {unit['seconds']:.0f} s",
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
    parser.add_argument("--folds", type=int, default=5, help="run only the first K of the 5 folds")
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        help="of each training; of the standard one there is one more",
    )
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
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
        pool(args.data, args.vectors)  # encodes the questions, once
        args.work.mkdir(parents=True, exist_ok=True)
        items = [i for i in plan() if not args.only or args.only in i.training.key]
        jobs = [
            Job(args.data, args.vectors, args.work, item, fold, seed, args.steps)
            for item, fold, seed in trainings(items, args.folds, args.seeds)
        ]
        units = collected(jobs, args.jobs)
    found = tables(units)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for study, rows in found["studies"].items():
        for row in rows:
            mean, cost = row["quality"]["estimate"], row["cost"]
            print(f"{study:<16} {row['label']:<44} {mean:.3f}  {cost:.1f} B")


if __name__ == "__main__":
    assert Training().max_steps == MAX_STEPS
    main()
