"""Quality against cost on real recorded answers of eleven open LLMs, by cross-validation.

    python benchmarks/recorded_pool.py --data recorded_pool --out results.json [--seeds 5] [--jobs 2]

One agent is trained per fold and seed as `der train` does it without flags, and its knob is swept on the fold
that it never saw; beside it stand every single model, the one-shot routers on the same encoder, the best
cascades and the planner, swept likewise. With `--settings chosen` the agent is trained with settings that
were chosen by cross-validation on these questions. Cost is billions of parameters run per question. The
interval of DER is over questions (bootstrap) of the mean over seeds; the spread of the seeds is given too.
See `recorded_data` for the data.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from knob_curve import curve_of, differences
from recorded_data import METRIC, Recorded, at_cost, load, split

from der_graph.data import Example
from der_graph.nodes.decision import RoutingAgent
from der_graph.policies.agent import DERAgent
from der_graph.policies.answers import AnswerSource
from der_graph.policies.baselines import PREDICTORS, BestCascades, Cascade, OneShotRouter, Single
from der_graph.policies.evaluation.statistics import bootstrap_interval
from der_graph.policies.observation import ObservationConfig
from der_graph.policies.planning import Planner
from der_graph.policies.quality import get_metric
from der_graph.policies.training import TrainConfig, preset, run_routes, split_dev, train_agent
from der_graph.policies.training.reward import PRESETS
from der_graph.state import DERContext

PRICES = (0.02, 0.03, 0.05, 0.08, 0.13, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3)
"""Points of the knob."""
MAX_STEPS = 4
"""Longest route: the default of a pool."""
Points = list[tuple[list[float], list[float], list[int]]]
"""Per price: quality, cost and calls of every test question."""
Job = TypeVar("Job")
Done = TypeVar("Done")


def settings(
    seed: int, steps: int, reward: str = "default", *, any_pool: bool = True, warm: bool = True
) -> TrainConfig:
    """Training settings, the same for every fold; see docs/results.md on how they were chosen.

    Args:
        seed: Of the training.
        steps: Decisions.
        reward: Preset of the reward. With another than the default training begins from random weights: the
            cascades are best for the default one.
        any_pool: Know experts by profile; or give each an output of its own.
        warm: Begin from the best cascades.
    """
    return preset(
        "default",
        seed=seed,
        steps=steps,
        batch=512,
        cost_weight=0.3,
        cost_weight_range=(0.02, 1.5),
        budget_share=0.0,
        evaluations=10,
        keep="last",
        any_pool=any_pool,
        warm_start="cascades" if warm and reward == "default" else "none",
        reward=PRESETS[reward],
        observation=ObservationConfig(question_dims=3, answer_dims=0),
    )


@lru_cache(maxsize=1)
def pool(data: Path, vectors: Path) -> Recorded:
    """The pool, read once per process."""
    return load(data, vectors)


def sweep(
    agent: RoutingAgent, source: AnswerSource, recorded: Recorded, price_unit: float = 1.0
) -> Points:
    """Test questions routed at every price, in another unit if one is given."""
    rules = recorded.rules(MAX_STEPS)
    points: Points = []
    for price in PRICES:
        episodes = run_routes(
            agent, source, rules, context=DERContext(cost_weight=price * price_unit)
        )
        points.append(
            ([e.quality for e in episodes], [e.cost for e in episodes], [e.calls for e in episodes])
        )
    return points


def train(
    recorded: Recorded,
    questions: Sequence[Example],
    config: TrainConfig,
    folder: Path,
    *,
    watched: Sequence[Example],
    max_steps: int = MAX_STEPS,
) -> DERAgent:
    """Train one agent.

    Args:
        recorded: The pool.
        questions: What it learns from.
        config: See `settings`.
        folder: Where the training writes.
        watched: Questions of the training curve; the last agent is kept, whatever they say.
        max_steps: Longest route.
    """
    agent = train_agent(
        recorded.experts,
        questions,
        watched,
        folder,
        config,
        rules=recorded.rules(max_steps),
        ktp="none",
        metric=get_metric(METRIC),
        encoder=recorded.encoder,
        progress=False,
    )
    assert isinstance(agent, DERAgent)  # `settings` asks for no other kind
    return agent


def side_by_side(work: Callable[[Job], Done], jobs: Sequence[Job], at_once: int) -> Iterator[Done]:
    """Do jobs in processes of their own, with one thread each; results in the jobs' order."""
    with ProcessPoolExecutor(
        at_once, mp_context=get_context("spawn"), initializer=_one_thread
    ) as workers:
        yield from workers.map(work, jobs)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def train_one(job: tuple[Path, Path, int, int, int | None, str]) -> dict[str, Any]:
    """One fold and seed: the swept points, the time, and the curve of training."""
    data, vectors, fold, seed, steps, reward = job
    recorded = pool(data, vectors)
    learnt, test = split(recorded.examples, fold)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        if steps is None:
            mine, dev = split_dev(learnt, seed=seed)
            config = preset("default", seed=seed, reward=PRESETS[reward])
            agent = train(recorded, mine, config, Path(folder), watched=dev)
        else:
            agent = train(
                recorded, learnt, settings(seed, steps, reward), Path(folder), watched=test
            )
        seconds = time.perf_counter() - start
        with open(Path(folder) / "progress.csv", encoding="utf-8") as rows:
            curve = [
                (int(row["time/steps"]), float(row["dev/quality"]), float(row["dev/cost"]))
                for row in csv.DictReader(rows)
                if row.get("dev/quality")
            ]
    points = sweep(agent, recorded.source(test), recorded)
    return {"fold": fold, "seed": seed, "seconds": seconds, "curve": curve, "points": points}


