"""Memory and time of `der train` on very many questions.

    python -m benchmarks.timing.many_questions [--questions 50000] [--experts 4]

Questions of ten topics with the recorded answers of some experts, each good at topics of its own, are written
to a file, which is a pool by itself. `der train` runs in a process of its own with its defaults and an empty
cache; printed are its lines with the seconds since the start, its peak memory, and when its first line came.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

TOPICS = (
    "the price of {a} loaves and {b} rolls", "the date {a} days after the {b}th of May",
    "the mass of {a} atoms of isotope {b}", "the capital of district {a} in year {b}",
    "the length of wire {a} at {b} degrees", "the dose of remedy {a} at {b} kilos",
    "the verb in sentence {a} of page {b}", "the winner of game {a} in round {b}",
    "the output of program {a} on input {b}", "the tax on item {a} in class {b}",
)  # fmt: skip


def write_questions(path: Path, count: int, experts: int, seed: int = 0) -> None:
    """Questions with the answers of experts that cost twice as much each."""
    draw = np.random.default_rng(seed)
    skill = np.clip(
        0.35 + 0.1 * np.arange(experts)[:, None] + draw.normal(0, 0.2, (experts, 10)), 0, 1
    )
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            topic = int(draw.integers(len(TOPICS)))
            question = "What is " + TOPICS[topic].format(a=i, b=int(draw.integers(1, 29))) + "?"
            right = draw.random(experts) < skill[:, topic]
            candidates = [
                {
                    "model": f"model-{e}",
                    "text": f"It is {i * 7 if ok else int(draw.integers(10**6))}.",
                    "cost": 0.0001 * 2**e,
                }
                for e, ok in enumerate(right)
            ]
            row = {
                "id": str(i),
                "question": question,
                "answer": str(i * 7),
                "candidates": candidates,
            }
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=50_000)
    parser.add_argument("--experts", type=int, default=4)
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        data = Path(folder) / "questions.jsonl"
        write_questions(data, args.questions, args.experts)
        command = [
            sys.executable, "-m", "der_graph", "train", "--pool", str(data), "--data", str(data),
            "--out", str(Path(folder) / "agent"), "--cache", str(Path(folder) / "answers.sqlite"),
        ]  # fmt: skip
        began, first = time.perf_counter(), None
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                seconds = time.perf_counter() - began
                first = seconds if first is None else first
                print(f"  {seconds:7.1f} s  {line.rstrip()}", flush=True)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    print(
        f"der train on {args.questions:,} questions, {args.experts} experts: exit {process.returncode}, "
        f"{time.perf_counter() - began:,.0f} s, first line after {first or 0:.1f} s, peak memory "
        f"{usage.ru_maxrss * unit / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
