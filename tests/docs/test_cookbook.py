"""The cookbook: its recipes run, its tables are what `der eval` writes, its page shows them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from cli_runs import run

from der_graph.data import load_examples
from der_graph.data.leaks import shared_questions
from der_graph.pool import load_pool

FUNCTIONS = ("support", "research", "review")
RECIPES = (*FUNCTIONS, "on_device")


@pytest.fixture
def cookbook(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("DER_ALLOW_PYTHON", "1")
    return repo_root / "examples" / "cookbook"


def rows(text: str) -> list[str]:
    """Rows of tables that say how good somebody was."""
    return re.findall(r"^\| [^|]+ \| [01]\.\d{3} .*\|$", text, re.MULTILINE)


def figures(row: str) -> list[str]:
    """A row without its last column, which is time."""
    return [cell.strip() for cell in row.split("|")[1:-2]]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_a_pool_data_and_a_result(cookbook: Path, name: str) -> None:
    pool = load_pool(cookbook / name / "pool.yaml")
    train, test = (load_examples(cookbook / name / f"{part}.jsonl") for part in ("train", "test"))
    assert min(len(train), len(test)) >= 60
    assert all(example.reference for example in [*train, *test])
    assert not shared_questions(test, train)
    result = (cookbook / name / "result.md").read_text(encoding="utf-8")
    for row in ("DER", *(f"{expert} alone" for expert in pool.names)):
        assert f"| {row} |" in result
    assert f"{len(test)} questions" in result


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_result_is_what_the_experts_give(cookbook: Path, name: str, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    folder = cookbook / name
    words = ["--pool", folder / "pool.yaml", "--data", folder / "test.jsonl", "--time-sample", "0"]
    where = ["--cache", tmp_path / "answers.sqlite", "--out", tmp_path / "report"]
    assert run("eval", *words, "--baselines", "single", *where) == 0
    found = {
        figures(row)[0]: figures(row) for row in rows((tmp_path / "report/report.md").read_text())
    }
    shown = [figures(row) for row in rows((folder / "result.md").read_text(encoding="utf-8"))]
    alone = [row for row in shown if row[0].endswith(" alone")]
    assert len(alone) == len(load_pool(folder / "pool.yaml"))
    assert alone == [found[row[0]] for row in alone]


def test_a_recipe_trains(cookbook: Path, tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    folder, out = cookbook / "support", tmp_path / "agent"
    data = ["--data", folder / "train.jsonl", "--limit", "24"]
    short = ["--steps", "256", "--warm-start", "none", "--cache", tmp_path / "answers.sqlite"]
    assert run("train", "--pool", folder / "pool.yaml", *data, *short, "--out", out) == 0
    question = json.loads((folder / "test.jsonl").read_text().splitlines()[0])["question"]
    assert run("ask", question, "--pool", folder / "pool.yaml", "--agent", out) == 0


def test_the_page_shows_the_results(cookbook: Path, repo_root: Path) -> None:
    page = (repo_root / "docs" / "cookbook.md").read_text(encoding="utf-8")
    for name in RECIPES:
        assert f"(../examples/cookbook/{name}/pool.yaml)" in page
        assert f"der train --pool examples/cookbook/{name}/pool.yaml" in page
    results = [(cookbook / name / "result.md").read_text(encoding="utf-8") for name in RECIPES]
    shown = rows(page)
    assert len(shown) >= 5 * len(RECIPES)
    assert [row for row in shown if not any(row in result for result in results)] == []
