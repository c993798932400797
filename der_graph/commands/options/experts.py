"""Which pool, and which agent."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from der_graph.commands.options.questions import say_reading

if TYPE_CHECKING:
    from der_graph.pool import Pool


_POOL = "pool file, or a data file with recorded answers (candidates) of its experts"


def add_pool_and_agent(parser: argparse.ArgumentParser) -> None:
    """Add `--pool` and `--agent`."""
    parser.add_argument(
        "--pool", default="demo", metavar="FILE", help=f"{_POOL} (default: the demo pool)"
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
    add_allow_python(parser)


def add_pool(parser: argparse.ArgumentParser) -> None:
    """Add `--pool` where there is no default."""
    parser.add_argument("--pool", required=True, metavar="FILE", help=f"{_POOL}, or 'demo'")
    add_allow_python(parser)


def add_allow_python(parser: argparse.ArgumentParser) -> None:
    """Add `--allow-python`."""
    parser.add_argument(
        "--allow-python",
        action="store_true",
        help="run the Python code that the pool file names (backend: python); for files that you trust",
    )


def pool_of(args: argparse.Namespace) -> Pool:
    """The pool that `--pool` and `--profile` name; recorded experts replay the command's data files too."""
    from dataclasses import replace

    named = [getattr(args, name, None) for name in ("data", "dev", "train", "file")]
    files = [file for file in named if file and os.path.isfile(file)]
    for file in (args.pool, *files):
        say_reading(file)
    from der_graph.pool import load_pool  # takes a while itself

    pool = load_pool(
        args.pool,
        recorded=files,
        allow_python=args.allow_python,
    )
    if getattr(args, "profile", None) is None:
        return pool
    return replace(pool, settings=replace(pool.settings, profile=args.profile))
