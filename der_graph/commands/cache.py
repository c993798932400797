"""`der cache`: look at the answer cache, or clear it."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import TYPE_CHECKING

from der_graph.commands.options import Commands, add_cache

if TYPE_CHECKING:
    from der_graph.policies.answers.cache import CacheStats


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
            for line in _lines(cache.stats()):
                print(line)
    return 0


def _lines(stats: CacheStats) -> list[str]:
    """What a cache holds, for people: the file, then a row an expert."""
    from der_graph.display import table

    whole = f"{stats.path}: {stats.answers:,} answers, {stats.bytes / 1e6:,.1f} MB"
    rows = [
        [name, f"{count:,}", _day(stats.oldest.get(name))] for name, count in stats.experts.items()
    ]
    return [whole, *(["", *table(["expert", "answers", "oldest"], rows)] if rows else [])]


def _day(moment: float | None) -> str:
    return (
        "unknown" if moment is None else datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M")
    )
