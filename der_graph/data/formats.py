"""Files of other tools as rows that `files.py` reads: tables, arrays, chats, exports and logs.

    .csv .tsv .json .parquet .eval, folders of `datasets`, hf:owner/name ──other_rows──> {"question", ...}

| what | told by | question, answer |
|---|---|---|
| table, JSON array, JSON Lines | its columns | the columns named, or `question` and `answer` |
| multiple choice: MMLU, ARC, MedQA | `choices`, `options` | the question with these, the right one |
| reading, as of SQuAD | `answers` | `question`, any of the `answers.text` |
| chat of OpenAI's fine-tuning | `messages` | the last user's message, the assistant's after it |
| chat of ShareGPT | `conversations` | the same, of `from` and `value` |
| dataset of LangSmith | `inputs`, `outputs` | their messages, or their only text |
| results of promptfoo | `vars` of a result | the prompt, an assertion's value; outputs are candidates |
| log of inspect_ai | `eval`, `samples` | the sample's input and target; the model's output is a candidate |

Knows nothing of experts.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from der_graph.errors import DataError, require

Row = dict[str, Any]
Rows = Iterator[tuple[int, Row]]

HUB = "hf:"
"""Before the id of a dataset on the Hugging Face Hub: `hf:owner/name`, with `:split` after it if wanted."""
_TEXT_KEYS = (
    "question", "input", "query", "prompt", "text", "answer", "output", "response",
    "content",
)  # fmt: skip
_TASK_KEYS = ("task", "topic", "category")


class Columns(NamedTuple):
    """Which columns hold what; None for the usual names.

    Attributes:
        question: The question.
        answer: The reference.
        task: The kind of question.
    """

    question: str | None = None
    answer: str | None = None
    task: str | None = None


def other_rows(path: Path) -> Rows | None:
    """The numbered rows of a file that is not JSON Lines; None for JSON Lines.

    Raises:
        DataError: If it cannot be read.
        MissingDependencyError: If a reader is not installed.
    """
    name = str(path)
    if name.startswith(HUB):
        return _hub(name.removeprefix(HUB))
    if path.is_dir():
        return _folder(path)
    suffix = path.suffix.lower()
    if name.lower().endswith((".csv.gz", ".tsv.gz", ".json.gz", ".parquet.gz")):
        raise DataError(
            f"{path}: of compressed files only JSON Lines (.jsonl.gz) are read; unpack it"
        )
    if suffix in (".csv", ".tsv"):
        return _table(path, "\t" if suffix == ".tsv" else ",")
    if suffix == ".parquet":
        return _parquet(path)
    if suffix == ".eval":
        return _eval_log(path)
    if suffix == ".json":
        return _document(path)
    return None


def known_layout(row: Row, columns: Columns) -> tuple[Row, list[str]]:
    """A row in the layout of `files.py`, and the fields of it that nobody reads.

    Raises:
        KeyError: If a column that was named is not there.
        ValueError: If a chat asks nothing, or a choice is not there; says why.
    """
    named = {key: name for key, name in columns._asdict().items() if name is not None}
    if named:
        row = (
            {key: value for key, value in row.items() if key not in ("question", "answer", "task")}
            | {key: row[name] for key, name in named.items()}
            | {
                key: row[key]
                for key in ("question", "answer", "task")
                if key not in named and key in row
            }
        )
        row = {
            key: value for key, value in row.items() if key not in named.values() or key in named
        }
    elif isinstance(row.get("messages"), list):
        row = _chat(row)
    elif isinstance(row.get("conversations"), list) and "question" not in row:
        row = _chat(_from_sharegpt(row))
    elif isinstance(row.get("inputs"), Mapping):
        row = _langsmith(row)
    elif "question" in row and (choices := _choices_of(row)):
        row = _multiple_choice(row, choices)
    elif isinstance(row.get("answers"), Mapping) and "answer" not in row:
        row = {**row, "answer": row["answers"].get("text")}
        del row["answers"]
    if "question" not in row and "instruction" not in row:
        # As spreadsheets head their columns.
        own = {key.lower(): key for key in row if key.lower() in _READ and key.lower() not in row}
        row = {key: value for key, value in row.items() if own.get(key.lower()) != key} | {
            name: row[key] for name, key in own.items()
        }
    return row, [key for key in row if key not in _READ]


_READ = frozenset(
    ("id", "question", "answer", "instruction", "input", "output", "task", "candidates", "history")
)


def _chat(row: Row) -> Row:
    turns = [dict(turn) for turn in row["messages"] if isinstance(turn, Mapping)]
    asked = max(
        (i for i, turn in enumerate(turns) if _role(turn) == "user"),
        default=None,
    )
    if asked is None:
        raise ValueError("nobody asks in this chat: it has no message of a user")
    for turn in turns:
        _no_pictures(turn.get("content"))
    after = [
        _text(turn.get("content")) for turn in turns[asked + 1 :] if _role(turn) == "assistant"
    ]
    rest = {key: value for key, value in row.items() if key != "messages"}
    history = [
        {"role": _role(turn), "content": _text(turn.get("content"))} for turn in turns[:asked]
    ]
    question = _text(turns[asked].get("content"))
    return {
        "answer": after[-1] if after else "",
        **rest,
        "question": question,
        "history": history or None,
    }


_MEDIA = ("image", "audio", "video", "file", "document")


_ROLES = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("ai", "gpt", "chatgpt", "bing"), "assistant"),
    "developer": "system",
}


def _role(turn: Row) -> str:
    """Who speaks, as chat APIs name it; what is no such name stays, and is refused where it is read."""
    role = str(turn.get("role")).lower()
    return _ROLES.get(role, role)


def _no_pictures(content: Any) -> None:
    """What a message holds beside its texts would be left out without a word: a question about nothing."""
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, Mapping):
            continue
        kind = str(part.get("type") or next(iter(part), ""))
        if kind.removeprefix("input_").removesuffix("_url") in _MEDIA:
            raise ValueError(f"a message holds a part of the type {kind!r}; questions are text")


def _from_sharegpt(row: Row) -> Row:
    """The same with OpenAI's names: `from` and `value` are ShareGPT's."""
    turns = []
    for turn in row["conversations"]:
        if isinstance(turn, Mapping):
            role = turn.get("from", turn.get("role"))
            content = turn.get("value", turn.get("content"))
            turns.append({"role": role, "content": content})
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        turns.insert(0, {"role": "system", "content": system})
    rest = {key: value for key, value in row.items() if key not in ("conversations", "system")}
    return {**rest, "messages": turns}


class _Choices(NamedTuple):
    """The choices of a question: the field that holds them, their labels, their texts."""

    field: str
    labels: list[str]
    texts: list[str]


def _choices_of(row: Row) -> _Choices | None:
    """A list of texts; texts by their labels; or, as of ARC, a list of texts and one of labels."""
    for field in ("choices", "options"):
        given = row.get(field)
        labels: Any = None
        if isinstance(given, Mapping) and isinstance(given.get("text"), list):
            given, labels = given["text"], given.get("label")
        elif isinstance(given, Mapping):
            given, labels = list(given.values()), list(given)
        if not isinstance(given, list) or not given or isinstance(given[0], (Mapping, list)):
            continue
        if not isinstance(labels, list) or len(labels) != len(given):
            labels = [chr(ord("A") + i) for i in range(len(given))]
        return _Choices(field, [_text(label) for label in labels], [_text(one) for one in given])
    return None


_RIGHT = ("answer", "answerKey")
_NUMBER = re.compile(r"-?\d{1,3}(\.0)?", re.ASCII)
_LETTER = re.compile(r"[A-Za-z]")


def _multiple_choice(row: Row, choices: _Choices) -> Row:
    """A question whose answer is the number of one of its choices, its label or its text.

    Numbers count from 0, and may be written as text ("1"). A negative one hides the answer, as in the
    test parts of some data sets.

    Raises:
        ValueError: If it is the number, or the letter, of a choice that is not there.
    """
    field, labels, texts = choices
    rest = {key: value for key, value in row.items() if key not in (field, *_RIGHT)}
    listed = "\n".join(f"{label}. {text}" for label, text in zip(labels, texts, strict=True))
    rest["question"] = f"{_text(row['question'])}\n\n{listed}"
    right = next((row[key] for key in _RIGHT if row.get(key) is not None), None)
    at = _chosen(right, labels, texts)
    if at is None:
        hidden = right is None or right == "" or _whole(right) is not None
        return rest if hidden else {**rest, "answer": right}
    return {**rest, "answer": [labels[at], texts[at]]}


def _chosen(right: Any, labels: Sequence[str], texts: Sequence[str]) -> int | None:
    """Which choice is right; None where nobody knows, or the answer is in words of its own.

    Raises:
        ValueError: If it is the number, or the letter, of a choice that is not there.
    """
    said, number = _text(right), _whole(right)
    if said in labels:
        return labels.index(said)
    if isinstance(right, str) and said in texts:
        return texts.index(said)
    if number is not None and 0 <= number < len(texts):
        return number
    if number is not None and _text(number) in texts:
        return texts.index(_text(number))
    if isinstance(right, str) and said.upper() in labels:
        return labels.index(said.upper())
    if (number is not None and number >= 0) or _LETTER.fullmatch(said):
        raise ValueError(
            f"the answer {right!r} is none of the {len(texts)} choices; give its number from 0 on, "
            f"its label ({', '.join(labels)}) or its text"
        )
    return None


def _whole(value: Any) -> int | None:
    """A whole number, also one written as text, or as a float where its column has gaps."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(float(value))
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return int(value) if abs(value) < 1e9 and value == int(value) else None


