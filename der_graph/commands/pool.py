"""`der pool`: look at pool files."""

from __future__ import annotations

import argparse

from der_graph.commands.options import Commands


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("pool", help="look at pool files")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    check = actions.add_parser("check", help="check a pool file, without loading any model")
    check.add_argument("pool", metavar="FILE", help="pool file, or 'demo'")
    check.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.pool import check_pool

    for line in check_pool(args.pool):
        print(line)
    return 0
