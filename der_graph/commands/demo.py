"""`der demo`: the shipped pool on real questions."""

from __future__ import annotations

import argparse

from der_graph.commands.options import Commands


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("demo", help="the shipped pool on real questions")
    parser.add_argument(
        "--full", action="store_true", help="all held-out questions in the closing table"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=40.0,
        metavar="S",
        help="time for the closing table (default: 40)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.demo.showcase import run_demo

    run_demo(full=args.full, seconds=args.seconds)
    return 0
