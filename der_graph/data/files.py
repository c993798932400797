"""Data files: one question a line, with its reference answer, and recorded answers where there are any.

    .jsonl, .jsonl.gz, or what `formats.py` makes rows of  ──load_examples──>  list[Example]

Two layouts are read, told apart by their field names:

- MixInstruct, as LLM-Blender publishes it (Jiang et al., ACL 2023, arXiv 2306.02561): `{"id",
  "instruction", "input", "output", "candidates": [{"model", "text", "scores": {...}}]}`. Without
  `candidates` too; a candidate may also carry `answer` (the extracted answer, to see who agrees),
  `tokens` and `cost`.
- `{"question", "answer"}`, with `id` and `task` where known.

A line of either may carry `history`, the conversation before the question, with the roles of chat APIs.
Training prompts experts with it, and shows it to the agent, exactly as the graph does:

    {"question": "And twice that?", "answer": "24", "history": [{"role": "user", "content": "What is 3 * 4?"},
                                                               {"role": "assistant", "content": "12"}]}

Every fault is reported with file, line, what was found and what is allowed.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, TextIO

from der_graph.data.formats import (
    Columns,
    is_promptfoo,
    known_layout,
    other_rows,
    promptfoo_rows,
)
from der_graph.data.untrusted import check_regular
from der_graph.errors import DataError

ALIAS_SEPARATOR = " | "
"""Stands between the spellings of one reference answer, any of which counts."""

_LAYOUTS = (
    'a line is {"instruction", "input", "output", "candidates"} (MixInstruct; "input" and '
    '"candidates" may be left out) or {"question", "answer"} ("answer" may be left out for metrics that need '
    'none), each with "id" and "task" where known'
)
_LONGEST_LINE = 2**26  # characters
_MOST_RATIO = 100  # of unpacked to packed; text reaches 50, a bomb 1,000
_WRITTEN = (str, int, float, Decimal, date, time)
"""Types of values that read the same as text."""
_SHOWN = 80  # characters of a faulty value that an error shows


@dataclass(frozen=True)
class Candidate:
    """One model's recorded answer to one question.

    Attributes:
        model: Name of the model; an expert of that name replays it.
        text: What it said.
        scores: Recorded qualities and other numbers by name, all finite.
        answer: The extracted answer, or None.
        tokens: Tokens generated, or None.
        cost: What the answer cost, or None.
    """

    model: str
    text: str
    scores: dict[str, float] = field(default_factory=dict)
    answer: str | None = None
    tokens: int | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Example:
    """One question with its reference answer.

    Attributes:
        id: Unique in its file; `<file>/<line>` where the file gives none.
        question: The question, never empty.
        reference: The right answer; several spellings stand in one string, separated by " | ". Empty where
            nobody knows it: some metrics need none.
        task: Kind of question, for reports by task; empty where unknown.
        candidates: Recorded answers by model name; empty where there are none.
        history: The conversation before the question, as pairs of role (`system`, `user`, `assistant`) and
            text; empty for a question on its own.
    """

    id: str
    question: str
    reference: str
    task: str = ""
    candidates: dict[str, Candidate] = field(default_factory=dict)
    history: tuple[tuple[str, str], ...] = ()


def load_examples(
    path: str | os.PathLike[str],
    *,
    limit: int | None = None,
    columns: Columns = Columns(),  # noqa: B008 - a tuple, never changed
    ignored: Counter[str] | None = None,
) -> list[Example]:
    """Read a data file.

    Args:
        path: A `.jsonl` file, plain or compressed (`.gz`), UTF-8, whose blank lines are skipped; or a file of
            another tool, see `formats.py`.
        limit: Read only the first so many questions.
        columns: Which columns hold question, reference and task, where they have other names.
        ignored: Receives how often each field came that nobody reads.

    Returns:
        The questions in the file's order, at least one, with unique ids.

    Raises:
        DataError: If the file is missing, empty or damaged, or a line has another layout, missing
            fields, scores that are no finite numbers, or an id that was used before.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit}: at least 1 question must be read")
    known = _ANSWERED.get(path, columns)
    if known is None:
        known = _read(path, limit, columns)
        if limit is None and any(example.candidates for example in known[0]):
            _ANSWERED.keep(path, columns, known)
    if ignored is not None:
        ignored.update(known[1])
    return known[0][:limit]


_Read = tuple[list[Example], Counter[str]]


class _Answered:
    """The last files with recorded answers: read for their questions, and by the experts that replay them."""

    _MOST = 4

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, Columns], tuple[tuple[int, int], _Read]] = {}

    def get(self, path: Path, columns: Columns) -> _Read | None:
        """What was read, if the file is as it was then."""
        with self._lock:
            found = self._kept.get((str(path.absolute()), columns))
        return None if found is None or found[0] != _version(path) else found[1]

    def keep(self, path: Path, columns: Columns, read: _Read) -> None:
        with self._lock:
            while len(self._kept) >= self._MOST:
                self._kept.pop(next(iter(self._kept)))
            self._kept[str(path.absolute()), columns] = (_version(path), read)


