"""The questions of the demo pool: complete, well formed, and none in two files."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "der_graph" / "demo" / "questions"

FILES = ("train", "dev", "heldout", "showcase")
KINDS = {
    "word_problem", "arithmetic", "plural", "language", "reading", "country", "translation",
    "vocabulary",
}  # fmt: skip
GENERATED = ("train", "dev")
NUMBER = re.compile(r"-?\d+(\.\d+)?")

Row = dict[str, str]


def rows(name: str) -> list[Row]:
    text = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


ROWS = {name: rows(name) for name in FILES}
ALL = [row for name in FILES for row in ROWS[name]]


def key(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def fact(row: Row) -> str | None:
    """What a question is about, whatever its wording; None where it is about nothing."""
    task, question = row["task"], row["instruction"]
    first = key(row["output"].split(" | ")[0])
    if task in ("plural", "country", "vocabulary"):
        return f"{task}: {first}"
    if task == "language":
        quoted = re.search(r'"(.+)"', question)
        assert quoted, question
        return f"{task}: {key(quoted.group(1))}"
    if task == "translation":
        to = re.search(
            r'What is the (?:Spanish|French) word for (.+)\?|How do you say "(.+)" in', question
        )
        return f"{task}: {(to.group(1) or to.group(2)) if to else first}"
    return None


def test_counts() -> None:
    assert [len(ROWS[name]) for name in FILES] == [900, 218, 100, 6]
    for name, least in (("train", 70), ("dev", 20), ("heldout", 8)):
        counts = Counter(row["task"] for row in ROWS[name])
        assert set(counts) == KINDS
        assert min(counts.values()) >= least
        assert 0.25 < counts["word_problem"] / len(ROWS[name]) < 0.4
        assert 0.1 < counts["arithmetic"] / len(ROWS[name]) < 0.2
    assert len({row["task"] for row in ROWS["showcase"]}) == 6


@pytest.mark.parametrize("name", FILES)
def test_layout(name: str) -> None:
    for row in ROWS[name]:
        assert list(row) == ["id", "instruction", "input", "output", "task"]
        assert all(isinstance(value, str) for value in row.values())
        assert row["id"].startswith(f"{name}/")
        assert row["input"] == ""
        assert row["task"] in KINDS
        for text in (row["instruction"], *row["output"].split(" | ")):
            assert text
            assert text == text.strip()


def test_ids_are_unique() -> None:
    assert len({row["id"] for row in ALL}) == len(ALL)


def test_no_question_is_asked_twice() -> None:
    # Signs are no part of the key, so only their questions are compared as they are.
    counts = Counter(
        row["instruction"] if row["task"] == "arithmetic" else key(row["instruction"])
        for row in ALL
    )
    assert [question for question, count in counts.items() if count > 1] == []


def test_no_fact_is_in_two_files() -> None:
    files: dict[str, set[str]] = {}
    for name in FILES:
        for row in ROWS[name]:
            about = fact(row)
            if about:
                files.setdefault(about, set()).add(name)
    assert {about: names for about, names in files.items() if len(names) > 1} == {}


def test_answers_to_problems_are_numbers() -> None:
    for row in ALL:
        if row["task"] in ("word_problem", "arithmetic"):
            assert NUMBER.fullmatch(row["output"]), row
        else:
            assert not NUMBER.fullmatch(row["output"]), row


def test_arithmetic_is_right() -> None:
    signs = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}
    for row in ALL:
        if row["task"] == "arithmetic":
            expression = row["instruction"].lower()
            for word, sign in signs.items():
                expression = expression.replace(word, sign)
            expression = re.sub(r"[^-+*/() \d]", "", expression).strip()
            assert eval(expression) == float(row["output"]), row


def test_answers_of_reading_stand_in_the_text() -> None:
    for row in ALL:
        if row["task"] == "reading":
            assert f" {key(row['output'])} " in f" {key(row['instruction'])} ", row


def test_word_problems_hold_their_numbers_and_vary() -> None:
    texts = [row["instruction"] for row in ROWS["train"] if row["task"] == "word_problem"]
    # "twice" and "half" may stand for one of the numbers.
    assert all(re.search(r"\d", text) for text in texts)
    shapes = Counter(re.sub(r"\d+|\b[A-Z][a-z]+\b", "", text) for text in texts)
    assert len(shapes) > 150
    assert sum(text == text.lower() for text in texts) > 20


@pytest.mark.parametrize("name", ["heldout", "showcase"])
def test_questions_written_by_hand_do_not_follow_the_templates(name: str) -> None:
    generated = {
        re.sub(r"\d+", "", key(row["instruction"])) for split in GENERATED for row in ROWS[split]
    }
    for row in ROWS[name]:
        if row["task"] == "word_problem":
            assert re.sub(r"\d+", "", key(row["instruction"])) not in generated
