"""`der data`: look at data files, and write them as this project's own."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from der_graph.commands.options import Commands, add_columns, columns_of, say

if TYPE_CHECKING:
    from der_graph.data import Example

_FILES = (
    "JSON Lines, JSON, CSV, TSV, Parquet, a folder of datasets, hf:owner/name, or an export of LangSmith, "
    "promptfoo or inspect_ai"
)


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("data", help="look at data files; convert those of other tools")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    check = actions.add_parser(
        "check",
        help="say what is in data files, and what is wrong with them",
        description="Counts, lengths, languages, duplicates, recorded answers, and the fields that nobody "
        "reads; of several files also which questions they share. Nothing is asked or written.",
    )
    check.add_argument("files", nargs="+", metavar="FILE", help=_FILES)
    check.add_argument("--json", action="store_true", help="print it as JSON")
    check.set_defaults(run=run)
    convert = actions.add_parser(
        "convert",
        help="write data files of other tools as JSON Lines",
        description="Writes JSON Lines that every command reads. Of several files, such as one log of "
        "inspect_ai for each model, a question that comes in more than one is written once, with the answers "
        "of all: such a file is a pool of recorded experts (--pool FILE).",
    )
    convert.add_argument("files", nargs="+", metavar="FILE", help=_FILES)
    convert.add_argument(
        "--out", required=True, metavar="FILE", help="file to write: .jsonl or .jsonl.gz"
    )
    convert.add_argument("--force", action="store_true", help="replace a file that is there")
    convert.set_defaults(run=run_convert)
    for each in (check, convert):
        add_columns(each)
        each.add_argument("--limit", type=int, metavar="N", help="only the first N of each file")


def run(args: argparse.Namespace) -> int:
    """Say what is in data files."""
    from itertools import combinations

    from der_graph.data.leaks import shared_questions
    from der_graph.data.summary import summarize

    found: dict[str, list[Example]] = {}
    summaries = {}
    for file in args.files:
        found[file], ignored = _read(args, file)
        summaries[file] = summarize(found[file], ignored)
    shared = {
        (one, two): len(shared_questions(found[two], found[one]))
        for one, two in combinations(found, 2)
    }
    if args.json:
        both = [{"files": pair, "questions": n} for pair, n in shared.items() if n]
        files = {file: asdict(summary) for file, summary in summaries.items()}
        print(json.dumps({"files": files, "shared": both}, ensure_ascii=False, indent=2))
        return 0
    for file, summary in summaries.items():
        first, *rest = summary.lines()
        print(f"{file}: {first}")
        for line in rest:
            print(f"  {line}")
    for (one, two), count in shared.items():
        if count:
            print(
                f"warning: {count} of {len(found[two])} questions of {two} are in {one} as well: whoever "
                "learns from the one has seen the other"
            )
    return 0


def run_convert(args: argparse.Namespace) -> int:
    """Write data files as JSON Lines."""
    from der_graph.data import merged, write_examples
    from der_graph.errors import DataError

    out = Path(args.out)
    if out.exists() and not args.force:
        raise DataError(f"{out} is there already; give --force to replace it, or another --out")
    if any(Path(file).resolve() == out.resolve() for file in args.files):
        raise DataError(f"{out} is one of the files to read; give another --out")
    read = []
    for file in args.files:
        examples, ignored = _read(args, file)
        read.append(examples)
        for name, count in ignored.items():
            say(f"{file}: '{name}' is left out ({count:,} rows): nobody reads it")
    examples, left_out = (read[0], 0) if len(read) == 1 else merged(read)
    if left_out:
        say(f"warning: {left_out:,} answers are left out: their model answered the question before")
    write_examples(examples, out)
    print(f"{out}: {len(examples):,} questions")
    return 0


def _read(args: argparse.Namespace, file: str) -> tuple[list[Example], Counter[str]]:
    from der_graph.data import load_examples

    ignored: Counter[str] = Counter()
    return load_examples(file, limit=args.limit, columns=columns_of(args), ignored=ignored), ignored
