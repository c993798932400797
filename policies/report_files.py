"""The files of a report: JSON for programs, Markdown for reviewers, a page for managers, pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from der_graph.errors import MissingDependencyError
from der_graph.policies.evaluate import Evaluation
from der_graph.policies.plots import draw_report
from der_graph.policies.report import REPORT_FILE, Report, write_text
from der_graph.policies.report_html import to_html
from der_graph.policies.report_markdown import to_markdown
from der_graph.policies.summary import write_episodes

EPISODES_FILE = "episodes.jsonl.gz"


def write_report(
    report: Report,
    evaluation: Evaluation | None,
    out: str | os.PathLike[str],
    *,
    say: Callable[[str], None] | None = None,
) -> list[str]:
    """Write a report.

    Args:
        report: The report.
        evaluation: The routes that it was made of, written beside it; None where only the report is at hand.
        out: The folder.
        say: Receives one-line messages.

    Returns:
        Names of the files.
    """
    folder = Path(out)
    write_text(folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
    names = [REPORT_FILE]
    if evaluation is not None:
        write_episodes(evaluation, folder / EPISODES_FILE)
        names.append(EPISODES_FILE)
    plots: dict[str, Path] = {}
    try:
        plots = draw_report(report, folder)
    except MissingDependencyError as error:  # the numbers are worth having without the pictures
        if say is not None:
            say(f"no plots: {error}")
    write_text(folder / "report.md", to_markdown(report, list(plots)))
    write_text(folder / "report.html", to_html(report, plots))
    drawn = [f"{name}.{kind}" for name in plots for kind in ("png", "svg")]
    return [*names, "report.md", "report.html", *drawn]
