"""Data files: both layouts, and a clear error for every fault."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from der_graph.data import Candidate, Example, load_examples
from der_graph.errors import DataError


def written(folder: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    """A data file of these rows; a str is a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path = folder / name
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def mix(**changes: Any) -> dict[str, Any]:
    """A row as LLM-Blender publishes it."""
    row = {
        "id": "unified_chip2/1",
        "instruction": "Add the numbers.",
        "input": "2 and 3",
        "output": "5",
        "candidates": [
            {
                "decoding_method": "top_p_sampling",
                "model": "org/vicuna-13b",
                "text": "It is 5.",
                "scores": {"logprobs": -0.2, "rougeL": 0.5, "accuracy": True},
            }
        ],
    }
    return {**row, **changes}


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_reads_mixinstruct(tmp_path: Path, name: str) -> None:
    second = mix(id=7, input="", candidates=None, task="sums")
    examples = load_examples(written(tmp_path, mix(), "", second, name=name))
    scores = {"logprobs": -0.2, "rougeL": 0.5, "accuracy": 1.0}
    candidate = Candidate("org/vicuna-13b", "It is 5.", scores)
    assert examples == [
        Example(
            "unified_chip2/1",
            "Add the numbers.\n\n2 and 3",
            "5",
            candidates={"org/vicuna-13b": candidate},
        ),
        Example("7", "Add the numbers.", "5", task="sums"),
    ]


def test_reads_extracted_answer_and_tokens(tmp_path: Path) -> None:
    given = {"model": "m", "text": "So 5.", "answer": 5, "tokens": 3}
    candidate = load_examples(written(tmp_path, mix(candidates=[given])))[0].candidates["m"]
    assert candidate == Candidate("m", "So 5.", {}, answer="5", tokens=3)


def test_reads_questions_and_answers(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"question": "2 + 3?", "answer": 5},
        {"id": "x", "task": "t", "question": "Who?", "answer": ["Ann", "Ann Lee"], "more": None},
    )
    assert load_examples(path) == [
        Example("data/1", "2 + 3?", "5"),
        Example("x", "Who?", "Ann | Ann Lee", task="t"),
    ]


def test_a_question_may_have_no_reference(tmp_path: Path) -> None:
    rows = [
        {"question": "Why?"},
        {"instruction": "Why?", "output": ""},
        {"question": "?", "answer": None},
    ]
    assert [e.reference for e in load_examples(written(tmp_path, *rows))] == ["", "", ""]


def test_reads_a_byte_order_mark_and_line_separators(tmp_path: Path) -> None:
    row = json.dumps({"question": "a\u2028b", "answer": "1"}, ensure_ascii=False)
    assert load_examples(written(tmp_path, "\ufeff" + row))[0].question == "a\u2028b"


def test_limit_stops_early(tmp_path: Path) -> None:
    path = written(tmp_path, mix(), "never looked at")
    assert len(load_examples(path, limit=1)) == 1
    with pytest.raises(DataError, match="at least 1"):
        load_examples(path, limit=0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("nonsense", "line 1: not JSON .* found 'nonsense'"),
        ("[", "one object a line"),
        ([1], "found a JSON list"),
        ({"prompt": "?"}, "another layout, with the fields 'prompt'; a line is"),
        ({"question": "?", "answer": []}, '"answer" is .*must be text'),
        ('{"question": "?", "answer": NaN}', '"answer" is .*NaN'),
        ({"question": " ", "answer": "1"}, "the question is empty"),
        ({"question": {"a": 1}, "answer": "1"}, '"question" is .*must be text'),
        ({"question": "\ud800", "answer": "1"}, "lone surrogate"),
        (mix(candidates={"m": 1}), '"candidates" is .*list of objects'),
        (mix(candidates=[{"text": "t"}]), '"model" is missing'),
        (mix(candidates=[{"model": "m"}]), '"text" is missing'),
        (mix(candidates=[{"model": "m", "text": "t"}] * 2), "two candidates of the model 'm'"),
        (mix(candidates=[{"model": "m", "text": "t", "tokens": -1}]), '"tokens" is .*>= 0'),
        (mix(candidates=[{"model": "m", "text": "t", "scores": [1]}]), '"scores" is'),
    ],
)
def test_names_the_line_and_what_was_found(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_examples(written(tmp_path, row))
    assert str(tmp_path / "data.jsonl") in str(caught.value)


def test_a_list_of_nothing_is_no_reference(tmp_path: Path) -> None:
    """As Parquet fills up lists."""
    [example] = load_examples(written(tmp_path, {"question": "?", "answer": [None]}))
    assert example.reference == ""


def test_costs_and_scores_may_be_decimals(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra data")
    pa = pytest.importorskip("pyarrow")
    said = {"model": "m", "text": "t", "cost": Decimal("0.25"), "scores": {"right": Decimal("0.5")}}
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.Table.from_pylist([{"question": "?", "candidates": [said]}]), path)
    [example] = load_examples(path)
    assert example.candidates["m"].cost == 0.25
    assert example.candidates["m"].scores == {"right": 0.5}


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity", "null", '"high"', "1e999"])
def test_refuses_scores_that_are_no_numbers(tmp_path: Path, score: str) -> None:
    row = json.dumps(mix()).replace("0.5", score)
    with pytest.raises(DataError, match="candidate 'org/vicuna-13b': the score 'rougeL' is"):
        load_examples(written(tmp_path, row))


def test_refuses_an_id_used_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: the id 'unified_chip2/1' was used in line 1"):
        load_examples(written(tmp_path, mix(), mix()))


def test_refuses_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        load_examples(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        load_examples(tmp_path)
    with pytest.raises(DataError, match="has no questions; a line is"):
        load_examples(written(tmp_path, ""))
    plain = tmp_path / "plain.gz"
    plain.write_text("{}")
    with pytest.raises(DataError, match="damaged or not a gzip file"):
        load_examples(plain)
    whole = written(tmp_path, mix(), name="cut.jsonl.gz")
    whole.write_bytes(whole.read_bytes()[:-12])
    with pytest.raises(DataError, match="damaged"):
        load_examples(whole)
    compressed = tmp_path / "renamed.jsonl"
    compressed.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(DataError, match=r"not UTF-8 text.*ends in \.gz"):
        load_examples(compressed)


def test_reads_the_recorded_pool(recorded_data: Path) -> None:
    examples = load_examples(recorded_data / "dev.jsonl.gz")
    assert len(examples) == 425
    assert all(example.candidates.keys() == examples[0].candidates.keys() for example in examples)
    assert len(examples[0].candidates) == 11
