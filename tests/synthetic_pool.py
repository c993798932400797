"""A recorded pool in miniature for the benchmarks' tests: eleven models, known vectors, no encoder."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

MODELS = (
    "gemma-2-2b-it Phi-3.5-mini-instruct Qwen2-7B-Instruct Meta-Llama-3.1-8B-Instruct Yi-1.5-9B-Chat "
    "gemma-2-9b-it gemma-2-27b-it Yi-1.5-34B-Chat Meta-Llama-3-70B-Instruct Meta-Llama-3.1-70B-Instruct "
    "Qwen2-72B-Instruct"
).split()
TASKS = ("gsm", "crux", "math-l5")


def write_pool(folder: Path, count: int = 60) -> Path:
    """Write train.jsonl.gz, dev.jsonl.gz and vectors.npz; larger models are right more often."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows, texts = [], []
    for i in range(count):
        reference = str(i + 10)
        candidates = []
        for place, model in enumerate(MODELS):
            right = bool(rng.random() < 0.3 + 0.05 * place)
            value = reference if right else str(int(rng.integers(3)))
            candidates.append(
                {"model": model, "decoding_method": "greedy", "text": f"It is {value}.",
                 "answer": value, "tokens": 10, "scores": {"accuracy": int(right)}}
            )  # fmt: skip
        texts.append(f"What is number {i}?")
        rows.append(
            {"id": f"{TASKS[i % 3]}/{i}", "instruction": texts[-1], "input": "", "output": reference,
             "task": TASKS[i % 3], "candidates": candidates}
        )  # fmt: skip
    for name, part in (("train", rows[: count * 3 // 4]), ("dev", rows[count * 3 // 4 :])):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in part)
    vectors = rng.normal(size=(count, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.savez(folder / "vectors.npz", texts=np.array(texts), vectors=vectors)
    return folder
