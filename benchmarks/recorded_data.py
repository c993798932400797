"""The recorded pool that several benchmarks run on: real answers of eleven open LLMs, cut into folds.

`--data` is a folder with train.jsonl.gz and dev.jsonl.gz in the MixInstruct layout, recorded scores under
`accuracy`; both are put together, because dev alone has a standard error of two points. Sentence vectors are
kept in a file, so that a second run needs no encoder.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from der_graph.data import Example, load_examples
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.observation.encoder import SentenceEncoder, Vectors
from der_graph.policies.quality import get_metric

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
METRIC = "recorded:accuracy"


class StoredVectors:
    """The sentence encoder, with the vectors of known texts kept in a file.

    Args:
        file: Written by `learn`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._encoder = SentenceEncoder()
        self.name = self._encoder.name
        self._known: dict[str, Vectors] = {}
        if file.is_file():
            with np.load(file, allow_pickle=False) as stored:
                self._known = dict(zip(stored["texts"].tolist(), stored["vectors"], strict=True))

    def learn(self, texts: Sequence[str]) -> None:
        """Encode what is new, and write the file."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if not new:
            return
        self._known.update(zip(new, self._encoder.encode(new), strict=True))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            self._file,
            texts=np.array(list(self._known)),
            vectors=np.stack(list(self._known.values())),
        )

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(texts, dimensions)."""
        if not texts or any(text not in self._known for text in texts):
            return self._encoder.encode(texts)
        return np.stack([self._known[text] for text in texts])


class Recorded(NamedTuple):
    """The pool, ready to use."""

    examples: list[Example]
    experts: list[Expert]
    encoder: StoredVectors

    def without(self, name: str) -> Recorded:
        """The same without one expert."""
        return self._replace(experts=[e for e in self.experts if e.name != name])

    def rules(self, max_steps: int) -> RouteRules:
        """What is allowed on a route."""
        return RouteRules.of(self.experts, max_steps=max_steps)

    def source(self, examples: Sequence[Example]) -> AnswerSource:
        """Answers and their recorded qualities."""
        return AnswerSource(self.experts, examples, get_metric(METRIC), ktp="none")

    def first_quality(
        self, examples: Sequence[Example]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """(questions, experts): quality of every expert's own answer."""
        rows = self.source(examples).first_answers()
        return np.array([[outcome.quality for outcome in row] for row in rows])

    def first_values(self, examples: Sequence[Example]) -> list[list[str | None]]:
        """[question][expert]: what every expert's own answer comes to."""
        rows = self.source(examples).first_answers()
        return [[outcome.answer["value"] for outcome in row] for row in rows]


def load(data: Path, vectors: Path) -> Recorded:
    """Read the pool.

    Args:
        data: Folder with train.jsonl.gz and dev.jsonl.gz.
        vectors: File of sentence vectors; made where it is missing.
    """
    folder = Path(tempfile.mkdtemp(prefix="recorded-"))
    try:
        file = folder / "all.jsonl.gz"
        with gzip.open(file, "wt", encoding="utf-8") as out:
            for part in ("train", "dev"):
                with gzip.open(data / f"{part}.jsonl.gz", "rt", encoding="utf-8") as rows:
                    out.writelines(rows)
        examples = load_examples(file)
        experts = [
            Expert(name, RecordedChat(data=str(file), model=name), cost=size, ktp=TEMPLATES["none"])
            for name, size in SIZES.items()
        ]
        for expert in experts:  # read now: the file goes
            AnswerSource([expert], examples[:1], get_metric(METRIC), ktp="none").first_answers()
    finally:
        shutil.rmtree(folder)
    encoder = StoredVectors(vectors)
    encoder.learn([example.question for example in examples])
    return Recorded(examples, experts, encoder)


def split(
    examples: Sequence[Example], fold: int, folds: int = 5
) -> tuple[list[Example], list[Example]]:
    """Training and test questions of one fold; the cut is the same for every benchmark."""
    of = np.random.default_rng(0).permutation(len(examples)) % folds
    train = [example for example, k in zip(examples, of, strict=True) if k != fold]
    test = [example for example, k in zip(examples, of, strict=True) if k == fold]
    return train, test


def at_cost(curve: Sequence[tuple[float, float]], cost: float) -> float:
    """Quality of a (cost, quality) curve at a cost, between its points linearly; NaN outside."""
    points = sorted(curve)
    costs = [point[0] for point in points]
    if not costs[0] <= cost <= costs[-1]:
        return float("nan")
    return float(np.interp(cost, costs, [point[1] for point in points]))
