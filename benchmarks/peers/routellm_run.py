"""Retrain RouteLLM's matrix-factorisation router on the recorded pool, and route with it.

    OPENAI_API_KEY=none python benchmarks/peers/routellm_run.py --data peers_run

Runs in an environment of its own (requirements-routellm.txt), with the package's own classes:
`MFModel_Train` and `train_loops` as its training script calls them (dimension 128, 100 epochs, learning
rate 3e-4, noise 0.1), then `MatrixFactorizationRouter.route`. Adapted, none of it in the package's files:

- The embeddings are MiniLM's (384 numbers), not text-embedding-3-small's (1,536): the package's
  `OPENAI_CLIENT` is replaced by a table of the exported ones. The key above is never used; the package
  wants one at import.
- `MODEL_IDS`, a fixed list of 64 models, holds the models of the pool instead.
- Human votes are replaced by comparisons of the recorded answers: a right answer beats a wrong one. Ties
  are left out, as the package's script leaves them out.
- Training on a CPU, which its script does not do by itself, with batches cut from tensors: the same batches,
  but faster than the package's loader.

The router decides between two models. The strong one is the best on the training questions. The weak one
makes the best pair when a coin tosses between the two at `--budget`, on the training questions too. The
threshold is set as the package's `calibrate_threshold` does, from the wanted share of strong calls, on the
training questions. With `--every-weak`, each cheaper model is tried as the weak one besides; to pick the
best of these would be to pick on the test questions.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from peer_data import Floats, PeerData, Setting, save_choices

PACKAGE = "routellm.routers.matrix_factorization"
DIM = 128
SHARES = tuple(round(0.1 * k, 1) for k in range(11))


class Table:
    """Stands where the package has its OpenAI client, and gives the exported embeddings."""

    def __init__(self, data: PeerData) -> None:
        self._known = dict(zip(data.questions, data.embeddings.tolist(), strict=True))
        self.embeddings = self

    def create(self, input: list[str], model: str) -> SimpleNamespace:
        """Answer as `OpenAI.embeddings.create` does."""
        return SimpleNamespace(
            data=[SimpleNamespace(embedding=self._known[text]) for text in input]
        )


class Batches:
    """Batches of a dataset of the package, whose own loader builds each from single tensors and is slower."""

    def __init__(self, dataset: Any, size: int, *, shuffle: bool) -> None:
        rows = [dataset[i] for i in range(len(dataset))]
        self._columns = [torch.tensor([int(row[c]) for row in rows]) for c in range(3)]
        self._size = size
        self._shuffle = shuffle

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Winner, loser and question of each comparison, in a new order every time if shuffled."""
        n = len(self._columns[0])
        order = torch.randperm(n) if self._shuffle else torch.arange(n)
        for part in torch.split(order, self._size):
            yield tuple(column[part] for column in self._columns)


def comparisons(
    data: PeerData, train: np.ndarray[Any, Any], models: Sequence[int]
) -> list[dict[str, Any]]:
    """Every pair of models and training question where one is right and the other is wrong."""
    found = []
    for question in train:
        right = [m for m in models if data.quality[question, m] == 1]
        wrong = [m for m in models if data.quality[question, m] == 0]
        for a in right:
            for b in wrong:
                found.append(
                    {"model_a": data.names[a], "model_b": data.names[b], "winner": "model_a",
                     "idx": int(question)}
                )  # fmt: skip
    random.shuffle(found)
    return found


def train_model(
    data: PeerData, train: np.ndarray[Any, Any], models: Sequence[int], folder: Path
) -> int:
    """Train as the package's script does, and save what its router loads.

    Returns:
        The number of comparisons.
    """
    script = importlib.import_module(f"{PACKAGE}.train_matrix_factorization")
    np.save(folder / "embeddings.npy", data.embeddings)
    found = comparisons(data, train, models)
    cut = int(len(found) * 0.95)
    loaders = [
        Batches(script.PairwiseDataset(found[:cut]), 64, shuffle=True),
        Batches(script.PairwiseDataset(found[cut:]), 1024, shuffle=False),
    ]
    size = {"num_models": len(data.names), "text_dim": data.embeddings.shape[1]}
    net = script.MFModel_Train(
        dim=DIM, num_prompts=len(data.questions), npy_path=folder / "embeddings.npy", **size
    )
    with contextlib.redirect_stderr(io.StringIO()):
        script.train_loops(
            net, *loaders, lr=3e-4, weight_decay=1e-5, alpha=0.1, num_epochs=100, device="cpu"
        )
    model = importlib.import_module(f"{PACKAGE}.model").MFModel(
        dim=DIM, num_classes=1, use_proj=True, **size
    )
    model.P.load_state_dict(net.P.state_dict())
    model.text_proj[0].load_state_dict(net.text_proj.state_dict())
    model.classifier[0].load_state_dict(net.classifier.state_dict())
    model.save_pretrained(folder / "router", config={})
    return len(found)


