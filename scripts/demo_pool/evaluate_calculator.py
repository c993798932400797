"""Measures the calculator expert by generating answers.

    python scripts/demo_pool/evaluate_calculator.py der_graph/demo/experts/calculator \
        --problems train.jsonl dev.jsonl

Held-out expressions are drawn with a seed of their own. ``--problems`` takes JSON lines with
``expression`` and ``answer``, and optionally ``question``: word problems as they stand hold
nothing to compute, so the expected answer to those is "?".
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from arithmetic import CLOSE
from arithmetic_data import KINDS, example
from transformers import AutoModelForCausalLM, AutoTokenizer

from der_graph.policies.evaluation.statistics import wilson_interval

SEED = 24_681_357


@dataclass(frozen=True)
class Item:
    """A text and the answer expected."""

    text: str
    answer: str


@torch.no_grad()
def complete(
    model: Any, tokenizer: Any, texts: Sequence[str], batch: int = 192
) -> list[tuple[str, int]]:
    """Generates greedily for each text.

    Returns:
        For each text the completion and its number of tokens.
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    out: list[tuple[str, int]] = [("", 0)] * len(texts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        inputs = tokenizer(
            [texts[index] + "=" for index in chosen], return_tensors="pt", padding=True
        )
        inputs.pop("token_type_ids", None)
        width = inputs["input_ids"].shape[1]
        generated = model.generate(**inputs)[:, width:]
        for index, row in zip(chosen, generated, strict=True):
            length = int((row != tokenizer.pad_token_id).sum())
            out[index] = (tokenizer.decode(row, skip_special_tokens=True), length)
    return out


def answer_of(completion: str) -> str:
    """Cuts the working out of a completion; an unfinished working gives no answer."""
    _, tag, answer = completion.partition(CLOSE)
    return answer.strip() if tag else ""


def report(name: str, model: Any, tokenizer: Any, items: Sequence[Item], show: int) -> None:
    """Prints accuracy, length and some mistakes on one set."""
    began = time.monotonic()
    results = complete(model, tokenizer, [item.text for item in items])
    took = time.monotonic() - began
    wrong = [
        (item, completion)
        for item, (completion, _) in zip(items, results, strict=True)
        if answer_of(completion) != item.answer
    ]
    lengths = sorted(length for _, length in results)
    right = len(items) - len(wrong)
    _, low, high = wilson_interval(right, len(items))
    print(
        f"{name}: {right}/{len(items)} = {right / len(items):.4f} [{low:.4f}, {high:.4f}]; tokens "
        f"mean {sum(lengths) / len(lengths):.1f}, p95 {lengths[int(0.95 * (len(lengths) - 1))]}; "
        f"{took:.0f} s",
        flush=True,
    )
    for item, completion in wrong[:show]:
        print(f"    {item.text!r} expected {item.answer!r}: {completion!r}")


def main() -> None:
    """Evaluates one model folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--problems", type=Path, nargs="*", default=[])
    parser.add_argument("--count", type=int, default=1000, help="held-out examples of each kind")
    parser.add_argument("--questions", type=int, default=400, help="word problems of each file")
    parser.add_argument("--limit", type=int, default=0, help="expressions of each file; 0: all")
    parser.add_argument("--show", type=int, default=5, help="mistakes to print of each set")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model.eval()
    for path in args.problems:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        items = [Item(row["expression"], row["answer"]) for row in rows]
        report(path.stem, model, tokenizer, items[: args.limit or None], args.show)
        asked = [Item(row["question"], "?") for row in rows if "question" in row]
        if asked and args.questions:
            random.Random(SEED).shuffle(asked)
            report(f"{path.stem} questions", model, tokenizer, asked[: args.questions], args.show)
    for kind in KINDS:
        rng = random.Random(SEED)
        drawn = [example(rng, kind) for _ in range(args.count)]
        items = [Item(item.text, answer_of(item.completion)) for item in drawn]
        report(kind, model, tokenizer, items, args.show)


if __name__ == "__main__":
    main()
