"""`der collect`: fill the answer cache ahead of training."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from der_graph.commands.options import (
    Commands,
    add_cache,
    add_data,
    add_pool,
    answer_cache,
    examples_of,
    pool_of,
    say,
)


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "collect",
        help="fill the answer cache ahead of training",
        description="Ask the experts ahead of training and keep their answers in the answer cache. "
        "What is there already is not asked again, so an interrupted command goes on where it stopped.",
    )
    add_pool(parser)
    add_data(parser)
    parser.add_argument(
        "--depth",
        type=int,
        default=1,
        metavar="D",
        help="1: first answers; 2: also those after each other expert's answer; ... (default: 1)",
    )
    parser.add_argument(
        "--engine",
        default="local",
        choices=["local", "ray"],
        help="where experts are asked (default: local)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="ray: head of a running cluster (default: start one here)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="ray: processes (default: one per CPU)"
    )
    parser.add_argument(
        "--gpus", type=float, default=0.0, metavar="G", help="ray: GPUs of each worker (default: 0)"
    )
    add_cache(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.errors import DataError
    from der_graph.policies.answers.collect import collect_answers

    if args.workers is not None and args.workers < 1:
        raise DataError(f"--workers is {args.workers}; it must be at least 1")
    pool = pool_of(args)
    examples = examples_of(args, args.data, args.limit)
    engine: AbstractContextManager[Any] = nullcontext(None)
    if args.engine == "ray":
        from der_graph.pool.ray_engine import RayEngine

        engine = RayEngine(
            args.pool,
            address=args.address,
            workers=args.workers,
            gpus=args.gpus,
            allow_python=args.allow_python,
        )
    with answer_cache(args) as cache, engine as asking:
        done = collect_answers(
            list(pool),
            examples,
            cache,
            ktp=pool.settings.ktp,
            depth=args.depth,
            repeat_experts=pool.settings.repeat_experts,
            engine=asking,
            progress=not args.quiet,
            say=say,
        )
    for name, count in done.failed.items():
        say(f"warning: {count} failed calls of '{name}', first: {done.errors[name]}")
    made = sum(done.asked.values()) - sum(done.failed.values())
    say(f"{made:,} answers generated, {done.cached:,} were cached")
    return 0
