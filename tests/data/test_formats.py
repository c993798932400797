"""Files of other tools: what is read as what, and one clear line where it cannot be."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from der_graph.data import Candidate, Columns, Example, load_examples
from der_graph.errors import DataError

MINE = Columns("prompt", "gold", "topic")
ROWS = [
    {"prompt": "2 + 3?", "gold": "5", "topic": "sums"},
    {"prompt": "Who, then?", "gold": "Ann", "topic": "facts"},
]
EXPECTED = [("2 + 3?", "5", "sums"), ("Who, then?", "Ann", "facts")]


def seen(examples: list[Example]) -> list[tuple[str, str, str]]:
    return [(e.question, e.reference, e.task) for e in examples]


def document(folder: Path, content: Any, name: str = "file.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_tables_arrays_and_lines_with_columns_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        '\ufeffprompt,gold,topic\n2 + 3?,5,sums\n"Who, then?",Ann,facts\n', "utf-8"
    )
    (tmp_path / "a.tsv").write_text(
        "prompt\tgold\ttopic\n2 + 3?\t5\tsums\nWho, then?\tAnn\tfacts\n", "utf-8"
    )
    document(tmp_path, ROWS, "a.json")
    document(tmp_path, {"version": 1, "rows": ROWS}, "b.json")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    for name in ("a.csv", "a.tsv", "a.json", "b.json", "a.jsonl"):
        assert seen(load_examples(tmp_path / name, columns=MINE)) == EXPECTED, name
        with pytest.raises(DataError, match=r"fields 'prompt', 'gold', 'topic'.*--question-column"):
            load_examples(tmp_path / name)
    with pytest.raises(DataError, match="there is no column 'target'; found 'prompt'"):
        load_examples(tmp_path / "a.csv", columns=MINE._replace(answer="target"))


def test_tables_of_spreadsheets(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(" question ; answer\r\n2,5 + 3?;5,5\r\n", "utf-8")
    assert seen(load_examples(table)) == [("2,5 + 3?", "5,5", "")]
    table.write_text("question,answer,answer\n2 + 3?,5,6\n", "utf-8")
    with pytest.raises(DataError, match="line 1: two columns are named 'answer'"):
        load_examples(table)
    table.write_text(
        "question,answer,,\n2 + 3?,5,,\n,,,\n4?,4,,\n,,,\n", "utf-8"
    )  # empty rows, columns
    assert [e.question for e in load_examples(table)] == ["2 + 3?", "4?"]


@pytest.mark.parametrize("answer", [1, "B", "Berlin"])
def test_a_multiple_choice_is_asked_with_its_choices(tmp_path: Path, answer: Any) -> None:
    row = {"question": "Capital of Germany?", "choices": ["Bonn", "Berlin"], "answer": answer}
    (example,) = load_examples(document(tmp_path, [row]))
    assert example.question == "Capital of Germany?\n\nA. Bonn\nB. Berlin"
    assert example.reference == "B | Berlin"


@pytest.mark.parametrize(
    "row",
    [
        {"options": ["Bonn", "Berlin"], "answer": "B", "answer_index": 1},  # MMLU-Pro
        {"choices": {"text": ["Bonn", "Berlin"], "label": ["A", "B"]}, "answerKey": "B"},  # ARC
        {"options": {"A": "Bonn", "B": "Berlin"}, "answer": "Berlin", "answer_idx": "B"},  # MedQA
    ],
)
def test_choices_of_other_data_sets(tmp_path: Path, row: Any) -> None:
    (example,) = load_examples(document(tmp_path, [{"question": "Capital of Germany?", **row}]))
    assert example.question == "Capital of Germany?\n\nA. Bonn\nB. Berlin"
    assert example.reference == "B | Berlin"


def test_choices_keep_their_labels(tmp_path: Path) -> None:
    choices = {"text": ["Bonn", "Berlin"], "label": ["1", "2"]}
    row = {"question": "Capital?", "choices": choices, "answerKey": "2"}
    (example,) = load_examples(document(tmp_path, [row]))
    assert (example.question, example.reference) == ("Capital?\n\n1. Bonn\n2. Berlin", "2 | Berlin")


def test_answers_of_reading_tasks(tmp_path: Path) -> None:
    row = {"question": "Who?", "answers": {"text": ["Ann", "Ann Lee"], "answer_start": [3, 3]}}
    assert seen(load_examples(document(tmp_path, [row]))) == [("Who?", "Ann | Ann Lee", "")]


def test_parquet_and_folders_of_datasets(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    ipc, parquet = pytest.importorskip("pyarrow.ipc"), pytest.importorskip("pyarrow.parquet")
    table = pa.Table.from_pylist(ROWS)
    parquet.write_table(table, tmp_path / "a.parquet")
    assert seen(load_examples(tmp_path / "a.parquet", columns=MINE)) == EXPECTED
    (tmp_path / "set" / "train").mkdir(parents=True)
    arrow = str(tmp_path / "set" / "train" / "data-0.arrow")
    with pa.OSFile(arrow, "wb") as file, ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    assert seen(load_examples(tmp_path / "set" / "train", columns=MINE)) == EXPECTED
    with pytest.raises(DataError, match="it has the splits train"):
        load_examples(tmp_path / "set")
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(DataError, match="not a Parquet file"):
        load_examples(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("system", "user", "assistant"),
    [
        ("system", "user", "assistant"),
        ("System", "User", "Assistant"),
        ("developer", "prompter", "assistant"),
        ("system", "human", "ai"),
    ],
)
def test_chats(tmp_path: Path, system: str, user: str, assistant: str) -> None:
    turns = [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "2 + 3?"),
        ("assistant", "5"),
    ]
    written = {"system": system, "user": user, "assistant": assistant}
    row = {"messages": [{"role": written[role], "content": text} for role, text in turns]}
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (example,) = load_examples(path)
    assert (example.question, example.reference, example.history) == (
        "2 + 3?",
        "5",
        tuple(turns[:3]),
    )


def test_chats_of_sharegpt(tmp_path: Path) -> None:
    turns = [("human", "Hi"), ("gpt", "Hello"), ("human", "2 + 3?"), ("gpt", "5")]
    row = {
        "id": "s1",
        "system": "Be brief.",
        "conversations": [{"from": who, "value": text} for who, text in turns],
    }
    (example,) = load_examples(document(tmp_path, [row]))
    assert (example.id, example.question, example.reference) == ("s1", "2 + 3?", "5")
    assert example.history == (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"))
    # Some write OpenAI's names into the same field.
    row = {
        "conversations": [
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "2"},
        ]
    }
    assert seen(load_examples(document(tmp_path, [row]))) == [("1 + 1?", "2", "")]


def test_langsmith_promptfoo_and_inspect(tmp_path: Path) -> None:
    run = {
        "inputs": {"messages": [{"role": "user", "content": "2 + 3?"}]},
        "outputs": {"answer": "5"},
        "metadata": {"topic": "sums"},
    }
    plain = {"inputs": {"city": "Rome"}, "outputs": {"output": "Italy"}}
    assert seen(load_examples(document(tmp_path, [run, plain]))) == [
        ("2 + 3?", "5", "sums"),
        ("Rome", "Italy", ""),
    ]

    def result(provider: str, output: str, score: int) -> dict[str, Any]:
        return {
            "vars": {"question": "2 + 3?"}, "provider": {"id": provider},
            "response": {"output": output, "tokenUsage": {"completion": 7}},
            "score": score, "cost": 0.25, "testCase": {"assert": [{"type": "icontains", "value": "5"}]},
        }  # fmt: skip

    results = [result("a", "5", 1), result("b", "6", 0)]
    other = {**result("a", "7", 0), "vars": {"question": "3 + 3?"}}
    lines = tmp_path / "results.jsonl"  # in the order in which they came
    lines.write_text("".join(json.dumps(row) + "\n" for row in (results[0], other, results[1])))
    for file, more in (
        (document(tmp_path, {"results": {"results": results}}), []),
        (lines, [("3 + 3?", "5", "")]),
    ):
        found = load_examples(file)
        assert seen(found) == [("2 + 3?", "5", ""), *more]
        assert found[0].candidates == {
            "a": Candidate("a", "5", {"score": 1.0}, tokens=7, cost=0.25),
            "b": Candidate("b", "6", {"score": 0.0}, tokens=7, cost=0.25),
        }
    lines.write_text(json.dumps(results[0]) + "\n{\n")
    with pytest.raises(DataError, match=r"results\.jsonl, line 2: not JSON"):
        load_examples(lines)

    about = {"model": "openai/x", "task": "sums"}
    sample = {
        "id": 1,
        "input": "2 + 3?",
        "target": "5",
        "output": {"completion": "It is 5."},
        "scores": {"match": {"value": "C"}},
        "model_usage": {"openai/x": {"input_tokens": 9, "output_tokens": 4}},
    }
    log = tmp_path / "run.eval"
    with zipfile.ZipFile(log, "w") as archive:
        archive.writestr("header.json", json.dumps({"eval": about}))
        archive.writestr("samples/1_epoch_1.json", json.dumps(sample))
    for path in (log, document(tmp_path, {"eval": about, "samples": [sample]})):
        (example,) = load_examples(path)
        assert seen([example]) == EXPECTED[:1]
        assert example.candidates == {
            "openai/x": Candidate("openai/x", "It is 5.", {"match": 1.0}, tokens=4)
        }


def test_what_stands_beside_a_question_is_not_lost_in_silence(tmp_path: Path) -> None:
    ignored: Counter[str] = Counter()
    runs = [
        {"inputs": {"question": "Who?", "context": each}, "outputs": {"answer": each}}
        for each in "ab"
    ]
    assert len(load_examples(document(tmp_path, runs), ignored=ignored)) == 2
    results = [
        {
            "vars": {"query": "Sum it up.", "page": each, "_conversation": [by]},
            "prompt": {"raw": f"Sum it up.\n{each}"},
            "provider": by,
            "response": {"output": each},
        }
        for each in "ab"
        for by in "xy"
    ]
    found = load_examples(document(tmp_path, {"results": results}), ignored=ignored)
    assert [example.question for example in found] == ["Sum it up.\na", "Sum it up.\nb"]
    assert [example.candidates["y"].text for example in found] == ["a", "b"]
    one = {**results[0], "vars": {"query": "Who?", "page": "a"}}
    assert len(load_examples(document(tmp_path, {"results": [one]}), ignored=ignored)) == 1
    assert ignored == {"inputs.context": 2, "vars.page": 1}
    sample = {"id": 1, "input": "Who?", "choices": ["Ann", "Bob"], "target": "B"}
    (example,) = load_examples(document(tmp_path, {"eval": {}, "samples": [sample]}))
    assert (example.question, example.reference) == ("Who?\n\nA. Ann\nB. Bob", "B | Bob")
    load_examples(
        document(tmp_path, {"eval": {}, "samples": [{**sample, "choices": []}]}), ignored=ignored
    )
    assert "choices" not in ignored


def test_fields_that_nobody_reads_are_counted(tmp_path: Path) -> None:
    ignored: Counter[str] = Counter()
    rows = [
        {"question": "?", "answer": "1", "dificulty": 3},
        {"question": "!", "answer": "1", "note": "x", "dificulty": 1},
    ]
    load_examples(document(tmp_path, rows), ignored=ignored)
    assert ignored == {"dificulty": 2, "note": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "not JSON"),
        ("a.json", "[1]", "give an array of objects"),
        ("a.csv", "question,answer\n1,2,3\n", "line 2: another number of columns"),
        ("a.eval", "no", "not a log of inspect_ai"),
        ("a.csv", "", "has no questions"),
    ],
)
def test_damage_is_said_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load_examples(tmp_path / name)


def test_columns_headed_as_spreadsheets_do_are_read(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("Question;Answer;Owner\nWhat is 2 + 3?;5;me\n", encoding="utf-8-sig")
    ignored: Counter[str] = Counter()
    (example,) = load_examples(file, ignored=ignored)
    assert (example.question, example.reference) == ("What is 2 + 3?", "5")
    assert list(ignored) == ["Owner"]
    named = load_examples(file, columns=Columns(question="Question", answer="Owner"))
    assert named[0].reference == "me"
    named = load_examples(file, columns=Columns(answer="Owner"))
    assert named[0].question == "What is 2 + 3?"


def test_a_column_in_small_letters_goes_before_one_in_large(tmp_path: Path) -> None:
    file = tmp_path / "both.csv"
    file.write_text("Question,answer,Answer\nWhat is 2 + 3?,5,five\n")
    assert load_examples(file)[0].reference == "5"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("u16.csv", "question,answer\nq?,a\n".encode("utf-16"), "'CSV UTF-8'"),
        ("packed.csv.gz", gzip.compress(b"question,answer\nq?,a\n", mtime=0), "unpack it"),
    ],
)
def test_tables_that_are_not_read_say_what_to_do(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_examples(tmp_path / name)


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([{"role": "assistant", "content": "Hello."}], "nobody asks in this chat"),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "image_url"}, {"type": "text", "text": "What?"}],
                }
            ],
            "part of the type 'image_url'; questions are text",
        ),
    ],
)
def test_a_chat_that_asks_nothing_in_text_is_refused(
    tmp_path: Path, turns: list[Any], said: str
) -> None:
    with pytest.raises(DataError, match=f"line 1: .*{said}"):
        load_examples(document(tmp_path, [{"messages": turns}]))


def test_what_a_model_thought_is_no_part_of_a_chat(tmp_path: Path) -> None:
    said = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "4"}]
    turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": said}]
    assert seen(load_examples(document(tmp_path, [{"messages": turns}]))) == [("2 + 2?", "4", "")]


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        *((a, "B | Berlin") for a in ("1", 1.0, "1.0", "b")),
        *((a, "") for a in (-1, "-1", "", None)),
    ],
)
def test_numbers_of_choices_in_other_spellings(tmp_path: Path, answer: Any, reference: str) -> None:
    row = {"question": "Capital of Germany?", "choices": ["Bonn", "Berlin"], "answer": answer}
    (example,) = load_examples(document(tmp_path, [row]))
    assert example.reference == reference


@pytest.mark.parametrize(
    ("choices", "answer", "reference"),
    [
        ([3, 4, 5, 6], 1, "B | 4"),  # a number is a place first, as in MMLU
        ([3, 4, 5], 4, "B | 4"),
        ([150, 200], "150", "A | 150"),
        ([-5, 3], -5, "A | -5"),
        ({"text": ["x", "y"], "label": ["1", "2"]}, 1, "1 | x"),
    ],
)
def test_choices_that_are_numbers(
    tmp_path: Path, choices: Any, answer: Any, reference: str
) -> None:
    row = {"question": "How many?", "choices": choices, "answer": answer}
    (example,) = load_examples(document(tmp_path, [row]))
    assert example.reference == reference


@pytest.mark.parametrize("answer", [2, "2", "C", "c"])
def test_a_choice_that_is_not_there(tmp_path: Path, answer: Any) -> None:
    row = {"question": "Capital of Germany?", "choices": ["Bonn", "Berlin"], "answer": answer}
    with pytest.raises(DataError, match=f"{answer!r} is none of the 2 choices"):
        load_examples(document(tmp_path, [row]))


def test_values_that_only_tables_of_arrow_hold(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def read(*answers: Any) -> list[str]:
        table = arrow.table({"question": ["When?"] * len(answers), "answer": list(answers)})
        parquet.write_table(table, tmp_path / "a.parquet")
        return [example.reference for example in load_examples(tmp_path / "a.parquet")]

    assert read(Decimal("4.50"), None) == ["4.50", ""]
    assert read(date(2020, 1, 31)) == ["2020-01-31"]
    assert read(["a", None], ["b"]) == ["a", "b"]
    with pytest.raises(DataError, match=r"line 1: .answer. is .*must be text"):
        read(b"x")
    with pytest.raises(DataError, match=r'line 1: .answer. is true; .*such as "yes"'):
        read(True)


def test_a_parquet_file_that_is_damaged_in_its_middle(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"question": ["When?"] * 9, "answer": ["now"] * 9}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(60) + whole[64:])
    with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file, or damaged"):
        load_examples(path)


def test_classes_of_datasets_are_read_by_their_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = {
        "question": datasets.Value("string"),
        "answer": datasets.ClassLabel(names=["bad", "good"]),
    }
    given = datasets.Dataset.from_dict(
        {"question": ["A?", "B?", "C?"], "answer": [1, 0, -1]}, datasets.Features(features)
    )
    given.save_to_disk(str(tmp_path / "saved"))
    given.to_parquet(str(tmp_path / "a.parquet"))
    expected = [("A?", "good", ""), ("B?", "bad", ""), ("C?", "", "")]
    assert seen(load_examples(tmp_path / "a.parquet")) == expected
    # What `map` and `filter` leave in such a folder are the same rows again.
    part = next((tmp_path / "saved").glob("data-*.arrow"))
    (tmp_path / "saved" / "cache-1.arrow").write_bytes(part.read_bytes())
    assert seen(load_examples(tmp_path / "saved")) == expected
