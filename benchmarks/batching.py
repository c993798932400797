"""Eight questions one by one against one batch of eight, on an expert of the demo pool.

    python benchmarks/batching.py [--expert smollm2] [--tokens 32] [--repeats 3]

Prints the best time of each and their ratio; a batch should be at least twice as fast. Also prints what the
log-probabilities cost, as the ratio of a batch with them to one without.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from der_graph import load_pool
from der_graph.nodes.huggingface import HuggingFaceChat

QUESTIONS = (
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "Why is the sky blue?",
    "Write one sentence about the sea.",
    "How many days has a week?",
    "What do bees make, and why do they make it?",
    "Who was Marie Curie?",
    "Tom has 5 apples and buys 3 more. How many apples has he now?",
)


def best_of(repeats: int, work: Callable[[], Any]) -> float:
    """Seconds of the fastest run; the others were disturbed."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description="Single calls against one batch.")
    parser.add_argument("--pool", default="demo")
    parser.add_argument("--expert", default="smollm2")
    parser.add_argument(
        "--tokens", type=int, default=32, help="longest answer (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()

    model = load_pool(given.pool)[given.expert].model
    if not isinstance(model, HuggingFaceChat):
        raise SystemExit(f"{given.expert} is no local model")
    settings: dict[str, Any] = {"max_new_tokens": given.tokens}
    singles = [model.invoke(question, **settings).content for question in QUESTIONS]  # warms up
    batch = [message.content for message in model.batch(list(QUESTIONS), **settings)]
    quiet = model.model_copy(update={"logprobs": False})
    quiet._answering = None

    one_by_one = best_of(given.repeats, lambda: [model.invoke(q, **settings) for q in QUESTIONS])
    together = best_of(given.repeats, lambda: model.batch(list(QUESTIONS), **settings))
    without = best_of(given.repeats, lambda: quiet.batch(list(QUESTIONS), **settings))
    print(
        f"same answers: {sum(a == b for a, b in zip(singles, batch, strict=True))} of {len(batch)}"
    )
    print(f"one by one:   {one_by_one:.2f} s")
    print(f"one batch:    {together:.2f} s   {one_by_one / together:.1f} times as fast")
    print(f"without log-probabilities: {without:.2f} s   they cost {together / without - 1:+.1%}")


if __name__ == "__main__":
    main()
