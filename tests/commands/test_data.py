"""`der data` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import run

from der_graph.data import load_examples

NAMES = ("--question-column", "prompt", "--answer-column", "gold")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text("prompt,gold,colour\nWho?,Ann,red\nWhen?,1,red\n")
    return path


def test_check_says_what_is_in_files_and_what_they_share(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "dev.csv"
    other.write_text("prompt,gold\nwho?,Ann\n")
    assert run("data", "check", table, other, *NAMES) == 0
    printed = capsys.readouterr().out
    assert f"{table}: 2 questions, 2 with a reference" in printed
    assert "ignored     'colour' 2" in printed
    assert f"1 of 1 questions of {other} are in {table} as well" in printed
    assert run("data", "check", table, other, *NAMES, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"][str(table)]["questions"] == 2
    assert told["shared"] == [{"files": [str(table), str(other)], "questions": 1}]


def test_convert_writes_what_every_command_reads(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.jsonl"
    assert run("data", "convert", table, *NAMES, "--out", out) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 2 questions\n"
    assert "'colour' is left out" in printed.err
    assert [(e.question, e.reference) for e in load_examples(out)] == [
        ("Who?", "Ann"),
        ("When?", "1"),
    ]
    assert run("data", "convert", table, *NAMES, "--out", out) == 2
    assert "give --force" in capsys.readouterr().err
    assert run("data", "convert", table, *NAMES, "--out", out, "--force", "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert run("data", "convert", out, "--out", out, "--force") == 2
    assert "is one of the files to read" in capsys.readouterr().err


def test_logs_of_several_models_become_a_pool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("a", "b"):
        sample = {"id": 1, "input": "Who?", "target": "Ann", "output": {"completion": model}}
        (tmp_path / f"{model}.json").write_text(
            json.dumps({"eval": {"model": model}, "samples": [sample]})
        )
    out = tmp_path / "both.jsonl"
    assert run("data", "convert", tmp_path / "a.json", tmp_path / "b.json", "--out", out) == 0
    (example,) = load_examples(out)
    assert sorted(example.candidates) == ["a", "b"]


def test_probe_reads_columns_of_other_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clerks.py").write_text("def ann(question):\n    return 'Ann'\n")
    pool, out = tmp_path / "pool.yaml", tmp_path / "profile.json"
    pool.write_text('experts: [{name: ann, backend: python, model: "clerks:ann", cost: 1}]\n')
    data = tmp_path / "mine.csv"
    data.write_text("prompt,gold,topic\nWho?,Ann,people\nWhen?,1,times\n")
    given = (
        "probe",
        "--pool",
        pool,
        "--allow-python",
        "--data",
        data,
        *NAMES,
        "--task-column",
        "topic",
    )
    assert run(*given, "--out", out, "--cache", tmp_path / "c.db") == 0
    printed = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in printed if line}
    assert (rows["people"], rows["times"]) == (["1.00"], ["0.00"])