def _version(path: Path) -> tuple[int, int]:
    try:
        seen = path.stat()
    except OSError:
        return 0, 0  # a data set of the Hub
    return seen.st_mtime_ns, seen.st_size


_ANSWERED = _Answered()


def _read(path: Path, limit: int | None, columns: Columns) -> _Read:
    examples: list[Example] = []
    ignored: Counter[str] = Counter()
    lines_of: dict[str, int] = {}
    others = other_rows(path)
    rows: Iterable[tuple[int, Any]] = _line_rows(path, columns) if others is None else others
    for number, line in rows:
        row = _Row(path, number, line, columns)
        example = row.example()
        ignored.update(row.ignored)
        if example.id in lines_of:
            raise DataError(
                f"{path}, line {number}: the id {example.id!r} was used in line "
                f"{lines_of[example.id]}; ids must be unique"
            )
        lines_of[example.id] = number
        examples.append(example)
        if len(examples) == limit:
            break
    if not examples:
        raise DataError(f"{path}: the file has no questions; {_LAYOUTS}")
    return examples, ignored


def _line_rows(path: Path, columns: Columns) -> Iterator[tuple[int, Any]]:
    """Numbered lines that are not blank; of promptfoo's results, a line each, the rows that they make."""
    lines = ((number, line) for number, line in _lines(path) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    every = chain([first], lines)
    if is_promptfoo(_parsed_or_none(first[1])):
        results = (_Row(path, number, line, columns).row for number, line in every)
        yield from enumerate(promptfoo_rows(results), 1)
    else:
        yield from every


def _parsed_or_none(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None  # said later, with its line


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a plain or compressed file, with its faults turned into `DataError`."""
    try:
        size = check_regular(path)
        # utf-8-sig: files saved on Windows often begin with a byte order mark.
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig") as file:
                yield from _bounded(path, file, _MOST_RATIO * size + 2**20)
        else:
            with path.open(encoding="utf-8-sig") as file:
                yield from _bounded(path, file, size + 1)
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file (looked in {path.absolute().parent})"
        ) from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; give a data file") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text ({error.reason}); a compressed file's name ends in .gz"
        ) from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged or not a gzip file ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _bounded(path: Path, file: TextIO, at_most: int) -> Iterator[tuple[int, str]]:
    """Numbered lines, none of them endless, and not more than a file of this size can honestly hold."""
    read = number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        read += len(line)
        if len(line) == _LONGEST_LINE and not line.endswith("\n"):
            raise DataError(
                f"{path}, line {number}: longer than {_LONGEST_LINE} characters; write one question a line"
            )
        if read > at_most:
            raise DataError(
                f"{path}: unpacks to more than {_MOST_RATIO} times its size; such a file is a trap or damaged"
            )
        yield number, line


class _Row:
    """One line on its way to an `Example`; knows where it stands, for the messages."""

    def __init__(
        self,
        path: Path,
        number: int,
        line: str | dict[str, Any],
        columns: Columns = Columns(),  # noqa: B008
    ) -> None:
        self.path, self.number = path, number
        self.ignored: list[str] = []
        if isinstance(line, dict):
            self._take(line, columns)
            return
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            hint = (
                "; a JSON array must be written one object a line"
                if line.lstrip()[:1] == "["
                else ""
            )
            self.fail(f"not JSON ({error}), found {_shown(line.strip())}{hint}")
        if not isinstance(row, dict):
            kind = "null" if row is None else type(row).__name__
            hint = "an array is a .json file; " if isinstance(row, list) else ""
            self.fail(f"found a JSON {kind}; {hint}{_LAYOUTS}")
        self._take(row, columns)

    def _take(self, row: dict[str, Any], columns: Columns) -> None:
        try:
            taken, self.ignored = known_layout(row, columns)
        except KeyError as error:
            self.fail(f"there is no column {error}; found {_listing(row)}")
        except ValueError as error:
            self.fail(str(error))
        self.row: dict[str, Any] = taken

    def fail(self, message: str) -> NoReturn:
        raise DataError(f"{self.path}, line {self.number}: {message}") from None

    def example(self) -> Example:
        row = self.row
        if "instruction" in row:
            parts = [self.text(row, "instruction"), self.text(row, "input", default="")]
            reference = self.reference("output")
        elif "question" in row:
            parts = [self.text(row, "question")]
            reference = self.reference("answer")
        else:
            self.fail(
                f"another layout, with the fields {_listing(row) or '(none)'}; {_LAYOUTS}. Other columns can "
                "be named: --question-column, --answer-column, --task-column"
            )
        question = "\n\n".join(part for part in parts if part.strip())
        if not question:
            self.fail("the question is empty")
        stem = self.path.name.split(".")[0]
        identity = self.text(row, "id", default="") or f"{stem}/{self.number}"
        return Example(
            id=identity,
            question=question,
            reference=reference,
            task=self.text(row, "task", default=""),
            candidates=self.candidates(),
            history=read_history(self.row.get("history"), self.fail),
        )

    def text(self, row: dict[str, Any], name: str, *, default: str | None = None) -> str:
        """A field that is text, or a number or date written as one."""
        value = row.get(name)
        if value is None:
            if default is None:
                self.fail(f'the field "{name}" is missing; found {_listing(row)}')
            return default
        if isinstance(value, bool):
            self.fail(
                f'"{name}" is {json.dumps(value)}; it must be text: write what an expert should say, such '
                'as "yes"'
            )
        nan = isinstance(value, float | Decimal) and not math.isfinite(value)
        if nan or not isinstance(value, _WRITTEN):
            self.fail(f'"{name}" is {_found(value)}; it must be text')
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which no tokenizer and no hash accepts
            self.fail(
                f'"{name}" holds half of a character (a lone surrogate), found {_shown(text)}'
            )
        return text

    def reference(self, name: str) -> str:
        """The reference answer, empty where nobody knows it; a list of spellings becomes one string."""
        value = self.row.get(name)
        if isinstance(value, list):
            known = [item for item in value if item is not None]  # as Parquet fills up
            if value and not known:
                return ""
            value = known
        if isinstance(value, list) and value:
            return ALIAS_SEPARATOR.join(self.text({name: item}, name) for item in value)
        return self.text(self.row, name, default="")

    def candidates(self) -> dict[str, Candidate]:
        given = self.row.get("candidates")
        if given is None:
            return {}
        if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
            self.fail(f'"candidates" is {_found(given)}; it must be a list of objects')
        found: dict[str, Candidate] = {}
        for item in given:
            model = self.text(item, "model")
            if model in found:
                self.fail(f"two candidates of the model {model!r}; each model may have one")
            found[model] = Candidate(
                model=model,
                text=self.text(item, "text"),
                scores=self.scores(model, item.get("scores")),
                answer=None if item.get("answer") is None else self.text(item, "answer"),
                tokens=self.tokens(model, item.get("tokens")),
                cost=self.cost(model, item.get("cost")),
            )
        return found

    def tokens(self, model: str, given: Any) -> int | None:
        if given is None:
            return None
        if isinstance(given, bool) or not isinstance(given, int) or given < 0:
            shown = _found(given)
            self.fail(f'candidate {model!r}: "tokens" is {shown}; it must be a whole number >= 0')
        return given

    def cost(self, model: str, given: Any) -> float | None:
        if given is None:
            return None
        number = isinstance(given, int | float | Decimal) and not isinstance(given, bool)
        if not number or _is_nan(given) or not 0 <= given <= sys.float_info.max:
            shown = _found(given)
            self.fail(f'candidate {model!r}: "cost" is {shown}; it must be a number >= 0')
        return float(given)

    def scores(self, model: str, given: Any) -> dict[str, float]:
        if given is None:
            return {}
        if not isinstance(given, dict):
            shown = _found(given)
            self.fail(f'candidate {model!r}: "scores" is {shown}; it must be an object')
        for name, value in given.items():
            # bool is an int in Python, and a judgement of right or wrong is a score: true is 1.
            number = isinstance(value, int | float | Decimal)
            if not number or _is_nan(value) or not abs(value) <= sys.float_info.max:
                shown = json.dumps(value, default=repr)
                self.fail(
                    f"candidate {model!r}: the score {name!r} is {shown}; it must be a "
                    "finite number (leave the score out where there is none)"
                )
        return {name: float(value) for name, value in given.items()}


def _is_nan(number: Any) -> bool:
    """A decimal that is none cannot be compared."""
    return isinstance(number, Decimal) and number.is_nan()


def _found(value: Any) -> str:
    """A value as JSON writes it; the binary ones of Parquet as Python does."""
    return _shown(json.dumps(value, default=repr))


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _listing(names: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(repr(name) for name in names)


ROLES = ("system", "user", "assistant")


def read_history(given: Any, fail: Callable[[str], NoReturn]) -> tuple[tuple[str, str], ...]:
    """Read the field `history` of a line.

    Args:
        given: Its value; None where there is none.
        fail: Called with what is wrong; raises.

    Returns:
        Pairs of role and text, in order.
    """
    if given is None:
        return ()
    if not isinstance(given, list):
        fail(f'"history" is a {type(given).__name__}; it must be a list of {{"role", "content"}}')
    turns = []
    for number, turn in enumerate(given, 1):
        role, text = (
            (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        )
        if role not in ROLES or not isinstance(text, str) or not text.strip():
            fail(
                f'turn {number} of "history" is {str(turn)[:80]}; it must be {{"role": one of '
                f'{", ".join(ROLES)}; "content": some text}}'
            )
        turns.append((str(role), text))
    return tuple(turns)
