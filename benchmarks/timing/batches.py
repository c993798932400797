"""Many questions at once in one process: in one batch of an expert, and through `ChatDER`."""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Callable
from typing import Any

from der_graph import ChatDER, load_pool
from der_graph.nodes.huggingface import HuggingFaceChat
from timing.measuring import demo_questions, seconds_of, verdict

SHORT_QUESTIONS = [
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "Why is the sky blue?",
    "Write one sentence about the sea.",
    "How many days has a week?",
    "What do bees make, and why do they make it?",
    "Who was Marie Curie?",
    "Tom has 5 apples and buys 3 more. How many apples has he now?",
]


def batching(args: argparse.Namespace) -> int:
    """Eight questions one by one against one batch of eight, on one local expert; the best time of each.

    Also what the log-probabilities cost: a batch with them against one without.
    """
    model = load_pool(args.pool)[args.expert].model
    if not isinstance(model, HuggingFaceChat):
        raise SystemExit(f"{args.expert} is no local model")
    settings: dict[str, Any] = {"max_new_tokens": args.tokens}
    quiet = model.model_copy(update={"logprobs": False})
    quiet._answering = None

    def best_of(work: Callable[[], Any]) -> float:
        return min(seconds_of(work)[0] for _ in range(args.repeats))  # the others were disturbed

    def one_by_one() -> list[Any]:
        return [model.invoke(question, **settings).content for question in SHORT_QUESTIONS]

    def in_batch(used: HuggingFaceChat) -> list[Any]:
        return [message.content for message in used.batch(list(SHORT_QUESTIONS), **settings)]

    same = sum(a == b for a, b in zip(one_by_one(), in_batch(model), strict=True))  # warms up
    single, together, without = (
        best_of(work) for work in (one_by_one, lambda: in_batch(model), lambda: in_batch(quiet))
    )
    print(f"same answers: {same} of {len(SHORT_QUESTIONS)}")
    faster = f"{single / together:.1f} times as fast"
    print(f"one by one: {single:.2f} s   one batch: {together:.2f} s   {faster}")
    print(f"without log-probabilities: {without:.2f} s   they cost {together / without - 1:+.1%}")
    return verdict("twice as fast", single >= 2 * together)


def abatch(args: argparse.Namespace) -> int:
    """Many questions at once against the same ones one by one, through `ChatDER`; medians.

    Also on how many questions the answers agree: batches pad, which may change a rounding.
    """
    questions: list[Any] = demo_questions(args.questions)
    der = ChatDER(pool=args.pool, agent=args.agent)
    der.pool.preload()
    der.invoke("What is 3 + 4?")  # warms up

    def together() -> list[Any]:
        return der.batch(questions) if args.sync else asyncio.run(der.abatch(questions))

    alone, shared = [], []
    for _ in range(args.repeats):  # in turns, so that a busy machine disturbs both
        alone.append(seconds_of(lambda: [der.invoke(question) for question in questions]))
        shared.append(seconds_of(together))
    singles, many = alone[-1][1], shared[-1][1]
    same = sum(a.content == b.content for a, b in zip(singles, many, strict=True))
    one_by_one, at_once = (statistics.median(t for t, _ in times) for times in (alone, shared))
    print(f"{len(questions)} questions, median of {args.repeats}; same answers: {same}")
    faster = f"{one_by_one / at_once:.1f} times as fast"
    print(f"one by one: {one_by_one:.2f} s   at once: {at_once:.2f} s   {faster}")
    return verdict("three times as fast", one_by_one >= 3 * at_once)