def _langsmith(row: Row) -> Row:
    said = row.get("outputs") or row.get("reference_outputs") or {}
    about = row.get("metadata") or {}
    rest = {
        key: value
        for key, value in row.items()
        if key not in ("inputs", "outputs", "reference_outputs", "metadata")
    }
    task = next((str(about[key]) for key in _TASK_KEYS if about.get(key)), None)
    inputs = row["inputs"]
    if isinstance(inputs.get("messages"), list):
        asked = _chat({"messages": inputs["messages"]})
    else:
        asked = {"question": _only_text(inputs)}
    return {
        **rest, **_unread("inputs", inputs), **asked, "answer": _only_text(said), "task": task,
    }  # fmt: skip


def _only_text(given: Any) -> str:
    """The text in an object of inputs or outputs."""
    if isinstance(given, Mapping):
        if isinstance(given.get("messages"), list) and given["messages"]:
            return _text(dict(given["messages"][-1]).get("content"))
        return _text(given.get(_text_key(given)))
    return _text(given)


def _text_key(given: Mapping[str, Any]) -> str | None:
    """Which field of an object holds its text."""
    named = next((key for key in _TEXT_KEYS if given.get(key) is not None), None)
    return next(iter(given)) if named is None and len(given) == 1 else named


def _unread(name: str, given: Mapping[str, Any]) -> Row:
    """The fields beside an object's text, such as a context, by names that nobody reads: they are counted."""
    text = "messages" if isinstance(given.get("messages"), list) else _text_key(given)
    return {f"{name}.{key}": value for key, value in given.items() if key != text}