def others(recorded: Recorded, fold: int) -> dict[str, Points]:
    """Single models, one-shot routers and cascades on one fold."""
    train, test = split(recorded.examples, fold)
    rules, source = recorded.rules(MAX_STEPS), recorded.source(test)
    found: dict[str, Points] = {}

    def once(name: str, agent: RoutingAgent) -> None:
        episodes = run_routes(agent, source, rules)
        found[name] = [
            ([e.quality for e in episodes], [e.cost for e in episodes], [e.calls for e in episodes])
        ]

    for name in rules.names:
        once(f"single:{name}", Single(rules.names, rules.costs, name))
    for agreeing in (2, 3):
        once(f"cascade:{agreeing}", Cascade(rules.names, rules.costs, agreeing))
    quality = recorded.first_quality(train)
    best = BestCascades(rules.names, rules.costs, recorded.encoder)
    best.fit([example.question for example in train], quality, recorded.first_values(train))
    found["cascade:best"] = sweep(best, source, recorded)
    texts = [[o.answer["text"] for o in row] for row in recorded.source(train).first_answers()]
    found["planner"] = sweep(
        Planner.fit(
            rules.names, rules.costs, [example.question for example in train], quality,
            recorded.first_values(train), texts=texts, encoder=recorded.encoder,
        ),
        source, recorded,
    )  # fmt: skip
    for kind in ("knn", "logistic", "mlp", "kmeans", "matrix"):
        router = OneShotRouter(rules.names, rules.costs, recorded.encoder, PREDICTORS[kind]())
        router.fit([example.question for example in train], quality)
        found[f"router:{kind}"] = sweep(router, source, recorded)
    return found


def joined(parts: list[Points]) -> Points:
    """The points of all folds, put together by price."""
    return [
        tuple([x for part in parts for x in part[k][i]] for i in range(3))  # type: ignore[misc]
        for k in range(len(parts[0]))
    ]


def row(
    method: str, price: float | None, quality: list[float], cost: float, calls: float
) -> dict[str, Any]:
    interval = bootstrap_interval(quality, seed=0)
    return {
        "method": method, "cost_weight": price, "quality": interval.estimate, "low": interval.low,
        "high": interval.high, "cost": cost, "calls": calls,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recorded pool")
    parser.add_argument("--vectors", type=Path, default=Path("runs/recorded_vectors.npz"))
    parser.add_argument("--folds", type=int, default=5, help="run only the first K of the 5 folds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--settings", default="default", choices=["default", "chosen"])
    parser.add_argument("--steps", type=int, default=200_000, help="of the chosen settings")
    parser.add_argument("--reward", default="default", choices=list(PRESETS))
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    parser.add_argument("--only-der", action="store_true", help="leave the other methods out")
    parser.add_argument("--out", type=Path, help="write the table, and all curves, as JSON")
    args = parser.parse_args()
    recorded = pool(args.data, args.vectors)
    steps = args.steps if args.settings == "chosen" else None
    jobs = [
        (args.data, args.vectors, fold, seed, steps, args.reward)
        for seed in range(args.seeds)
        for fold in range(args.folds)
    ]
    runs = []
    for run in side_by_side(train_one, jobs, args.jobs):
        runs.append(run)
        print(
            f"fold {run['fold']} seed {run['seed']}: {run['seconds']:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    found = {} if args.only_der else {
        name: joined([part[name] for part in parts])
        for parts in [[others(recorded, fold) for fold in range(args.folds)]]
        for name in parts[0]
    }  # fmt: skip
    rows = []
    for name, points in found.items():
        for price, (quality, cost, calls) in zip(
            PRICES if len(points) > 1 else [None], points, strict=True
        ):
            rows.append(row(name, price, quality, float(np.mean(cost)), float(np.mean(calls))))
    by_seed = [
        joined([run["points"] for run in runs if run["seed"] == seed]) for seed in range(args.seeds)
    ]
    for k, price in enumerate(PRICES):
        each_question = np.mean([points[k][0] for points in by_seed], axis=0).tolist()
        mean_cost = float(np.mean([points[k][1] for points in by_seed]))
        mean_calls = float(np.mean([points[k][2] for points in by_seed]))
        rows.append(row("der", price, each_question, mean_cost, mean_calls))
    curves = {name: curve_of(points) for name, points in found.items()}
    curves["der"] = curve_of(np.mean(np.array(by_seed, dtype=np.float64), axis=0))
    for each in rows:
        knob = "" if each["cost_weight"] is None else f"@{each['cost_weight']:g}"
        print(
            f"{each['method'] + knob:<38} {each['quality']:.3f} [{each['low']:.3f}, {each['high']:.3f}]"
            f"  {each['cost']:6.1f} B  {each['calls']:.2f} calls"
        )
    print("\nquality at a cost, interpolated")
    names = sorted({each["method"] for each in rows if each["cost_weight"] is not None})
    for name in names:
        curve = [(each["cost"], each["quality"]) for each in rows if each["method"] == name]
        print(
            f"{name:<18}",
            *(f"{c} B {at_cost(curve, c):.3f}  " for c in (20, 30, 40, 45, 47, 50, 55, 60, 100)),
        )
    for seed, points in enumerate(by_seed):
        curve = [(float(np.mean(cost)), float(np.mean(quality))) for quality, cost, _ in points]
        print(
            f"der seed {seed:<9}",
            *(f"{c} B {at_cost(curve, c):.3f}  " for c in (20, 30, 40, 45, 47, 50, 55, 60, 100)),
        )
    if args.out:
        written = {
            "rows": rows,
            "curves": [
                {key: run[key] for key in ("fold", "seed", "seconds", "curve")} for run in runs
            ],
            "differences": differences(curves),
            "seeds": [curve_of(points).means() for points in by_seed],
        }
        args.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
