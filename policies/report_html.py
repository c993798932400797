"""The report as one page that opens anywhere: `report.html`, without a single outside resource.

For a reader who has two minutes: the result in two sentences, four numbers, the main plot, then
everything else. Model output and names are escaped; the page runs no script.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from der_graph.policies.report import UNITS, Report
from der_graph.policies.report_markdown import (
    NOTE,
    TESTS,
    clock_table,
    comparison_table,
    facts,
    method_table,
    route_table,
    sweep_table,
    task_table,
)
from der_graph.policies.report_parts import ExampleRoute

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