def _text(given: Any) -> str:
    """Text, or the text parts of a message's content."""
    if given is None:
        return ""
    if isinstance(given, list):
        parts = (part.get("text", "") if isinstance(part, Mapping) else str(part) for part in given)
        return "".join(map(str, parts))
    return given if isinstance(given, str) else str(given)


def _table(path: Path, delimiter: str) -> Rows:
    with _opened(path) as file:
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        try:
            heading = file.readline()
            if delimiter not in heading and ";" in heading:
                delimiter = ";"  # as spreadsheets write it where the comma is in numbers
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter)
            reader.fieldnames = _heading(path, reader.fieldnames or ())
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}, line {reader.line_num}: another number of columns than the heading's "
                        f"{len(reader.fieldnames or ())}"
                    )
                if any(value.strip() for value in row.values()):
                    yield reader.line_num, {key: value for key, value in row.items() if value != ""}
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not a table ({error})") from None
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: not UTF-8 text ({error.reason}); spreadsheets save such as 'CSV UTF-8'"
            ) from None


def _heading(path: Path, names: Sequence[str]) -> list[str]:
    found = [name.strip() for name in names]
    for name in found:
        if name and found.count(name) > 1:
            raise DataError(f"{path}, line 1: two columns are named {name!r}; rename one of them")
    return found


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _document(path: Path) -> Rows:
    with _opened(path) as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error}); JSON Lines are named .jsonl") from None
    if isinstance(content, dict):
        if isinstance(content.get("samples"), list) and "eval" in content:
            return iter(enumerate(_inspect(content["eval"], content["samples"]), 1))
        results = content.get("results")
        results = results.get("results") if isinstance(results, dict) else results
        if isinstance(results, list) and results and is_promptfoo(results[0]):
            return iter(enumerate(promptfoo_rows(results), 1))
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else [content]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise DataError(f"{path}: found a JSON {type(content).__name__}; give an array of objects")
    return iter(enumerate(content, 1))


