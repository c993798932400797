"""Many questions at once against the same questions one by one, through `ChatDER` on a live pool.

    python benchmarks/abatch.py [--questions 32] [--repeats 3] [--sync]

Asks the held-out questions of the demo pool by `invoke`, one after another, and all together by `abatch` (or
`batch`), and prints the median seconds of each and their ratio; together should be at least three times as
fast. Also prints on how many questions the answers agree: batches pad, which may change a rounding.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

from der_graph import ChatDER
from der_graph.data import load_examples
from der_graph.demo.showcase import demo_file, interleaved


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long something took, and what it gave."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description="One by one against all at once.")
    parser.add_argument("--pool", default="demo", help="pool file (default: %(default)s)")
    parser.add_argument("--agent", default="demo", help="agent folder (default: %(default)s)")
    parser.add_argument(
        "--data", default=None, help="questions (default: the demo's held-out ones)"
    )
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sync", action="store_true", help="measure batch instead of abatch")
    given = parser.parse_args()

    examples = interleaved(load_examples(given.data or demo_file("heldout.jsonl")))
    questions: list[Any] = [example.question for example in examples[: given.questions]]
    der = ChatDER(pool=given.pool, agent=given.agent)
    der.pool.preload()
    der.invoke("What is 3 + 4?")  # warms up

    def together() -> list[Any]:
        return der.batch(questions) if given.sync else asyncio.run(der.abatch(questions))

    alone: list[float] = []
    shared: list[float] = []
    for _ in range(given.repeats):  # in turns, so that a busy machine disturbs both
        took, singles = seconds_of(lambda: [der.invoke(question) for question in questions])
        alone.append(took)
        took, answers = seconds_of(together)
        shared.append(took)
    same = sum(a.content == b.content for a, b in zip(singles, answers, strict=True))
    one, many = statistics.median(alone), statistics.median(shared)
    print(f"{len(questions)} questions, median of {given.repeats}; same answers: {same}")
    print(f"one by one:  {one:.2f} s")
    print(
        f"{'batch' if given.sync else 'abatch'}:      {many:.2f} s   {one / many:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
