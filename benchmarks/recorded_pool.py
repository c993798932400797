"""Quality against cost on real recorded answers of eleven open LLMs, by cross-validation.

    python benchmarks/recorded_pool.py --data recorded_pool [--folds 5] [--seeds 1] [--steps 300000]

`--data` is a folder with train.jsonl.gz and dev.jsonl.gz in the MixInstruct layout, recorded scores under
`accuracy`; both are put together and cut into folds. One agent is trained per fold and seed, and its knob is
swept on the fold that it never saw; beside it stand every single model and the one-shot routers on the same
encoder, swept likewise. Cost is billions of parameters run per question. Prints a table and, with `--out`,
writes it as JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from der_graph.data import Example, load_examples
from der_graph.nodes.expert import Expert
from der_graph.nodes.hub import RoutingAgent
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.baselines import Single
from der_graph.policies.encoder import SentenceEncoder
from der_graph.policies.observation import ObservationConfig
from der_graph.policies.quality import get_metric
from der_graph.policies.rollout import Episode, run_routes
from der_graph.policies.routers import PREDICTORS, OneShotRouter
from der_graph.policies.statistics import bootstrap_interval
from der_graph.policies.train import split_dev, train_agent
from der_graph.policies.train_config import preset
from der_graph.state import DERContext

# Billions of parameters, as published with the models.
SIZES = {
    "gemma-2-2b-it": 2.6,
    "Phi-3.5-mini-instruct": 3.8,
    "Qwen2-7B-Instruct": 7.6,
    "Meta-Llama-3.1-8B-Instruct": 8.0,
    "Yi-1.5-9B-Chat": 8.8,
    "gemma-2-9b-it": 9.2,
    "gemma-2-27b-it": 27.2,
    "Yi-1.5-34B-Chat": 34.4,
    "Meta-Llama-3-70B-Instruct": 70.6,
    "Meta-Llama-3.1-70B-Instruct": 70.6,
    "Qwen2-72B-Instruct": 72.7,
}
PRICES = (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0)
"""Points of the knob; the agent's range begins at 0.02, so 0 is its lowest price."""

Curves = dict[str, list[list[Episode]]]


def together(folder: Path, into: Path) -> Path:
    """Put the parts of the data into one file, which the recorded experts read."""
    file = into / "all.jsonl.gz"
    with gzip.open(file, "wt", encoding="utf-8") as out:
        for part in ("train", "dev"):
            with gzip.open(folder / f"{part}.jsonl.gz", "rt", encoding="utf-8") as rows:
                out.writelines(rows)
    return file


def sweep(agent: RoutingAgent, source: AnswerSource, rules: RouteRules) -> list[list[Episode]]:
    """Episodes at every point of the knob."""
    return [
        run_routes(agent, source, rules, context=DERContext(cost_weight=price)) for price in PRICES
    ]


def one_fold(
    experts: list[Expert],
    train: Sequence[Example],
    test: Sequence[Example],
    seeds: int,
    args: argparse.Namespace,
    encoder: SentenceEncoder,
) -> Curves:
    """All methods on one fold."""
    metric = get_metric("recorded:accuracy")
    rules = RouteRules(tuple(SIZES), tuple(SIZES.values()), args.max_steps)
    source = AnswerSource(experts, test, metric, ktp="none")
    names, costs = rules.names, rules.costs
    curves: Curves = {
        f"single:{name}": [run_routes(Single(names, costs, name), source, rules)] for name in names
    }
    first = AnswerSource(experts, train, metric, ktp="none").first_answers()
    quality = np.array([[outcome.quality for outcome in row] for row in first])
    for kind in ("knn", "logistic", "mlp", "kmeans"):
        router = OneShotRouter(names, costs, encoder, PREDICTORS[kind]())
        router.fit([example.question for example in train], quality)
        curves[f"router:{kind}"] = sweep(router, source, rules)
    kept, aside = split_dev(train, share=0.15)
    for seed in range(seeds):
        config = preset(
            "default",
            seed=seed,
            steps=args.steps,
            cost_weight=0.15,
            cost_weight_range=(0.02, 1.0),
            observation=ObservationConfig(question_dims=args.question_dims, answer_dims=0),
        )
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            agent = train_agent(
                experts, kept, aside, folder, config, rules=rules, ktp="none", metric=metric, encoder=encoder
            )  # fmt: skip
        print(f"  seed {seed}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        curves[f"der (seed {seed})"] = sweep(agent, source, rules)
    return curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recorded pool")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument(
        "--run-folds", type=int, help="only the first of the folds, for a quick look"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--max-steps", type=int, default=5)
    parser.add_argument("--question-dims", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    encoder = SentenceEncoder()
    with tempfile.TemporaryDirectory() as folder:
        file = together(args.data, Path(folder))
        examples = load_examples(file)
        experts = [
            Expert(name, RecordedChat(data=str(file), model=name), cost=size, ktp=TEMPLATES["none"])
            for name, size in SIZES.items()
        ]
        fold = np.random.default_rng(0).permutation(len(examples)) % args.folds
        found: Curves = {}
        for k in range(args.run_folds or args.folds):
            print(f"fold {k + 1} of {args.folds}", file=sys.stderr)
            train = [e for e, f in zip(examples, fold, strict=True) if f != k]
            test = [e for e, f in zip(examples, fold, strict=True) if f == k]
            for name, points in one_fold(experts, train, test, args.seeds, args, encoder).items():
                mine = found.setdefault(name, [[] for _ in points])
                for whole, part in zip(mine, points, strict=True):
                    whole.extend(part)
    rows = []
    for name, points in found.items():
        for price, episodes in zip(PRICES if len(points) > 1 else [None], points, strict=True):
            interval = bootstrap_interval([e.quality for e in episodes], seed=0)
            cost = float(np.mean([e.cost for e in episodes]))
            calls = float(np.mean([e.calls for e in episodes]))
            rows.append(
                {"method": name, "cost_weight": price, "quality": interval.estimate,
                 "low": interval.low, "high": interval.high, "cost": cost, "calls": calls}
            )  # fmt: skip
            knob = "" if price is None else f"@{price:g}"
            print(
                f"{name + knob:<36} {interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
                f"  {cost:6.1f} B  {calls:.2f} calls"
            )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
