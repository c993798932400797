"""`der cache`: look at the answer cache, or clear it."""

from __future__ import annotations

import argparse

from der_graph.commands.options import Commands, add_cache


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("cache", help="look at or clear the answer cache")
    parser.add_argument(
        "action", choices=["info", "clear"], help="say what is in it, or remove answers"
    )
    add_cache(parser)
    parser.add_argument("--expert", metavar="NAME", help="clear only this expert's answers")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.policies.answers import open_cache

    with open_cache(args.cache) as cache:
        if args.action == "clear":
            print(f"{cache.clear(args.expert)} answers removed")
        else:
            print(cache.stats())
    return 0
