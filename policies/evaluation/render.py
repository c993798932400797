"""The files of a report: JSON for programs, Markdown and one HTML page for people, plots.

The tables are made here; how they are laid out is in `templates/`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from der_graph.data.saving import save_text
from der_graph.errors import MissingDependencyError
from der_graph.policies.evaluation.evaluate import Evaluation
from der_graph.policies.evaluation.plots import draw_report
from der_graph.policies.evaluation.report_schema import (
    REPORT_FILE,
    UNITS,
    Comparison,
    Drift,
    Estimate,
    MethodResult,
    Report,
    mean_unit,
)
from der_graph.policies.evaluation.summary import shown_p, write_episodes

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
    save_text(folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n", make=True)
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
    save_text(folder / "report.md", to_markdown(report, list(plots)))
    save_text(folder / "report.html", to_html(report, plots))
    drawn = [f"{name}.{kind}" for name in plots for kind in ("png", "svg")]
    return [*names, "report.md", "report.html", *drawn]


def to_html(report: Report, plots: Mapping[str, Path] | None = None) -> str:
    """Write a report as one HTML page that loads nothing from elsewhere.

    Args:
        report: The report.
        plots: SVG files by name, to be put into the page; none if left out.
    """
    return _render("report.html.jinja", report, plots or {})


def to_markdown(report: Report, plots: Sequence[str] = ()) -> str:
    """Write a report as Markdown.

    Args:
        report: The report.
        plots: Names of the plots that lie beside it.
    """
    text = _render("report.md.jinja", report, plots)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"  # what was left out leaves empty lines


def _render(template: str, report: Report, plots: Any) -> str:
    return (
        _templates()
        .get_template(template)
        .render(
            report=report,
            plots=plots,
            unit=UNITS[report.pool.unit],
            about_methods=NOTE.format(unit=mean_unit(report.pool.unit)[1]),
            about_tests=TESTS,
            methods=method_table(report),
            comparisons=comparison_table(report),
            tasks=task_table(report),
            routes=route_table(report),
            clock=clock_table(report),
            knob=sweep_table(report),
            facts=facts(report, code="`" if template.startswith("report.md") else ""),
        )
    )


@cache
def _templates() -> jinja2.Environment:
    """The templates; what goes into the page is escaped, since questions and answers are anyone's text."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["inlined"] = lambda path: base64.b64encode(path.read_bytes()).decode()
    made.filters["markdown"] = lambda table: markdown_table(*table)
    return made


NOTE = (
    "Means over the questions, 95 % bootstrap intervals in brackets. Cost is in {unit}. "
    "Latency is what the experts of a route take one after another, as measured when each answer was "
    "generated (an answer generated in a batch counts its share of the batch); in parentheses, calls that "
    "wait for no other run at the same time. Where a call fails, a baseline without an answer asks the "
    "cheapest expert that is left, one alone too. Oracles know every answer's quality beforehand: they bound "
    "what choosing one expert can reach, and only a method that combines experts can pass them."
)
"""What the table of methods means."""

TESTS = (
    "DER at its default price minus the other method. p: two-sided paired permutation test, then adjusted "
    "for all methods listed (Holm). At equal cost: DER's curve at the other method's cost, minus the "
    "other method; a dash where DER's curve does not reach that cost."
)
"""What the table of tests means."""


class Table(NamedTuple):
    """A table of a report.

    Attributes:
        head: Titles of the columns.
        rows: Cells, all as text.
    """

    head: list[str]
    rows: list[list[str]]


def method_table(report: Report) -> Table:
    """Every method at its default setting: DER, the baselines from best to worst, the oracles."""
    methods = _default_settings(report)
    timed, (many, _) = methods[0].latency_s is not None, mean_unit(report.pool.unit)
    failed = any(m.failed_calls for m in methods)
    head = ["method", "quality", "cost", "of run-all", "calls"]
    head += ["latency, s"] * timed + ["failed calls"] * failed
    rows = [
        [
            m.label,
            interval(m.quality),
            interval(_scaled(m.cost, many), 3, significant=True),
            f"{m.share_of_run_all:.0%}",
            f"{m.calls.estimate:.2f}",
            *([_latency(m)] if timed else []),
            *([str(m.failed_calls)] if failed else []),
        ]
        for m in methods
    ]
    return Table(head, rows)


def comparison_table(report: Report) -> Table:
    """The paired tests."""
    labels = {m.name: m.label for m in report.methods}
    head = "against; difference in quality; better / worse on; p; p (Holm); at equal cost".split(
        "; "
    )
    rows = [
        [
            labels[c.method],
            interval(c.difference, signed=True),
            f"{c.better} / {c.worse}",
            _p(c.p),
            _p(c.p_holm),
            _equal(c),
        ]
        for c in report.comparisons
    ]
    return Table(head, rows)


