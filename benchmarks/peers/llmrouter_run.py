"""Train LLMRouter's own KNN, SVM, MLP and MF routers on the recorded pool, and route with them.

    python benchmarks/peers/llmrouter_run.py --data peers_run [--routers knn svm mlp mf]

Runs in an environment of its own (requirements-llmrouter.txt), with the package's own classes: routers and
trainers are built from a YAML file as `llmrouter train` builds them, and every question is routed by
`route_single`, as `llmrouter infer --route-only` does. Two things are adapted, neither in the package's
files: `get_longformer_embedding` gives the exported MiniLM embedding of the question instead of fetching
Longformer from a hub, and the hyperparameters, which the wheel does not contain, are those of the
configurations in its repository, with the text dimension of MiniLM (and without the SVM's probabilities,
which take most of its training time and which its `predict` does not use).

A label is the best model of a question, and where several are equally good the one whose row comes first.
With answers right or wrong, most questions are such ties, so the order of the rows decides what is learnt;
each order below is one that a user could have given. The reward is the package's own cost-aware training:
the column `performance` is replaced by alpha * quality - (1 - alpha) * cost, each scaled to [0, 1].
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_data import Floats, PeerData, Setting, save_choices

KNN = {"weights": "uniform", "algorithm": "auto", "leaf_size": 30, "p": 2, "metric": "minkowski"}
ROUTERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "knn": ("knnrouter", "KNNRouter", "KNNRouterTrainer", {"n_neighbors": 5, **KNN}),
    "knn50": ("knnrouter", "KNNRouter", "KNNRouterTrainer", {"n_neighbors": 50, **KNN}),
    "svm": (
        "svmrouter", "SVMRouter", "SVMRouterTrainer",
        {"kernel": "rbf", "C": 1.0, "gamma": "scale"},
    ),
    "mlp": (
        "mlprouter", "MLPRouter", "MLPTrainer",
        {"hidden_layer_sizes": [128, 64], "activation": "relu", "lr": 0.001, "epochs": 100,
         "batch_size": 32, "alpha": 0.0001},
    ),
    "mf": (
        "mfrouter", "MFRouter", "MFRouterTrainer",
        {"latent_dim": 128, "text_dim": 384, "lr": 0.001, "epochs": 5, "noise_alpha": 0.0},
    ),
}  # fmt: skip
"""Name: module, router, trainer, hyperparameters. knn50 is ours: 5 neighbours of 11 classes are few."""

ORDER_PRICES = (0.0, 0.6, 0.7, 1.0)
"""Rows in descending order of mean quality minus price times cost; 0 is the best model first."""
ALPHAS = (0.8, 0.4, 0.2)
"""Of the package's own sweep: 1.0 is training without the reward, and 0.6 gives the labels of 0.8."""


@dataclass(frozen=True)
class Table:
    """The routing data of one setting.

    Attributes:
        knob: What was set, in words.
        cost_weight: The price in der-graph's unit, or None.
        performance: (n, experts) the column `performance`.
        orders: (n, experts) the order of each question's rows.
    """

    knob: str
    cost_weight: float | None
    performance: Floats
    orders: np.ndarray[Any, Any]


def tables(quality: Floats, costs: Floats) -> Iterator[Table]:
    """The settings, from the training questions alone."""
    n, experts = quality.shape
    cheapest = np.argsort(costs, kind="stable")
    yield Table("rows cheapest first", None, quality, np.tile(cheapest, (n, 1)))
    rng = np.random.default_rng(0)
    shuffled = np.array([rng.permutation(experts) for _ in range(n)])
    yield Table("rows shuffled", None, quality, shuffled)
    for price in ORDER_PRICES:
        order = np.argsort(-(quality.mean(axis=0) - price * costs / costs.sum()), kind="stable")
        yield Table(f"rows by net worth, price {price:g}", price, quality, np.tile(order, (n, 1)))
    scaled = (costs - costs.min()) / np.ptp(costs)
    for alpha in ALPHAS:
        # The same price in the unit of ORDER_PRICES: quality given up for asking everyone once.
        price = (1 - alpha) / alpha * costs.sum() / np.ptp(costs)
        reward = alpha * quality - (1 - alpha) * scaled
        yield Table(
            f"reward, alpha {alpha:g}", round(float(price), 3), reward, np.tile(cheapest, (n, 1))
        )


