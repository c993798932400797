"""Which questions."""

from __future__ import annotations

import argparse
import functools
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from der_graph.commands.options.reporting import say

if TYPE_CHECKING:
    from der_graph.data import Columns, Example


_LARGE = 5_000_000  # bytes of a file of which is said that it is being read


def add_data(
    parser: argparse.ArgumentParser,
    what: str = "questions",
    instead: tuple[str, str, str] | None = None,
) -> None:
    """Add `--data` and `--limit`.

    Args:
        parser: The command's.
        what: What the questions are for, in words.
        instead: Name, metavar and help of an option that may take the place of `--data`.
    """
    one: Any = parser if instead is None else parser.add_mutually_exclusive_group(required=True)
    one.add_argument(
        "--data",
        required=instead is None,
        metavar="FILE",
        help=f"{what}: JSON Lines, JSON, CSV, TSV, Parquet, a folder of datasets, hf:owner/name, or an "
        "export of LangSmith, promptfoo or inspect_ai",
    )
    if instead is not None:
        one.add_argument(instead[0], metavar=instead[1], help=instead[2])
    add_columns(parser)
    parser.add_argument("--limit", type=int, metavar="N", help=f"only the first N {what}")


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the names of columns."""
    for part, holds in (
        ("question", "question"),
        ("answer", "reference"),
        ("task", "kind of question"),
    ):
        parser.add_argument(
            f"--{part}-column",
            metavar="NAME",
            help=f"column that holds the {holds} (default: {part})",
        )


def columns_of(args: argparse.Namespace) -> Columns:
    """The columns that `add_columns` read."""
    from der_graph.data import Columns

    return Columns(args.question_column, args.answer_column, args.task_column)


def examples_of(args: argparse.Namespace, file: str, limit: int | None = None) -> list[Example]:
    """Read a data file with the columns that `add_columns` read, and say which fields nobody reads."""
    from der_graph.data import load_examples

    say_reading(file)
    ignored: Counter[str] = Counter()
    examples = load_examples(file, limit=limit, columns=columns_of(args), ignored=ignored)
    if ignored:
        say(f"{file}: nobody reads {', '.join(repr(name) for name in sorted(ignored))}")
    return examples


def say_reading(file: str) -> None:
    """Say, once, that a large data file is being read: it is read once."""
    if os.path.isfile(file) and os.path.getsize(file) > _LARGE:
        _say_once(f"reading {file} ({os.path.getsize(file) / 1e6:,.0f} MB)")


_say_once = functools.cache(say)


def seen_warning(count: int, of: int, data: str) -> str:
    """What to say of questions that an agent has learnt from."""
    return (
        f"warning: the agent was trained on {count} of the {of} questions of {data}, or chosen by them, so "
        "its figures are better than on new questions; give others"
    )
