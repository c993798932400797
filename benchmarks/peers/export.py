"""Write what the peers read: questions, embeddings, qualities, costs and folds of the recorded pool.

    python benchmarks/peers/export.py --data recorded_pool --out peers_run [--embeddings FILE.npz]

Runs where der-graph is installed. The questions are those of `der_graph.data.files.load_examples`, train then
dev, and the embeddings those of der-graph's own sentence encoder, so that a peer sees exactly what the
agent sees. `--embeddings` names a file that keeps them between runs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from peer_data import PeerData, fold_of

from der_graph.data import Example, load_examples
from der_graph.policies.observation.encoder import DEFAULT_ENCODER, SentenceEncoder


def sizes() -> dict[str, float]:
    """Billions of parameters by model, cheapest first, from benchmarks/recorded_pool.py: one list for all."""
    file = Path(__file__).resolve().parent.parent / "recorded_pool.py"
    spec = importlib.util.spec_from_file_location("recorded_pool", file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file)
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.SIZES)


def embed(questions: list[str], file: Path | None) -> npt.NDArray[np.float32]:
    """Embed the questions, or read them from the file if it holds just these."""
    key = hashlib.sha256("\0".join([DEFAULT_ENCODER, *questions]).encode()).hexdigest()
    if file is not None and file.exists():
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return np.asarray(kept["vectors"], dtype=np.float32)
    vectors = SentenceEncoder(DEFAULT_ENCODER).encode(questions)
    if file is not None:
        np.savez_compressed(file, key=key, vectors=vectors)
    return vectors


def qualities(examples: list[Example], names: list[str]) -> npt.NDArray[np.float64]:
    """(n, experts) the recorded accuracy of every expert's answer."""
    return np.array(
        [[example.candidates[name].scores["accuracy"] for name in names] for example in examples]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recorded pool")
    parser.add_argument("--out", type=Path, required=True, help="folder for what the peers read")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--embeddings", type=Path, help=".npz that keeps the embeddings")
    args = parser.parse_args()
    examples = [
        example
        for part in ("train", "dev")
        for example in load_examples(args.data / f"{part}.jsonl.gz")
    ]
    pool = sizes()
    questions = [example.question for example in examples]
    data = PeerData(
        questions=questions,
        names=list(pool),
        costs=np.array(list(pool.values())),
        quality=qualities(examples, list(pool)),
        embeddings=embed(questions, args.embeddings),
        fold=fold_of(len(questions), args.folds),
    )
    data.save(args.out)
    best = int(data.quality.mean(axis=0).argmax())
    print(
        f"{len(questions)} questions, {len(pool)} experts, {args.folds} folds; best single expert "
        f"{data.names[best]}: {data.quality[:, best].mean():.3f} at {data.costs[best]:g} B"
    )


if __name__ == "__main__":
    main()