def write_config(
    folder: Path, data: PeerData, train: np.ndarray[Any, Any], table: Table, hparam: Any
) -> Path:
    """Write the files that the package reads, and the YAML file that names them."""
    with (folder / "routing.jsonl").open("w", encoding="utf-8") as out:
        for row, question in enumerate(train):
            for expert in table.orders[row]:
                line = {
                    "query": data.questions[question],
                    "embedding_id": int(question),
                    "model_name": data.names[expert],
                    "performance": float(table.performance[row, expert]),
                }
                out.write(json.dumps(line) + "\n")
    torch.save(torch.from_numpy(data.embeddings), folder / "embeddings.pt")
    config = {
        "data_path": {
            "routing_data_train": str(folder / "routing.jsonl"),
            "query_embedding_data": str(folder / "embeddings.pt"),
        },
        "model_path": {
            "ini_model_path": "",
            "save_model_path": str(folder / "model.pkl"),
            "load_model_path": str(folder / "model.pkl"),
        },
        "metric": {"weights": {"performance": 1, "cost": 0, "llm_judge": 0}},
        "hparam": hparam,
    }
    file = folder / "config.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    return file


def route(
    kind: str, data: PeerData, train: np.ndarray[Any, Any], test: np.ndarray[Any, Any], table: Table
) -> list[int]:
    """Train one router of the package and route the test questions with it."""
    module_name, router_name, trainer_name, hparam = ROUTERS[kind]
    models = importlib.import_module("llmrouter.models")
    module = importlib.import_module(f"llmrouter.models.{module_name}.router")
    known = dict(zip(data.questions, torch.from_numpy(data.embeddings), strict=True))
    vars(module)["get_longformer_embedding"] = known.__getitem__
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        config = write_config(Path(name), data, train, table, hparam)
        router = getattr(models, router_name)(str(config))
        getattr(models, trainer_name)(router, device="cpu").train()
        routed = [router.route_single({"query": data.questions[i]})["model_name"] for i in test]
    return [data.names.index(name) for name in routed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that export.py wrote")
    parser.add_argument("--routers", nargs="+", choices=list(ROUTERS), default=list(ROUTERS))
    parser.add_argument("--knobs", nargs="+", help="only the settings of these names")
    parser.add_argument("--folds", type=int, nargs="+", help="only these, counted from 0")
    parser.add_argument("--tag", default="", help="part of the file name, for runs side by side")
    args = parser.parse_args()
    data = PeerData.load(args.data)
    packages = ("llmrouter-lib", "scikit-learn", "torch")
    versions = {name: importlib.metadata.version(name) for name in packages}
    for kind in args.routers:
        start = time.perf_counter()
        found: dict[str, Setting] = {}
        for k in args.folds or range(int(data.fold.max()) + 1):
            train, test = np.flatnonzero(data.fold != k), np.flatnonzero(data.fold == k)
            for table in tables(data.quality[train], data.costs):
                if args.knobs and table.knob not in args.knobs:
                    continue
                random.seed(k)
                np.random.seed(k)
                torch.manual_seed(k)
                setting = found.setdefault(
                    table.knob,
                    Setting(
                        f"llmrouter:{kind}", table.knob, table.cost_weight, [-1] * len(data.fold)
                    ),
                )
                for i, choice in zip(test, route(kind, data, train, test, table), strict=True):
                    setting.choices[i] = choice
            print(f"{kind}: fold {k + 1}, {time.perf_counter() - start:.0f} s", flush=True)
            file = args.data / f"choices_llmrouter_{kind}{args.tag}.json"
            save_choices(file, "LLMRouter", versions, list(found.values()))


if __name__ == "__main__":
    main()
