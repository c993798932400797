"""A new expert without retraining: how much of the gain of training with it do 30 probe questions bring?

    python benchmarks/new_expert.py --data recorded_pool --out results.json [--seeds 1] [--jobs 2]

For every fold and seed, three agents of the same settings: trained without the best model;
the same one, which is then shown that model's answers to 30 training questions (`der pool add`), several
times with other questions, because so few are a small sample; and one trained with it. Each is swept on the
test fold. The share of the gain is the second's quality above the first's, over the third's above the
first's; at the same price of cost, and at the same cost, because the three do not spend the same at one
price. The utility, quality less price times cost over that of asking everyone of the whole pool once, is what
agents are trained for, and weighs both; there the agent without the new model gets the same price for a unit
of cost, as its own price is per cost of a smaller pool.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from knob_curve import Curve, curve_of
from recorded_data import METRIC, Recorded, at_cost, split
from recorded_pool import (
    MAX_STEPS,
    PRICES,
    Points,
    joined,
    pool,
    settings,
    side_by_side,
    sweep,
    train,
)

from der_graph.data import Example
from der_graph.policies.agent import DERAgent
from der_graph.policies.evaluation.statistics import paired_difference
from der_graph.policies.quality import get_metric
from der_graph.policies.training.new_experts import probe_expert

ARMS = ("without", "added", "trained")


def trained(recorded: Recorded, learnt: list[Example], seed: int, steps: int) -> DERAgent:
    """An agent that knows its experts by profile."""
    config = settings(seed, steps)
    with tempfile.TemporaryDirectory() as folder:
        return train(recorded, learnt, config, Path(folder), watched=learnt[:100])


def averaged(draws: list[Points]) -> Points:
    """The mean over draws of every question's quality, cost and calls."""
    return [
        tuple(np.mean([draw[k][i] for draw in draws], axis=0).tolist() for i in range(3))
        for k in range(len(PRICES))
    ]


def one(job: tuple[Path, Path, int, int, int, int, int, str]) -> dict[str, Any]:
    """The three arms of one fold and seed."""
    data, vectors, fold, seed, steps, probes, draws, name = job
    whole = pool(data, vectors)
    learnt, test = split(whole.examples, fold)
    without = whole.without(name)
    agent = trained(without, learnt, seed, steps)
    newcomer = next(expert for expert in whole.experts if expert.name == name)
    rules, larger = whole.rules(MAX_STEPS), whole.source(test)
    skills, grown = [], []
    for draw in range(draws):
        added, _ = probe_expert(
            agent,
            newcomer,
            learnt,
            count=probes,
            metric=get_metric(METRIC),
            seed=seed * draws + draw,
        )
        skills.append(float(added.observer.skill[-1]))
        grown.append(sweep(added.for_pool(rules.names, rules.costs), larger, whole))
    smaller = without.source(test)
    price_unit = sum(without.rules(1).costs) / sum(rules.costs)
    points = {
        "without": sweep(agent, smaller, without),
        "same unit": sweep(agent, smaller, without, price_unit),
        "added": averaged(grown),
        "trained": sweep(trained(whole, learnt, seed, steps), larger, whole),
    }
    return {"fold": fold, "seed": seed, "skills": skills, "points": points}


def share_of(value: dict[str, float]) -> float:
    """How much of the gain of training with the expert adding it brings; NaN where there is no gain."""
    gain = value["trained"] - value["without"]
    return (value["added"] - value["without"]) / gain if gain > 0 else float("nan")


