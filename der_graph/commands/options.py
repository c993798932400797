"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
from typing import Any

Commands = Any
"""What `ArgumentParser.add_subparsers` returns; argparse has no public name for it."""


def add_pool_and_agent(parser: argparse.ArgumentParser) -> None:
    """Add `--pool` and `--agent`."""
    parser.add_argument(
        "--pool", default="demo", metavar="FILE", help="pool file (default: the demo pool)"
    )
    parser.add_argument(
        "--agent", default="demo", metavar="FOLDER", help="agent folder (default: demo)"
    )


def add_request(parser: argparse.ArgumentParser) -> None:
    """Add the settings of one request."""
    parser.add_argument(
        "--max-cost", type=cost, metavar="X", help="hard budget, in the pool's cost unit"
    )
    parser.add_argument("--max-steps", type=int, metavar="N", help="longest route, in calls")
    parser.add_argument(
        "--cost-weight",
        type=cost,
        metavar="W",
        help="price of cost: 0 buys quality, larger is thriftier",
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add `--cache`."""
    parser.add_argument(
        "--cache", metavar="FILE", help="answer cache (default: in the user's cache folder)"
    )


def cost(text: str) -> float:
    """Read a number >= 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number >= 0")
    return value
