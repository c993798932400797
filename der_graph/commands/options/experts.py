"""Which pool, and which agent."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from der_graph.pool import Pool


def add_pool_and_agent(parser: argparse.ArgumentParser) -> None:
    """Add `--pool` and `--agent`."""
    parser.add_argument(
        "--pool", default="demo", metavar="FILE", help="pool file (default: the demo pool)"
    )
    parser.add_argument(
        "--agent",
        metavar="FOLDER",
        help="agent folder, hf://owner/name, or 'planner', which needs no training (default: the "
        "pool file's, else the planner)",
    )
    parser.add_argument(
        "--profile",
        metavar="FILE",
        help="what der probe found out about the experts, for the planner (default: the pool file's)",
    )


def add_pool(parser: argparse.ArgumentParser) -> None:
    """Add `--pool` where there is no default."""
    parser.add_argument("--pool", required=True, metavar="FILE", help="pool file, or 'demo'")


def pool_of(args: argparse.Namespace) -> Pool:
    """The pool that `--pool` and `--profile` name."""
    from dataclasses import replace

    from der_graph.pool import load_pool

    pool = load_pool(args.pool)
    if args.profile is None:
        return pool
    return replace(pool, settings=replace(pool.settings, profile=args.profile))