def gains(curves: dict[str, Curve]) -> list[dict[str, Any]]:
    """Quality above the agent without the expert, paired by question.

    Args:
        curves: Of the three arms.

    Returns:
        Over all prices (cost None), and at the ends and the middle of the costs that all three reach.
    """
    without = curves["without"]
    low, high = np.array([curve.ends() for curve in curves.values()]).T
    costs: list[float | None] = [None]
    if low.max() < high.min():
        costs += np.linspace(low.max(), high.min(), 3).tolist()
    found = []
    for cost in costs:
        for arm in ARMS[1:]:
            mine, base = (
                each.quality.mean(axis=0) if cost is None else each.at(cost)[0]
                for each in (curves[arm], without)
            )
            gap = paired_difference(mine, base, seed=0)
            found.append({"arm": arm, "cost": cost, "difference": gap._asdict()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recorded pool")
    parser.add_argument("--vectors", type=Path, default=Path("runs/recorded_vectors.npz"))
    parser.add_argument("--expert", default="Meta-Llama-3.1-70B-Instruct", help="the new one")
    parser.add_argument("--probes", type=int, default=30)
    parser.add_argument("--draws", type=int, default=5, help="of the probe questions")
    parser.add_argument("--folds", type=int, default=5, help="run only the first K of the 5 folds")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    pool(args.data, args.vectors)  # encodes the questions, once
    jobs = [
        (args.data, args.vectors, fold, seed, args.steps, args.probes, args.draws, args.expert)
        for seed in range(args.seeds)
        for fold in range(args.folds)
    ]
    runs = []
    for run in side_by_side(one, jobs, args.jobs):
        runs.append(run)
        print(
            f"fold {run['fold']} seed {run['seed']}: skill by the probes "
            + ", ".join(f"{skill:.3f}" for skill in run["skills"]),
            file=sys.stderr,
            flush=True,
        )
    arms: dict[str, Points] = {
        arm: joined([run["points"][arm] for run in runs]) for arm in (*ARMS, "same unit")
    }
    total = sum(pool(args.data, args.vectors).rules(MAX_STEPS).costs)
    rows: list[dict[str, Any]] = []
    print(
        f"{'price':>6}  "
        + "  ".join(f"{arm:>24}" for arm in ARMS)
        + "   share of the gain, and in utility"
    )
    for k, price in enumerate(PRICES):
        quality = {arm: float(np.mean(arms[arm][k][0])) for arm in ARMS}
        cost = {arm: float(np.mean(arms[arm][k][1])) for arm in ARMS}
        utility = {
            arm: float(np.mean(points[k][0])) - price * float(np.mean(points[k][1])) / total
            for arm, points in ((a, arms["same unit" if a == "without" else a]) for a in ARMS)
        }
        share, of_utility = share_of(quality), share_of(utility)
        shown = "  ".join(
            f"{quality[arm]:.3f} @ {cost[arm]:5.1f} B, {utility[arm]:.3f}" for arm in ARMS
        )
        print(f"{price:6.2f}  {shown}   {share:6.2f} {of_utility:6.2f}")
        rows.append(
            {
                "cost_weight": price, "quality": quality, "cost": cost, "share": share,
                "utility": utility, "share_of_utility": of_utility,
            }
        )  # fmt: skip
    for measure in ("quality", "utility"):
        over = {arm: float(np.mean([each[measure][arm] for each in rows])) for arm in ARMS}
        shown = "  ".join(f"{arm} {over[arm]:.4f}" for arm in ARMS)
        print(f"{measure} over all prices: {shown}   share {share_of(over):.2f}")
    print("\nat equal cost, between the points linearly")
    for wanted in (10, 20, 30, 40, 45, 49, 57):
        at = {
            arm: at_cost([(each["cost"][arm], each["quality"][arm]) for each in rows], wanted)
            for arm in ARMS
        }
        shown = "  ".join(f"{arm} {at[arm]:.3f}" for arm in ARMS)
        print(f"{wanted:>4} B  {shown}   share {share_of(at):.2f}")
    found = gains({arm: curve_of(arms[arm]) for arm in ARMS})
    for gain_of in found:
        gap = gain_of["difference"]
        where = f"at {gain_of['cost']:.1f} B" if gain_of["cost"] else "over all prices"
        print(
            f"{gain_of['arm']} {where}: {gap['estimate']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
        )
    if args.out:
        written = {"rows": rows, "gains": found}
        args.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
