"""Where commands report to, and how much: standard output is for results, standard error for what happens."""

from __future__ import annotations

import argparse
import sys
from contextvars import ContextVar

quiet: ContextVar[bool] = ContextVar("quiet", default=False)
"""Say warnings alone, and draw no progress bars?"""

_WARNING = "warning: "


def say(line: str) -> None:
    """Report on standard error; with `--quiet` warnings only."""
    if not quiet.get() or line.startswith(_WARNING):
        print(line, file=sys.stderr, flush=True)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add `--quiet` to every command below a parser that has none of its own meaning."""
    inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for action in inner:
        for each in dict.fromkeys(action.choices.values()):
            add_quiet(each)
    if not inner and "--quiet" not in parser._option_string_actions:
        parser.add_argument(
            "-q", "--quiet", action="store_true", help="say results and warnings only"
        )