def is_promptfoo(row: Any) -> bool:
    """Is it a result of promptfoo: what one provider said to one prompt, and how that was judged?"""
    known = isinstance(row, Mapping) and isinstance(row.get("vars"), Mapping)
    return known and ("provider" in row or "testCase" in row)


def promptfoo_rows(results: Iterable[Row]) -> Iterator[Row]:
    """A row for each question of promptfoo's results, with what every provider said."""
    rows: dict[str, Row] = {}
    tests = [(each, _own_vars(each)) for each in results]
    different: dict[str, set[str]] = {}
    for _, given in tests:
        different.setdefault(_only_text(given), set()).add(_spelt(given))
    for result, given in tests:
        test = result.get("testCase") or {}
        question, unread = _only_text(given), _unread("vars", given)
        raw = _text((result.get("prompt") or {}).get("raw"))
        # Two tests may ask the same about different texts; the prompt has all of them in it.
        if raw and (not question or len(different[question]) > 1):
            question, unread = raw, {}
        checks = test.get("assert") or []
        right = next(
            (
                c["value"]
                for c in checks
                if str(c.get("type", "")).lstrip("i") in ("equals", "contains")
            ),
            "",
        )
        row = rows.setdefault(
            _spelt([question, given]),
            {**unread, "question": question, "answer": _text(right), "candidates": []},
        )
        provider = result.get("provider") or {}
        name = (
            (provider.get("label") or provider.get("id"))
            if isinstance(provider, dict)
            else provider
        )
        output = (result.get("response") or {}).get("output")
        if output is not None and name not in [each["model"] for each in row["candidates"]]:
            score = result.get("score", result.get("success"))
            scores = {} if score is None else {"score": score}
            text = output if isinstance(output, str) else json.dumps(output)
            used = (result.get("response") or {}).get("tokenUsage") or {}
            row["candidates"].append(
                {
                    "model": str(name),
                    "text": text,
                    "scores": scores,
                    "tokens": used.get("completion"),
                    "cost": result.get("cost"),
                }
            )
    return iter(rows.values())


def _own_vars(result: Row) -> Row:
    """The variables of a test; promptfoo's own, such as `_conversation`, differ by provider."""
    given = result.get("vars") or {}
    return {key: each for key, each in given.items() if key[:1] != "_" and key != "sessionId"}


def _spelt(given: Any) -> str:
    return json.dumps(given, sort_keys=True, default=str)


_GRADES = {
    "C": 1.0,
    "P": 0.5,
    "I": 0.0,
    "N": 0.0,
}  # inspect_ai's correct, partial, incorrect, no answer


def _inspect(about: Row, samples: list[Row]) -> Iterator[Row]:
    for sample in samples:
        given = sample.get("input")
        asked = (
            _chat({"messages": given}) if isinstance(given, list) else {"question": _text(given)}
        )
        scores = {}
        for name, score in (sample.get("scores") or {}).items():
            value = score.get("value") if isinstance(score, Mapping) else score
            value = _GRADES.get(value, value) if isinstance(value, str) else value
            if isinstance(value, (int, float)):
                scores[name] = value
        row = {
            **asked,
            "answer": sample.get("target") or "",
            "task": _text(about.get("task")) or None,
            **({"choices": sample["choices"]} if sample.get("choices") else {}),
        }
        epoch = sample.get("epoch", 1)
        row["id"] = f"{sample.get('id')}" + (f"/{epoch}" if epoch != 1 else "")
        said = (sample.get("output") or {}).get("completion")
        if said:
            model = _text(about.get("model"))
            used = (sample.get("model_usage") or {}).get(model) or {}
            row["candidates"] = [
                {
                    "model": model,
                    "text": said,
                    "scores": scores,
                    "tokens": used.get("output_tokens"),
                }
            ]
        yield row


