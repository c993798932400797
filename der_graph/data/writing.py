"""Questions back into a data file, and several files into one.

list[Example] ──write_examples──> .jsonl, .jsonl.gz        files of the same questions ──merged──> one list
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from der_graph.data.files import Candidate, Example
from der_graph.data.leaks import same_question
from der_graph.data.saving import replacing
from der_graph.errors import DataError

ENDINGS = (".jsonl", ".jsonl.gz")
"""How the name of a file that is written may end."""


def write_examples(examples: Sequence[Example], path: str | os.PathLike[str]) -> None:
    """Write questions, whole or not at all; `load_examples` reads the same ones again.

    Args:
        examples: The questions.
        path: A `.jsonl` file, or `.jsonl.gz`.

    Raises:
        DataError: If its name ends otherwise, or it cannot be written.
    """
    target = Path(path)
    if not target.name.endswith(ENDINGS):
        raise DataError(
            f"{target}: what is written is JSON Lines; give a name that ends in {' or '.join(ENDINGS)}"
        )
    text = "".join(json.dumps(row_of(e), ensure_ascii=False) + "\n" for e in examples).encode()
    with replacing(target) as part:
        part.write_bytes(gzip.compress(text, mtime=0) if target.suffix == ".gz" else text)


def row_of(example: Example) -> dict[str, Any]:
    """A line for a question, without what it does not have."""
    row: dict[str, Any] = {"id": example.id, "question": example.question}
    if example.reference:
        row["answer"] = example.reference
    if example.task:
        row["task"] = example.task
    if example.history:
        row["history"] = [{"role": role, "content": text} for role, text in example.history]
    if example.candidates:
        row["candidates"] = [_candidate(each) for each in example.candidates.values()]
    return row


def _candidate(candidate: Candidate) -> dict[str, Any]:
    row = {key: value for key, value in vars(candidate).items() if value is not None}
    if not candidate.scores:
        del row["scores"]
    return row


def merged(files: Sequence[Sequence[Example]]) -> tuple[list[Example], int]:
    """Files of the same questions, such as one log a model, as one list.

    Args:
        files: The questions of each file. A question that is in several has the candidates of all of them.

    Returns:
        The questions, in order of appearance, with ids of their own; and how many candidates were left out,
        because their model has answered the question before.

    Raises:
        DataError: If two files have different references to a question.
    """
    found: dict[str, Example] = {}
    left_out = 0
    for example in (each for file in files for each in file):
        key = same_question(example)
        known = found.setdefault(key, replace(example, candidates={}))
        if example.reference and known.reference and example.reference != known.reference:
            raise DataError(
                f"the question {example.question[:80]!r} has the reference {known.reference[:80]!r} in "
                f"{known.id}, and {example.reference[:80]!r} in {example.id}; one of them is wrong"
            )
        left_out += len(known.candidates.keys() & example.candidates.keys())
        found[key] = replace(
            known,
            reference=known.reference or example.reference,
            task=known.task or example.task,
            candidates={**example.candidates, **known.candidates},
        )
    taken: dict[str, int] = {}
    rows = []
    for example in found.values():
        taken[example.id] = number = taken.get(example.id, 0) + 1
        rows.append(example if number == 1 else replace(example, id=f"{example.id}~{number}"))
    return rows, left_out