def route(
    data: PeerData, train: np.ndarray[Any, Any], test: np.ndarray[Any, Any], strong: int, weak: int,
    folder: Path,
) -> dict[str, list[int]]:  # fmt: skip
    """Choices for the test questions at every share of strong calls."""
    router = importlib.import_module("routellm.routers.routers").MatrixFactorizationRouter(
        str(folder / "router"), strong_model=data.names[strong], weak_model=data.names[weak],
        hidden_size=DIM, num_models=len(data.names), text_dim=data.embeddings.shape[1],
    )  # fmt: skip
    pair = importlib.import_module("routellm.controller").ModelPair(
        data.names[strong], data.names[weak]
    )
    rates = [router.calculate_strong_win_rate(data.questions[i]) for i in train]
    found = {}
    for share in SHARES:
        threshold = float(np.quantile(rates, 1 - share)) if share else np.inf
        threshold = 0.0 if share == 1 else threshold
        found[f"strong share {share:g}"] = [
            data.names.index(router.route(data.questions[i], threshold, pair)) for i in test
        ]
    return found


def weak_model(quality: Floats, costs: Floats, strong: int, budget: float) -> int:
    """The model that makes the best pair with the strong one by the toss of a coin at the budget."""
    share = (budget - costs) / np.where(costs < costs[strong], costs[strong] - costs, np.inf)
    mixed = quality + share * (quality[strong] - quality)
    return int(np.where(costs <= budget, mixed, -np.inf).argmax())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that export.py wrote")
    parser.add_argument("--budget", type=float, default=45.0, help="billions of parameters")
    parser.add_argument(
        "--every-weak", action="store_true", help="each cheaper model as the weak one"
    )
    parser.add_argument("--folds", type=int, nargs="+", help="only these, counted from 0")
    parser.add_argument("--tag", default="", help="part of the file name, for runs side by side")
    args = parser.parse_args()
    data = PeerData.load(args.data)
    model_module: Any = importlib.import_module(f"{PACKAGE}.model")
    model_module.OPENAI_CLIENT = Table(data)
    model_module.MODEL_IDS.clear()
    model_module.MODEL_IDS.update({name: i for i, name in enumerate(data.names)})
    versions = {name: importlib.metadata.version(name) for name in ("routellm", "torch", "openai")}
    found: dict[tuple[str, str], Setting] = {}

    def keep(method: str, test: np.ndarray[Any, Any], choices: dict[str, list[int]]) -> None:
        for knob, chosen in choices.items():
            setting = found.setdefault(
                (method, knob), Setting(method, knob, None, [-1] * len(data.fold))
            )
            for i, choice in zip(test, chosen, strict=True):
                setting.choices[i] = choice

    for k in args.folds or range(int(data.fold.max()) + 1):
        start = time.perf_counter()
        train, test = np.flatnonzero(data.fold != k), np.flatnonzero(data.fold == k)
        mean = data.quality[train].mean(axis=0)
        strong = int(mean.argmax())
        weak = weak_model(mean, data.costs, strong, args.budget)
        random.seed(k)
        torch.manual_seed(k)
        with tempfile.TemporaryDirectory() as name:
            pairs = train_model(data, train, range(len(data.names)), Path(name))
            keep("routellm:mf", test, route(data, train, test, strong, weak, Path(name)))
            cheaper = [m for m in range(len(data.names)) if data.costs[m] < data.costs[strong]]
            for other in cheaper if args.every_weak else ():
                chosen = route(data, train, test, strong, other, Path(name))
                keep(f"routellm:mf, weak {data.names[other]}", test, chosen)
        with tempfile.TemporaryDirectory() as name:
            train_model(data, train, (strong, weak), Path(name))
            keep(
                "routellm:mf, pair alone", test, route(data, train, test, strong, weak, Path(name))
            )
        print(
            f"fold {k + 1}: {pairs} comparisons; strong {data.names[strong]}, weak {data.names[weak]}; "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
        file = args.data / f"choices_routellm{args.tag}.json"
        save_choices(file, "RouteLLM", versions, list(found.values()))


if __name__ == "__main__":
    main()
