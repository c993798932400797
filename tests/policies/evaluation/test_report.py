"""Reports: what is read back, what is refused, and that a page is one file that harms nobody."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from evaluated import toy_evaluation, toy_report

from der_graph.errors import DataError
from der_graph.policies.evaluation import Report, read_report, render, write_report
from der_graph.policies.evaluation.plots import draw_report
from der_graph.policies.evaluation.render import to_html, to_markdown
from der_graph.policies.evaluation.report_schema import ExampleRoute


@pytest.fixture(scope="module")
def report() -> Report:
    return toy_report(toy_evaluation())


def test_markdown_has_every_method_and_marks_what_is_missing(report: Report) -> None:
    text = to_markdown(report, ["quality_cost"])
    assert text.startswith("# DER on toy.jsonl\n\nDER is better than facts alone")
    lines = [
        "| DER | 1.000 [0.839, 1.000] |",
        "| parrot alone | 0.000",
        "| writer → counter | 10 (50%) |",
        "![quality cost](quality_cost.svg)",
        "run_all:rank: no ranker was given",
        "10 questions are in both: THE COMPARISON IS SPOILT",
    ]
    for line in lines:
        assert line in text, line
    widths = {line.count("|") for line in _tables(text)[0]}
    assert len(widths) == 1  # every row has every column


def _tables(text: str) -> list[list[str]]:
    return [
        [line for line in block.splitlines() if line.startswith("|")]
        for block in text.split("\n\n")
        if block.startswith("|")
    ]


def test_the_page_needs_nothing_from_outside(report: Report, tmp_path: Path) -> None:
    page = to_html(report, draw_report(report, tmp_path))
    assert page.count("data:image/svg+xml;base64,") >= 3
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert not re.findall(r"url\(", page)
    assert "http://" not in page.split("</head>")[1]
    assert report.headline.replace("'", "&#39;") in page


def test_model_output_cannot_change_the_page(report: Report) -> None:
    evil = "</pre><script>alert(1)</script>"
    example = ExampleRoute(
        id=evil,
        task=evil,
        question=evil,
        reference=evil,
        steps=[(evil, evil)],
        quality=0.0,
        cost=0.0,
    )
    page = to_html(report.model_copy(update={"examples": [example], "headline": evil}))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6


def test_reports_are_read_back_or_refused(report: Report, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(report.model_dump_json())
    assert read_report(file) == read_report(tmp_path) == report
    given = json.loads(report.model_dump_json())
    assert given["schema_version"] == 1
    file.write_text(json.dumps({**given, "schema_version": 99}))
    with pytest.raises(
        DataError, match="schema version 99; this version of der-graph reads up to 1"
    ):
        read_report(file)
    file.write_text(json.dumps({**given, "methods": [{"name": "x"}]}))
    with pytest.raises(DataError, match=r"is not a report: methods.0"):
        read_report(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_report(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match="no method 'x'; it has: der"):
        report.method("x")


def test_without_matplotlib_there_are_numbers_without_pictures(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from der_graph.errors import MissingDependencyError

    def missing(*_: object) -> None:
        raise MissingDependencyError("pip install 'der-graph[plots]'")

    monkeypatch.setattr(render, "draw_report", missing)
    said: list[str] = []
    assert write_report(report, None, tmp_path, say=said.append) == [
        "report.json",
        "report.md",
        "report.html",
    ]
    assert said == ["no plots: pip install 'der-graph[plots]'"]
    assert "<img" not in (tmp_path / "report.html").read_text()
