"""What each step brings, from no data to all of it: quality at one mean cost, on the recorded pool.

    python benchmarks/upgrade_path.py --data DIR --out benchmarks/upgrade_path.json

Five folds; every planner is swept over prices on the questions of its fold, the folds' means make one curve,
and that is read at `--cost`. A step that was measured is not measured again. Steps: nothing known but sizes;
30 and 100 random training questions, each expert asked; the training questions streamed once without
references, one route in ten rated, beginning with nothing; all of them, every expert asked, with what they
agree on in place of references; all with references.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from recorded_data import Recorded, at_cost, load, split

from der_graph.data import Example
from der_graph.policies.planning import Planner
from der_graph.policies.planning.forms import read_route
from der_graph.policies.planning.learning.relearning import Served, relearn
from der_graph.policies.training.agreement import agreed_values
from der_graph.policies.training.mdp import run_routes
from der_graph.state import DERContext, Situation

PRICES = (0.13, 0.2, 0.3, 0.4, 0.5, 0.6)
STEPS = 5
DRAWS = 2
STREAM_PRICE = 0.3
RATED = 0.1
EXPLORE = 0.05
EVERY = 50

Maker = Callable[[Recorded, list[Example], np.random.Generator], Planner]


def sizes(pool: Recorded) -> dict[str, Any]:
    costs = [expert.cost for expert in pool.experts]
    return {"names": [e.name for e in pool.experts], "costs": costs, "sizes": costs}


def no_data(pool: Recorded, train: list[Example], rng: np.random.Generator) -> Planner:
    return Planner.from_prior(**sizes(pool))


def probes(count: int) -> Maker:
    def make(pool: Recorded, train: list[Example], rng: np.random.Generator) -> Planner:
        return fitted(pool, [train[i] for i in rng.choice(len(train), count, replace=False)])

    return make


def fitted(pool: Recorded, train: Sequence[Example], quality: Any = None) -> Planner:
    rows = pool.source(train).first_answers()
    known = np.array([[o.quality for o in row] for row in rows]) if quality is None else quality
    return Planner.fit(
        questions=[example.question for example in train],
        qualities=known,
        values=[[o.answer["value"] for o in row] for row in rows],
        texts=[[o.answer["text"] for o in row] for row in rows],
        encoder=pool.encoder,
        **sizes(pool),
    )


def everything(pool: Recorded, train: list[Example], rng: np.random.Generator) -> Planner:
    return fitted(pool, train)


def agreed(pool: Recorded, train: list[Example], rng: np.random.Generator) -> Planner:
    rows = [[o.answer for o in row] for row in pool.source(train).first_answers()]
    values = agreed_values(pool.experts, rows, "parameters_b")
    kept = [i for i, value in enumerate(values) if value is not None]
    quality = np.array([[float(a["value"] == values[i]) for a in rows[i]] for i in kept])
    return fitted(pool, [train[i] for i in kept], quality)


def streamed(pool: Recorded, train: list[Example], rng: np.random.Generator) -> Planner:
    planner = Planner.from_prior(**sizes(pool))
    base, names = planner.knowledge, planner.names
    position = {name: i for i, name in enumerate(names)}
    rows = pool.source(train).first_answers()
    served: list[Served] = []
    spent = explored = 0.0
    for n, q in enumerate(rng.permutation(len(train)).tolist()):
        route: list[int] = []
        precision = planner.knowledge.precision[0]
        least = np.flatnonzero(precision <= precision.min() * 1.5)
        first = int(rng.choice(least))
        if explored + planner.costs[first] <= EXPLORE * spent:
            route, explored = [first], explored + planner.costs[first]
        while len(route) < STEPS:
            answers = [rows[q][i].answer for i in route]
            mask = [i not in route for i in range(len(names))] + [bool(route)]
            seen = Situation(
                train[q].question, answers, mask, max_steps=STEPS, cost_weight=STREAM_PRICE
            )
            chosen = planner.decide([seen])[0].index
            if chosen == len(names):
                break
            route.append(chosen)
        spent += sum(planner.costs[i] for i in route)
        told = read_route([rows[q][i].answer for i in route], position, base.never[0])
        rated = rows[q][route[-1]].quality if rng.random() < RATED else None
        served.append(Served(0, told, rated))
        if (n + 1) % EVERY == 0:
            planner.update(relearn(base, served[-2000:], planner.knowledge))
    return planner


MAKERS: dict[str, tuple[str, Maker, int]] = {
    "no data": ("minute 1", no_data, 1),
    "30 probes": ("minute 10", probes(30), DRAWS),
    "100 probes": ("minute 30", probes(100), DRAWS),
    "served, 10 % rated": ("day 1", streamed, 1),
    "all, no references (agreement)": ("week 1", agreed, 1),
    "all, with references": ("week 1", everything, 1),
}


def sweep(pool: Recorded, planner: Planner, test: list[Example]) -> list[tuple[float, float]]:
    source, found = pool.source(test), []
    for price in PRICES:
        routes = run_routes(
            planner, source, pool.rules(STEPS), context=DERContext(cost_weight=price)
        )
        found.append(
            (float(np.mean([r.cost for r in routes])), float(np.mean([r.quality for r in routes])))
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, default=Path("build/recorded_vectors.npz"))
    parser.add_argument("--cost", type=float, default=45.0)
    parser.add_argument("--step", action="append", choices=list(MAKERS), help="default: all")
    parser.add_argument("--picture", type=Path, help="draw the curve of all steps")
    args = parser.parse_args()
    done: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    pool = load(args.data, args.vectors)
    for step in args.step or MAKERS:
        when, make, draws = MAKERS[step]
        for fold in range(5):
            train, test = split(pool.examples, fold)
            for draw in range(draws):
                key = f"{step}|{fold}|{draw}"
                if key in done:
                    continue
                start = time.perf_counter()
                planner = make(pool, train, np.random.default_rng(100 * fold + draw))
                done[key] = sweep(pool, planner, test)
                args.out.write_text(json.dumps(done, indent=1) + "\n")
                print(f"{key}: {time.perf_counter() - start:.0f} s", flush=True)
        print(f"{when:<10} {step:<32} {of(done, step, args.cost):.3f} at {args.cost:g}", flush=True)
    if args.picture:
        draw_steps(done, args.cost, args.picture)


def of(done: dict[str, Any], step: str, cost: float) -> float:
    """Quality of a step at a mean cost."""
    mean = np.array([curve for key, curve in done.items() if key.split("|")[0] == step]).mean(
        axis=0
    )
    return at_cost([(float(c), float(q)) for c, q in mean], cost)


def draw_steps(done: dict[str, Any], cost: float, file: Path) -> None:
    """The steps as one curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    there = [step for step in MAKERS if any(key.startswith(f"{step}|") for key in done)]
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    axes.plot(range(len(there)), [of(done, step, cost) for step in there], "o-", color="black")
    axes.set_xticks(
        range(len(there)), [f"{MAKERS[s][0]}\n{s.replace(', ', chr(10))}" for s in there]
    )
    axes.tick_params(labelsize=7)
    axes.set_ylabel(f"quality at {cost:g} B")
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
