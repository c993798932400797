"""The files of a report: JSON for programs, Markdown for reviewers, a page for managers, pictures."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from der_graph.errors import MissingDependencyError
from der_graph.policies.evaluation.evaluate import Evaluation
from der_graph.policies.evaluation.plots import draw_report
from der_graph.policies.evaluation.report import (
    REPORT_FILE,
    UNITS,
    Comparison,
    Estimate,
    ExampleRoute,
    MethodResult,
    Report,
    write_text,
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


_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
       max-width: 62rem; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
.headline { font-size: 1.12rem; border-left: 4px solid #1a1a1a; padding: .2rem 0 .2rem 1rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.tile { border: 1px solid #ccc; border-radius: 6px; padding: .6rem 1rem; flex: 1 1 11rem; }
.tile b { display: block; font-size: 1.5rem; }
.tile span, .note, figcaption { color: #555; font-size: .87rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #888; } tr.der td { font-weight: 600; background: #f2f2f2; }
td { font-variant-numeric: tabular-nums; } details { margin: .6rem 0; } summary { cursor: pointer; }
.example { border-bottom: 1px solid #ddd; padding: .6rem 0; font-size: .9rem; }
.example pre { white-space: pre-wrap; margin: .2rem 0 .2rem 1rem; font: inherit; }
code { font-size: .85rem; overflow-wrap: anywhere; }
@media print { details { display: block; } body { max-width: none; } }
"""

_CAPTIONS = {
    "quality_cost": "Each mark is a method; up is better, left is cheaper. The black line is one and "
    "the same agent, asked to spend less or more: filled squares are its Pareto front, the star is its "
    "default price. Bars and band are 95 % intervals.",
    "tasks": "Quality by kind of question.",
    "route_flow": "Who answers after whom. Each row adds up to all steps that leave the row's expert.",
    "wall_clock": "Where the time of one question goes.",
}


def to_html(report: Report, plots: Mapping[str, Path] | None = None) -> str:
    """Write a report as one HTML page.

    Args:
        report: The report.
        plots: SVG files by name, to be put into the page; none if left out.
    """
    drawn = plots or {}
    body = [
        f"<h1>DER on {escape(report.data.source)}</h1>",
        f'<p class="headline">{escape(report.headline)}</p>',
        _tiles(report),
        _figure(drawn, "quality_cost"),
        "<h2>Methods</h2>",
        f'<p class="note">{escape(NOTE.format(unit=UNITS[report.pool.unit]))}</p>',
        _table(*method_table(report)),
    ]
    if report.comparisons:
        body += ["<h2>DER against each of them</h2>", f'<p class="note">{escape(TESTS)}</p>']
        body.append(_table(*comparison_table(report)))
    if len(report.data.tasks) > 1:
        body += ["<h2>By task</h2>", _figure(drawn, "tasks"), _table(*task_table(report))]
    body += ["<h2>Routes</h2>", _figure(drawn, "route_flow"), _table(*route_table(report))]
    if report.wall_clock is not None:
        body += [
            "<h2>Where the time goes</h2>",
            _figure(drawn, "wall_clock"),
            _table(*clock_table(report)),
        ]
    sweep = [m for m in report.methods if "@" in m.name]
    if sweep:
        body += [
            "<details><summary>Every point of the knob</summary>",
            _table(*sweep_table(sweep)),
            "</details>",
        ]
    if report.examples:
        unit = UNITS[report.pool.unit]
        shown = "".join(_example(example, unit) for example in report.examples)
        body.append(
            f"<details><summary>Routes to look at ({len(report.examples)})</summary>{shown}</details>"
        )
    if report.skipped:
        items = "".join(f"<li>{escape(s.name)}: {escape(s.reason)}</li>" for s in report.skipped)
        body.append(f"<h2>Not run</h2><ul>{items}</ul>")
    rows = [[name, value.strip("`")] for name, value in facts(report)]
    listed = "".join(
        f"<dt><b>{escape(n)}</b></dt><dd><code>{escape(v)}</code></dd>" for n, v in rows
    )
    body.append(f"<h2>How this was made</h2><dl>{listed}</dl>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        f"<title>DER on {escape(report.data.source)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _tiles(report: Report) -> str:
    der = report.method("der")
    tiles = [
        (f"{der.quality.estimate:.3f}", f"quality ({report.data.metric}), from 0 to 1"),
        (f"{der.share_of_run_all:.0%}", "of the cost of asking everyone"),
        (f"{der.calls.estimate:.2f}", f"experts asked a question, of {len(report.pool.experts)}"),
    ]
    if der.latency_s is not None:
        tiles.append((f"{der.latency_s.estimate:.2f} s", "experts' time for a question"))
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{escape(n)}</b><span>{escape(t)}</span></div>' for n, t in tiles
        )
        + "</div>"
    )


