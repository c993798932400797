"""The settings of one request."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from der_graph.commands.options.values import cost, seconds

if TYPE_CHECKING:
    from der_graph.state import DERContext


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