def sweep_table(report: Report) -> Table:
    """Points of the knob, by curve and price."""
    many, _ = mean_unit(report.pool.unit)
    rows = [
        [
            m.name,
            interval(m.quality),
            f"{many * m.cost.estimate:.3g}",
            f"{m.share_of_run_all:.0%}",
            f"{m.calls.estimate:.2f}",
        ]
        for m in report.methods
        if "@" in m.name
    ]
    return Table(["method", "quality", "cost", "of run-all", "calls"], rows)


def task_table(report: Report) -> Table:
    """Quality by task, DER first."""
    tasks = report.data.tasks
    head = ["method", *(f"{task or 'other'} ({count})" for task, count in tasks.items())]
    rows = [
        [m.label, *(f"{m.tasks[task].quality.estimate:.3f}" for task in tasks)]
        for m in _default_settings(report)
    ]
    return Table(head, rows)


def route_table(report: Report) -> Table:
    """The most common routes."""
    total, (many, _) = report.data.questions, mean_unit(report.pool.unit)
    rows = [
        [
            " → ".join(r.experts),
            f"{r.questions} ({r.questions / total:.0%})",
            f"{r.quality:.2f}",
            f"{many * r.cost:.3g}",
        ]
        for r in report.routes.most_common
    ]
    return Table(["route", "questions", "quality", "cost"], rows)


def clock_table(report: Report) -> Table:
    """Where the time goes; no rows if that was not measured."""
    clock = report.wall_clock
    rows = [
        [
            name,
            *(f"{1e3 * seconds:.1f}" for seconds in (span.mean, span.median, span.p95)),
            f"{span.mean / (clock.total.mean or 1):.1%}",
        ]
        for name in ("experts", "encoder", "agent", "graph", "total")
        if clock is not None
        for span in [getattr(clock, name)]
    ]
    return Table(["part", "mean, ms", "median, ms", "95th percentile, ms", "share"], rows)


def facts(report: Report, code: str = "`") -> list[tuple[str, str]]:
    """What a reader needs to make the report again.

    Args:
        report: The report.
        code: Written around what is code.
    """
    run, pool, data = report.run, report.pool, report.data
    train = (
        f"{data.train_source} ({data.train_questions} questions)" if data.train_source else "none"
    )
    if data.train_overlap:
        train += f"; {data.train_overlap} questions are in both: THE COMPARISON IS SPOILT"
    agent = f"{report.agent.source}, SHA-256 {report.agent.sha256[:16] or 'none'}"
    if data.agent_overlap:
        agent += f"; it was trained on {data.agent_overlap} of these questions: ITS FIGURES ARE FLATTERED"
    return [
        ("command", f"{code}{run.command}{code}"),
        ("made", f"{run.created}, {run.seconds:.0f} s, {run.generated} answers generated, seed {run.seed}"),
        ("pool", f"{pool.source} ({len(pool.experts)} experts, {'live' if pool.live else 'recorded'}, "
                 f"routes of at most {pool.max_steps} calls, transfer {code}{pool.ktp}{code}, run-all costs "
                 f"{pool.run_all_cost:.4g}), fingerprint {pool.fingerprint}"),
        ("agent", agent),
        ("questions", f"{data.source} ({data.questions}), metric {data.metric}, SHA-256 {data.sha256[:16]}"),
        ("routers learned from", train),
        *[("cached answers asked again", _drift_line(each)) for each in report.drift],
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        ("machine", run.machine),
    ]  # fmt: skip


def _drift_line(drift: Drift) -> str:
    text = (
        f"{drift.expert}: {drift.different} of {drift.asked} differ, quality {drift.then:.3f} then, "
        f"{drift.now:.3f} now"
    )
    return (
        f"{text}: IT HAS CHANGED, AND THE FIGURES ABOVE ARE THOSE OF THEN"
        if drift.changed
        else text
    )


def interval(
    given: Estimate, digits: int = 3, *, signed: bool = False, significant: bool = False
) -> str:
    """A number with its interval."""
    layout = f"{'+' if signed else ''}.{digits}{'g' if significant else 'f'}"
    return f"{given.estimate:{layout}} [{given.low:{layout}}, {given.high:{layout}}]"


def _scaled(given: Estimate, factor: float) -> Estimate:
    return Estimate(**{name: factor * value for name, value in given.model_dump().items()})


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _default_settings(report: Report) -> list[MethodResult]:
    der, *others = [m for m in report.methods if "@" not in m.name]
    return [der, *sorted(others, key=lambda m: (m.family == "oracle", -m.quality.estimate))]


def _latency(method: MethodResult) -> str:
    assert method.latency_s is not None
    assert method.latency_parallel_s is not None
    one, many = method.latency_s, method.latency_parallel_s
    text = f"{one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]"
    return text if abs(many.estimate - one.estimate) < 5e-3 else f"{text} ({many.estimate:.2f})"


def _equal(comparison: Comparison) -> str:
    found = comparison.equal_cost
    if found is None:
        return "–"
    return f"{interval(found.difference, signed=True)}, {shown_p(found.p)}"


def _p(p: float) -> str:
    return shown_p(p).removeprefix("p ").removeprefix("= ")