def _eval_log(path: Path) -> Rows:
    try:
        with zipfile.ZipFile(path) as log:
            header = json.loads(log.read("header.json"))
            names = sorted(name for name in log.namelist() if name.startswith("samples/"))
            samples = [json.loads(log.read(name)) for name in names]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a log of inspect_ai ({error})") from None
    return iter(enumerate(_inspect(header.get("eval", {}), samples), 1))


def _parquet(path: Path) -> Rows:
    parquet = require("pyarrow.parquet", extra="data", why=f"reading {path.name}")

    def rows() -> Iterator[Row]:
        file = parquet.ParquetFile(path)
        yield from _arrow_rows(file.schema_arrow, file.iter_batches())

    return _numbered(path, "a Parquet file", rows())


def _numbered(path: Path, kind: str, rows: Iterator[Row]) -> Rows:
    """The rows with their numbers; what the reader raises, also in mid-file, becomes `DataError`."""
    try:
        yield from enumerate(rows, 1)
    except Exception as error:  # pyarrow has exceptions of its own
        raise DataError(f"{path}: not {kind}, or damaged ({error})") from None


def _arrow_rows(schema: Any, batches: Iterable[Any]) -> Iterator[Row]:
    """Rows of Arrow tables, with the names of the labels that `datasets` wrote as numbers."""
    names = _label_names(schema)
    for batch in batches:
        for row in batch.to_pylist():
            yield _named_labels(row, names)


def _label_names(schema: Any) -> dict[str, list[str]]:
    """The names of the labels of each column of classes, from what `datasets` notes in a schema."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted.get("info", {}).get("features") or {}
        return {
            column: list(feature["names"])
            for column, feature in features.items()
            if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, AttributeError, KeyError, TypeError):
        return {}  # somebody else's note


def _named_labels(row: Row, names: Mapping[str, Sequence[str]]) -> Row:
    """The row with a label's name for its number; -1 hides the label, and becomes None."""
    for column, known in names.items():
        at = row.get(column)
        if isinstance(at, int):
            row[column] = known[at] if 0 <= at < len(known) else None
    return row


def _folder(path: Path) -> Rows:
    """A folder that `datasets` saved: its Arrow files, in order.

    Its `state.json` names them; what lies beside them are caches of `map` and `filter`, the same rows again.
    """
    files = sorted(path.glob("*.arrow"))
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        files = [path / Path(each["filename"]).name for each in state["_data_files"]] or files
    except (OSError, ValueError, KeyError, TypeError):
        pass  # written by other tools
    if not files:
        splits = [
            each.name
            for each in sorted(path.iterdir())
            if each.is_dir() and any(each.glob("*.arrow"))
        ]
        hint = (
            f"; it has the splits {', '.join(splits)}: give one of these folders" if splits else ""
        )
        raise DataError(f"{path} is a folder without data files of the datasets library{hint}")
    ipc = require("pyarrow.ipc", extra="data", why=f"reading {path.name}")

    def rows() -> Iterator[Row]:
        for file in files:
            with file.open("rb") as stream:
                table = ipc.open_stream(stream)
                yield from _arrow_rows(table.schema, table)

    return _numbered(path, "a folder of datasets", rows())


def _hub(name: str) -> Rows:
    datasets = require("datasets", extra="data", why=f"the dataset {name}")
    owner, _, split = name.partition(":")
    try:
        found = datasets.load_dataset(owner, split=split or None)
    except Exception as error:
        raise DataError(f"dataset {name}: {str(error).splitlines()[0][:300]}") from None
    if isinstance(found, dict):
        if len(found) > 1:
            raise DataError(
                f"dataset {name} has the splits {', '.join(found)}; give one: hf:{owner}:SPLIT"
            )
        found = next(iter(found.values()))
    names = {
        column: feature.names
        for column, feature in (found.features or {}).items()
        if hasattr(feature, "names")
    }
    return iter(enumerate((_named_labels(dict(row), names) for row in found), 1))