def _figure(plots: Mapping[str, Path], name: str) -> str:
    if name not in plots:
        return ""
    data = base64.b64encode(plots[name].read_bytes()).decode()
    caption = escape(_CAPTIONS[name])
    return (
        f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = []
    for row in rows:
        mark = ' class="der"' if row and row[0] == "DER" else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f"<tr{mark}>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _example(example: ExampleRoute, unit: str) -> str:
    steps = "".join(
        f"<pre><b>{escape(expert)}</b>: {escape(text)}</pre>" for expert, text in example.steps
    )
    return (
        f'<div class="example"><div>{escape(example.question)}</div>{steps}'
        f"<div class=note>reference: {escape(example.reference)} · quality {example.quality:.2f} · "
        f"cost {example.cost:.3g} {escape(unit)} · {escape(example.task or 'no task')} · "
        f"{escape(example.id)}</div></div>"
    )


def to_markdown(report: Report, plots: Sequence[str] = ()) -> str:
    """Write a report as Markdown.

    Args:
        report: The report.
        plots: Names of the plots that lie beside it.
    """
    parts = [f"# DER on {report.data.source}", report.headline]
    parts += [
        f"![{name.replace('_', ' ')}]({name}.svg)" for name in plots if name == "quality_cost"
    ]
    parts += ["## Methods", NOTE.format(unit=UNITS[report.pool.unit]), table(*method_table(report))]
    if report.comparisons:
        parts += ["## DER against each of them, question by question", TESTS]
        parts.append(table(*comparison_table(report)))
    sweep = [m for m in report.methods if "@" in m.name]
    if sweep:
        parts += ["## The knob", table(*sweep_table(sweep))]
    if len(report.data.tasks) > 1:
        parts += ["## By task", table(*task_table(report))]
    parts += [f"![{name.replace('_', ' ')}]({name}.svg)" for name in plots if name == "tasks"]
    parts += ["## Routes", table(*route_table(report))]
    parts += [f"![{name.replace('_', ' ')}]({name}.svg)" for name in plots if name == "route_flow"]
    if report.wall_clock is not None:
        parts += ["## Where the time goes", table(*clock_table(report))]
    if report.skipped:
        parts += ["## Not run", "\n".join(f"- {s.name}: {s.reason}" for s in report.skipped)]
    parts += [
        "## How this was made",
        "\n".join(f"- {name}: {value}" for name, value in facts(report)),
    ]
    return "\n\n".join(parts) + "\n"


NOTE = (
    "Means over the questions, 95 % bootstrap intervals in brackets. Cost is in {unit} a question. "
    "Latency is what the experts of a route take one after another, as measured when each answer was "
    "generated (an answer generated in a batch counts its share of the batch); in parentheses, calls that "
    "wait for no other run at the same time. Oracles know every answer's quality beforehand: they bound "
    "what choosing one expert can reach, and only a method that combines experts can pass them."
)
"""What the table of methods means."""

TESTS = (
    "DER at its default price minus the other method. p: two-sided paired permutation test, then adjusted "
    "for all methods listed (Holm). At equal cost: DER's curve at the other method's cost, minus the "
    "other method; a dash where DER's curve does not reach that cost."
)
"""What the table of tests means."""

Table = tuple[list[str], list[list[str]]]


def method_table(report: Report) -> Table:
    """Every method at its default setting; best first within the baselines."""
    plain = [m for m in report.methods if "@" not in m.name]
    rest = sorted(plain[1:], key=lambda m: (m.family == "oracle", -m.quality.estimate))
    head = ["method", "quality", "cost", "of run-all", "calls"]
    timed = plain[0].latency_s is not None
    if timed:
        head.append("latency, s")
    if any(m.failed_calls for m in plain):
        head.append("failed calls")
    rows = []
    for m in [plain[0], *rest]:
        row = [m.label, interval(m.quality), interval(m.cost, 3, significant=True)]
        row += [f"{m.share_of_run_all:.0%}", f"{m.calls.estimate:.2f}"]
        if timed:
            row.append(_latency(m))
        if "failed calls" in head:
            row.append(str(m.failed_calls))
        rows.append(row)
    return head, rows


def comparison_table(report: Report) -> Table:
    """The paired tests."""
    head = [
        "against",
        "difference in quality",
        "better / worse on",
        "p",
        "p (Holm)",
        "at equal cost",
    ]
    labels = {m.name: m.label for m in report.methods}
    rows = []
    for c in report.comparisons:
        rows.append(
            [labels[c.method], interval(c.difference, signed=True), f"{c.better} / {c.worse}",
             _p(c.p), _p(c.p_holm), _equal(c)]
        )  # fmt: skip
    return head, rows


def sweep_table(sweep: Sequence[MethodResult]) -> Table:
    """Points of the knob, by curve and price."""
    head = ["method", "quality", "cost", "of run-all", "calls"]
    return head, [
        [m.name, interval(m.quality), f"{m.cost.estimate:.3g}", f"{m.share_of_run_all:.0%}",
         f"{m.calls.estimate:.2f}"]
        for m in sweep
    ]  # fmt: skip


def task_table(report: Report) -> Table:
    """Quality by task, DER first."""
    tasks = list(report.data.tasks)
    plain = [m for m in report.methods if "@" not in m.name]
    rest = sorted(plain[1:], key=lambda m: (m.family == "oracle", -m.quality.estimate))
    head = ["method", *(f"{task or 'other'} ({report.data.tasks[task]})" for task in tasks)]
    rows = [
        [m.label, *(f"{m.tasks[task].quality.estimate:.3f}" for task in tasks)]
        for m in [plain[0], *rest]
    ]
    return head, rows


def route_table(report: Report) -> Table:
    """The most common routes."""
    total = report.data.questions
    return ["route", "questions", "quality", "cost"], [
        [" → ".join(r.experts), f"{r.questions} ({r.questions / total:.0%})", f"{r.quality:.2f}",
        f"{r.cost:.3g}"] for r in report.routes.most_common
    ]  # fmt: skip


def clock_table(report: Report) -> Table:
    """Where the time goes."""
    clock = report.wall_clock
    assert clock is not None
    parts = {
        name: getattr(clock, name) for name in ("experts", "encoder", "agent", "graph", "total")
    }
    return ["part", "mean, ms", "median, ms", "95th percentile, ms", "share"], [
        [name, f"{1e3 * s.mean:.1f}", f"{1e3 * s.median:.1f}", f"{1e3 * s.p95:.1f}",
         f"{s.mean / (clock.total.mean or 1):.1%}"]
        for name, s in parts.items()
    ]  # fmt: skip


def facts(report: Report) -> list[tuple[str, str]]:
    """What a reader needs to make the report again."""
    run, pool, data = report.run, report.pool, report.data
    train = (
        f"{data.train_source} ({data.train_questions} questions)" if data.train_source else "none"
    )
    if data.train_overlap:
        train += f"; {data.train_overlap} questions are in both: THE COMPARISON IS SPOILT"
    return [
        ("command", f"`{run.command}`"),
        ("made", f"{run.created}, {run.seconds:.0f} s, {run.generated} answers generated, seed {run.seed}"),
        ("pool", f"{pool.source} ({len(pool.experts)} experts, {'live' if pool.live else 'recorded'}, "
                 f"routes of at most {pool.max_steps} calls, transfer `{pool.ktp}`, run-all costs "
                 f"{pool.run_all_cost:.4g}), fingerprint {pool.fingerprint}"),
        ("agent", f"{report.agent.source}, SHA-256 {report.agent.sha256[:16] or 'none'}"),
        ("questions", f"{data.source} ({data.questions}), metric {data.metric}, SHA-256 {data.sha256[:16]}"),
        ("routers learned from", train),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        ("machine", run.machine),
    ]  # fmt: skip


def interval(
    given: Estimate, digits: int = 3, *, signed: bool = False, significant: bool = False
) -> str:
    """A number with its interval."""
    layout = f"{'+' if signed else ''}.{digits}{'g' if significant else 'f'}"
    return f"{given.estimate:{layout}} [{given.low:{layout}}, {given.high:{layout}}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


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
