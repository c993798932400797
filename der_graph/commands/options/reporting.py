"""Where commands report to."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Report on standard error: standard output is for results."""
    print(line, file=sys.stderr, flush=True)
