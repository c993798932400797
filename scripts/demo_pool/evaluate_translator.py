"""Measures the translator: is the value of the expression it writes the answer?

    python scripts/demo_pool/evaluate_translator.py --adapter der_graph/demo/experts/translator

Two sets: `dev.jsonl` (SVAMP, never trained on) and the held-out rows of `train.jsonl` (MAWPS and
ASDiv). Collections of school problems repeat themselves, so the held-out rows are also counted
without those whose text, numbers aside, occurs in the training rows.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import translator_data as data
from expressions import NUMBER, evaluate, numbers, same_answer
from peft import PeftModel
from translator_model import generate, load_base, load_tokenizer

from der_graph.policies.evaluation.statistics import wilson_interval

Ask = Callable[[Sequence[str]], list[str]]


def judge(output: str, row: dict[str, Any]) -> str:
    """Puts an output into a class.

    Args:
      output: What the model wrote.
      row: The problem.

    Returns:
      right, unparsable, wrong_operation (the numbers are those of the reference), wrong_numbers
      (others of the text) or foreign_numbers (not in the text).
    """
    value = evaluate(output)
    if same_answer(value, row["answer"]):
        return "right"
    if value is None:
        return "unparsable"
    if Counter(numbers(output)) == Counter(numbers(row["expression"])):
        return "wrong_operation"
    if set(numbers(output)) <= set(numbers(row["question"])):
        return "wrong_numbers"
    return "foreign_numbers"


def template(question: str) -> str:
    """A problem without its numbers, case and punctuation."""
    text = NUMBER.sub("#", question.lower())
    return " ".join("".join(c if c.isalnum() or c == "#" else " " for c in text).split())


def measure(name: str, rows: list[dict[str, Any]], ask: Ask) -> tuple[dict[str, Any], list[str]]:
    """Asks for all rows and prints the classes.

    Args:
      name: What to call the set.
      rows: The problems.
      ask: Completes prompts.

    Returns:
      The counts, and the outputs.
    """
    outputs = ask([data.prompt(row["question"]) for row in rows])
    classes = Counter(judge(o, r) for o, r in zip(outputs, rows, strict=True))
    _, low, high = wilson_interval(classes["right"], len(rows))
    result = {
        "set": name,
        "right": classes["right"],
        "total": len(rows),
        "accuracy": round(classes["right"] / max(1, len(rows)), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "parses": len(rows) - classes["unparsable"],
        "errors": {k: v for k, v in sorted(classes.items()) if k != "right"},
    }
    print(json.dumps(result), flush=True)
    return result, outputs


def main() -> None:
    """Reads the command line, measures, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    default = os.path.join(os.environ.get("DER_DATA", "../shared/data"), "word_problems")
    parser.add_argument("--data", default=default)
    parser.add_argument("--adapter", default="der_graph/demo/experts/translator")
    parser.add_argument("--base", default=None, help="base weights: folder or hub id")
    parser.add_argument("--limit", type=int, default=0, help="only the first rows of each set")
    parser.add_argument("--only", default="", help="measure the sets whose name contains this")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--errors", default=None, help="write the wrong outputs to this file")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    tokenizer = load_tokenizer(args.base)
    base = load_base(args.base, getattr(torch, args.dtype))
    model = PeftModel.from_pretrained(base, args.adapter).merge_and_unload().eval()

    def ask(prompts: Sequence[str]) -> list[str]:
        return generate(model, tokenizer, list(prompts))

    train = data.read_jsonl(Path(args.data) / "train.jsonl")
    sets = {
        "svamp dev": data.read_jsonl(Path(args.data) / "dev.jsonl"),
        "mawps/asdiv held out": [r for r in train if data.is_held_out(r)],
    }
    known = {template(r["question"]) for r in train if not data.is_held_out(r)}
    wrong = []
    for name, rows in sets.items():
        if args.only not in name:
            continue
        rows = rows[: args.limit] if args.limit else rows
        _, outputs = measure(name, rows, ask)
        pairs = list(zip(rows, outputs, strict=True))
        wrong += [{**r, "output": o, "class": judge(o, r)} for r, o in pairs
                  if judge(o, r) != "right"]  # fmt: skip
        if "held out" in name:
            fresh = [(r, o) for r, o in pairs if template(r["question"]) not in known]
            right = sum(judge(o, r) == "right" for r, o in fresh)
            _, low, high = wilson_interval(right, len(fresh))
            print(json.dumps({"set": f"{name}, text not among the training rows", "right": right,
                              "total": len(fresh), "accuracy": round(right / len(fresh), 4),
                              "interval_95": [round(low, 4), round(high, 4)]}))  # fmt: skip
    if args.errors:
        Path(args.errors).write_text("".join(json.dumps(w) + "\n" for w in wrong))


if __name__ == "__main__":
    main()
