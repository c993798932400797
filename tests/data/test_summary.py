"""What `der data check` finds, and files written again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from der_graph.data import Candidate, Example, load_examples, merged, write_examples
from der_graph.data import summary as summary_module
from der_graph.data.summary import summarize
from der_graph.errors import DataError, MissingDependencyError

FULL = Example(
    "1", "Und jetzt?", "a | b", "facts",
    {"x": Candidate("x", "A é", {"score": 0.5}, "A", 3, 0.25), "y": Candidate("y", "B")},
    (("user", "Hallo"), ("assistant", "Hi")),
)  # fmt: skip
BARE = Example("2", "Who?", "")


def _english(text: str) -> str:
    return "de" if "jetzt" in text else "en"


def test_counts_lengths_languages_and_recorded_answers() -> None:
    found = summarize([FULL, BARE], {"note": 2}, language_of=_english)
    assert (found.questions, found.references, found.tasks) == (2, 1, {"facts": 1})
    assert found.question == (4, 7.0, 10)
    assert found.models == {"x": 1, "y": 1}
    assert (found.scores, found.costs, found.histories) == ({"score": 1}, 1, 1)
    assert found.languages == {"de": 0.5, "en": 0.5}
    text = "\n".join(found.lines())
    for said in (
        "2 questions, 1 with a reference",
        "facts 1",
        "'note' 2",
        "1 with their cost",
        "de 50%",
    ):
        assert said in text
    assert "not English" in text


def test_what_is_wrong_is_said() -> None:
    doubled = [
        Example("1", "Who?", "Ann"), Example("2", " who? ", "Bob"), Example("3", "When?", "1"),
        Example("4", "When?", "1"),
    ]  # fmt: skip
    found = summarize(doubled, language_of=_english)
    assert (found.again, found.conflicts) == (1, 1)
    assert any("'Ann' and 'Bob'" in line for line in found.warnings)
    assert any("come twice (first: 4" in line for line in found.warnings)
    assert any(
        "no question has a reference" in line
        for line in summarize([BARE], language_of=_english).warnings
    )
    same = summarize([Example("1", "a", "x"), Example("2", "b", "x")], language_of=_english)
    assert any("every reference is 'x'" in line for line in same.warnings)
    silent = replace(BARE, candidates={"x": Candidate("x", " ")})
    assert any(
        "empty answers of x 1" in w for w in summarize([silent], language_of=_english).warnings
    )


def test_languages_are_told_by_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("py3langid")
    texts = [
        "Which city is the capital of France?",
        "Wie heißt die Hauptstadt von Frankreich?",
        "2 + 3?",
    ]
    found = summarize([Example(t, t, "x") for t in texts])
    assert sorted(found.languages or ()) == ["?", "de", "en"]

    def missing() -> None:
        raise MissingDependencyError("no")

    monkeypatch.setattr(summary_module, "_reader", missing)
    assert "pip install 'der-graph[data]'" in "\n".join(summarize([BARE]).lines())


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    write_examples([FULL, BARE], tmp_path / name)
    assert load_examples(tmp_path / name) == [FULL, BARE]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in \.jsonl or \.jsonl\.gz"):
        write_examples([BARE], tmp_path / "a.csv")
    with pytest.raises(DataError, match="cannot be written"):
        write_examples([BARE], tmp_path / "none" / "a.jsonl")


def test_files_of_the_same_questions_become_one() -> None:
    one = [
        Example("1", "Who?", "Ann", candidates={"x": Candidate("x", "Ann")}),
        Example("2", "When?", "1"),
    ]
    two = [
        Example("1", "who? ", "", candidates={"y": Candidate("y", "Bob"), "x": Candidate("x", "Eve")}),
        Example("1b", "Where?", "Rome"), Example("2", "Why?", "so"),
    ]  # fmt: skip
    rows, left_out = merged([one, two])
    assert left_out == 1
    assert [(e.id, e.question) for e in rows] == [
        ("1", "Who?"), ("2", "When?"), ("1b", "Where?"), ("2~2", "Why?"),
    ]  # fmt: skip
    assert {name: c.text for name, c in rows[0].candidates.items()} == {"x": "Ann", "y": "Bob"}
    with pytest.raises(DataError, match="one of them is wrong"):
        merged([one, [Example("9", "Who?", "Bob")]])


def test_a_cost_is_a_number(tmp_path: Path) -> None:
    row = {"question": "?", "candidates": [{"model": "x", "text": "a", "cost": "free"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"'x': \"cost\" is '\"free\"'; it must be a number >= 0"):
        load_examples(tmp_path / "a.jsonl")
