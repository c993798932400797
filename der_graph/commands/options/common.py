"""Seed, address and answer cache."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from der_graph.commands.options.reporting import say

if TYPE_CHECKING:
    from der_graph.policies.answers import AnswerCache


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`."""
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="random seed (default: 0)")


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    """Add `--host` and `--port`.

    Args:
        parser: The command's.
        port: Where it listens by default.
    """
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=port, help="port, 0 for a free one (default: %(default)s)"
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add `--cache`."""
    parser.add_argument(
        "--cache", metavar="FILE", help="answer cache (default: in the user's cache folder)"
    )


@contextmanager
def answer_cache(args: argparse.Namespace) -> Iterator[AnswerCache]:
    """The answer cache of a command that asks many questions; Ctrl-C says that it holds what was answered."""
    from der_graph.policies.answers import MEMORY, open_cache

    with open_cache(args.cache) as cache:
        try:
            yield cache
        except KeyboardInterrupt:
            if args.cache != MEMORY:
                say(
                    "stopped; the answer cache has what was answered, and the same command asks the rest"
                )
            raise


def add_fresh(parser: argparse.ArgumentParser) -> None:
    """Add `--fresh`."""
    parser.add_argument(
        "--fresh",
        type=int,
        default=5,
        metavar="N",
        help="cached answers of each remote expert that are asked again, to see whether it is still the same "
        "model, and more of them where one differs (default: 5; 0 for none)",
    )
