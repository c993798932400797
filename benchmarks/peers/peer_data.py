"""What every script of this folder shares: the folds, and the two kinds of file that they hand on.

    export.py ──data.npz, data.json──> llmrouter_run.py, routellm_run.py ──choices_*.json──> report.py

Needs numpy alone, since it is imported in the environment of the peers too, where der-graph is not
installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def fold_of(n: int, folds: int) -> npt.NDArray[np.int64]:
    """The fold of each of n questions, by the same rule as benchmarks/recorded_pool.py.

    Args:
        n: Number of questions, in the order of the files: train, then dev.
        folds: Number of folds.

    Returns:
        (n,) numbers from 0 to folds - 1.
    """
    return np.random.default_rng(0).permutation(n) % folds


@dataclass(frozen=True)
class PeerData:
    """The recorded pool as arrays.

    Attributes:
        questions: (n,) the texts.
        names: (experts,) names, cheapest first.
        costs: (experts,) billions of parameters.
        quality: (n, experts) 0 or 1.
        embeddings: (n, dimensions) float32, rows of length 1.
        fold: (n,) the fold in which a question is a test question.
    """

    questions: list[str]
    names: list[str]
    costs: Floats
    quality: Floats
    embeddings: npt.NDArray[np.float32]
    fold: npt.NDArray[np.int64]

    def save(self, folder: Path) -> None:
        """Write data.npz and data.json."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            folder / "data.npz",
            costs=self.costs,
            quality=self.quality,
            embeddings=self.embeddings,
            fold=self.fold,
        )
        text = {"names": self.names, "questions": self.questions}
        (folder / "data.json").write_text(json.dumps(text), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> PeerData:
        """Read what `save` wrote."""
        text = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        with np.load(folder / "data.npz", allow_pickle=False) as arrays:
            return cls(
                text["questions"], text["names"], arrays["costs"], arrays["quality"],
                arrays["embeddings"], arrays["fold"],
            )  # fmt: skip


@dataclass
class Setting:
    """One router at one point of its knob, and whom it asked.

    Attributes:
        method: The router; its settings together are one curve.
        knob: What was set, in words.
        cost_weight: The price of cost where the knob is one, in der-graph's unit: quality given up for
            asking everyone once.
        choices: (n,) index of the expert asked for each question, by the model that never saw it; -1 where
            the fold was not run.
    """

    method: str
    knob: str
    cost_weight: float | None
    choices: list[int]


def save_choices(file: Path, peer: str, versions: dict[str, str], settings: list[Setting]) -> None:
    """Write the choices of one peer."""
    found = {"peer": peer, "versions": versions, "settings": [asdict(s) for s in settings]}
    file.write_text(json.dumps(found) + "\n", encoding="utf-8")


def load_choices(files: Iterable[Path]) -> list[Setting]:
    """Read what `save_choices` wrote; settings whose folds lie in several files are put together."""
    merged: dict[tuple[str, str], Setting] = {}
    for file in files:
        for fields in json.loads(file.read_text(encoding="utf-8"))["settings"]:
            new = Setting(**fields)
            old = merged.setdefault((new.method, new.knob), new)
            pairs = zip(old.choices, new.choices, strict=True)
            old.choices = [first if first >= 0 else second for first, second in pairs]
    return list(merged.values())
