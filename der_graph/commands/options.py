"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from der_graph.state import DERContext

Commands = Any
"""What `ArgumentParser.add_subparsers` returns; argparse has no public name for it."""


def add_pool_and_agent(parser: argparse.ArgumentParser) -> None:
    """Add `--pool` and `--agent`."""
    parser.add_argument(
        "--pool", default="demo", metavar="FILE", help="pool file (default: the demo pool)"
    )
    parser.add_argument(
        "--agent",
        default="demo",
        metavar="FOLDER",
        help="agent folder or Hub id (default: the demo agent)",
    )


def add_request(parser: argparse.ArgumentParser) -> None:
    """Add the settings of one request."""
    parser.add_argument(
        "--max-cost", type=cost, metavar="X", help="hard budget, in the pool's cost unit"
    )
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="longest route, in calls (default: the pool's)"
    )
    parser.add_argument(
        "--cost-weight",
        type=cost,
        metavar="W",
        help="price of cost: small ones buy quality, large ones are thrifty (default: the agent's)",
    )
    parser.add_argument("--deadline", type=seconds, metavar="S", help="seconds for the whole route")
    parser.add_argument(
        "--allow", action="append", metavar="NAME", help="ask only this expert (may be repeated)"
    )
    parser.add_argument(
        "--forbid", action="append", metavar="NAME", help="do not ask this expert (may be repeated)"
    )


def request_context(args: argparse.Namespace) -> DERContext:
    """The settings of one request, as `add_request` reads them."""
    from der_graph.state import DERContext

    return DERContext(
        max_cost=args.max_cost,
        max_steps=args.max_steps,
        cost_weight=args.cost_weight,
        deadline=args.deadline,
        allowed_experts=args.allow,
        forbidden_experts=args.forbid,
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add `--cache`."""
    parser.add_argument(
        "--cache", metavar="FILE", help="answer cache (default: in the user's cache folder)"
    )


def seconds(text: str) -> float:
    """Read a number above 0."""
    value = cost(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def cost(text: str) -> float:
    """Read a number >= 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number >= 0")
    return value
