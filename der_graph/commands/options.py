"""What several commands share: options, how their values are read, and where they report to."""

from __future__ import annotations

import argparse
import sys
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
        help="agent folder or hf://owner/name (default: the demo agent)",
    )


def add_pool(parser: argparse.ArgumentParser) -> None:
    """Add `--pool` where there is no default."""
    parser.add_argument("--pool", required=True, metavar="FILE", help="pool file, or 'demo'")


def add_data(parser: argparse.ArgumentParser, what: str = "questions") -> None:
    """Add `--data` and `--limit`.

    Args:
        parser: The command's.
        what: What the questions are for, in words.
    """
    parser.add_argument("--data", required=True, metavar="FILE", help=f"{what} (JSON Lines)")
    parser.add_argument("--limit", type=int, metavar="N", help=f"only the first N {what}")


def add_trained_metric(parser: argparse.ArgumentParser) -> None:
    """Add `--metric` where a trained agent names the default."""
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="what a good answer is (default: the metric that the agent was trained with)",
    )


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


def seen_warning(count: int, of: int, data: str) -> str:
    """What to say of questions that an agent has learnt from."""
    return (
        f"warning: the agent was trained on {count} of the {of} questions of {data}, or chosen by them, so "
        "its figures are better than on new questions; give others"
    )


def say(line: str) -> None:
    """Report on standard error: standard output is for results."""
    print(line, file=sys.stderr, flush=True)


def seconds(text: str) -> float:
    """Read a number above 0."""
    value = cost(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def cost_range(text: str) -> tuple[float, float]:
    """Read two numbers above 0, the lower one first."""
    try:
        low, high = (seconds(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW,HIGH") from None
    if low > high:
        raise argparse.ArgumentTypeError(f"{text!r}: the lower one comes first")
    return low, high


def cost(text: str) -> float:
    """Read a number >= 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number >= 0")
    return value
