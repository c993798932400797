"""The plots of a report: quality against cost, by task, who follows whom, where the time goes.

Report ──draw_report──> PNG and SVG files          training curves and studies are in `study_plots.py`
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from der_graph.policies.comparison import pareto_front
from der_graph.policies.plot_style import (
    LOOKS,
    ROUTER_LINES,
    ROUTER_MARKERS,
    label_points,
    new_figure,
    save,
    styled,
)
from der_graph.policies.report import UNITS, Report
from der_graph.policies.report_parts import Flow, MethodResult

_LOG_FROM = (
    15.0  # ratio of the dearest to the cheapest method from which on costs need a logarithmic axis
)


def draw_report(report: Report, folder: Path) -> dict[str, Path]:
    """Draw all plots of a report.

    Args:
        report: The report.
        folder: Where to write PNG and SVG files.

    Returns:
        The SVG files by name of the plot.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    plots: dict[str, Callable[[Report], Any]] = {"quality_cost": quality_cost}
    if len(report.data.tasks) > 1:
        plots["tasks"] = quality_by_task
    plots["route_flow"] = route_flow
    if report.wall_clock is not None:
        plots["wall_clock"] = wall_clock
    drawn = {}
    for name, draw in plots.items():
        with styled():
            drawn[name] = save(draw(report), folder, name)[1]
    return drawn


def quality_cost(report: Report) -> Any:
    """Quality against cost: every method, and DER's whole curve with its Pareto front."""
    figure, axes = new_figure(7.2, 4.6)
    costs = [m.cost.estimate for m in report.methods if m.cost.estimate > 0]
    logarithmic = bool(costs) and max(costs) / min(costs) > _LOG_FROM
    if logarithmic:
        axes.set_xscale("log")
    points: list[tuple[float, float]] = []
    texts: list[str] = []
    every: list[tuple[float, float]] = []

    def label(method: MethodResult, text: str) -> None:
        points.append(_point(method))
        texts.append(text)

    for method in report.methods:
        if method.curve is None:
            _draw_point(axes, method)
            label(method, _short(method))
    routers = list(dict.fromkeys(m.curve for m in report.methods if m.family == "router"))
    for number, name in enumerate(routers):
        curve = report.curve(str(name))
        look = LOOKS["router"]
        axes.plot(
            *np.array([_point(m) for m in curve]).T, color=look.colour, linewidth=1.0, markersize=4,
            linestyle=ROUTER_LINES[number % len(ROUTER_LINES)], zorder=2,
            marker=ROUTER_MARKERS[number % len(ROUTER_MARKERS)], markerfacecolor="white",
        )  # fmt: skip
        every += [_point(m) for m in curve]
        label(curve[-1 - number % len(curve)], str(name).removeprefix("router:"))
    _draw_der(axes, report)
    der = report.method("der")
    every += [_point(m) for m in report.curve("der")]
    axes.set_xlabel(
        f"cost of a question, {UNITS[report.pool.unit]} (mean{', log scale' if logarithmic else ''})"
    )
    axes.set_ylabel(f"quality ({report.data.metric}, mean)")
    axes.set_title(
        f"Quality against cost on {report.data.questions} questions (bars and band: 95 % intervals)",
        loc="left",
    )
    if logarithmic:
        axes.xaxis.set_major_formatter(_plain_numbers)
    axes.margins(x=0.08, y=0.08)
    merged: dict[tuple[float, float], list[str]] = {}
    for point, text in zip(points, texts, strict=True):
        merged.setdefault(point, []).append(text)  # methods that come to the same share a label
    labels = [
        (_point(der), "DER"),
        *((point, ",\n".join(names)) for point, names in merged.items()),
    ]
    axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.03))
    label_points(
        axes, [p for p, _ in labels], [text for _, text in labels], avoid=every, bold=[True]
    )
    return figure


def _draw_der(axes: Any, report: Report) -> None:
    curve = report.curve("der")
    front = {curve[i].name for i in pareto_front([_point(m) for m in curve])}
    best = [m for m in curve if m.name in front]
    x, y = np.array([_point(m) for m in best]).T
    low = [m.quality.low for m in best]
    high = [m.quality.high for m in best]
    axes.fill_between(x, low, high, color="#000000", alpha=0.10, linewidth=0, zorder=1)
    axes.plot(x, y, color="#000000", linewidth=2, marker="s", markersize=5, zorder=4)
    others = [_point(m) for m in curve if m.name not in front]
    if others:  # beaten by another point of the same curve
        axes.plot(
            *np.array(others).T,
            "s",
            color="#000000",
            markersize=5,
            markerfacecolor="white",
            zorder=4,
        )
    default = report.method("der")
    axes.plot(
        *_point(default), "*", color="#000000", markersize=12, zorder=5, markeredgecolor="white"
    )


def _draw_point(axes: Any, method: MethodResult) -> None:
    look = LOOKS[method.family]
    x, y = _point(method)
    axes.errorbar(
        x, y, yerr=[[y - method.quality.low], [method.quality.high - y]], fmt=look.marker,
        color=look.colour, markerfacecolor=look.colour if look.filled else "white", markersize=6,
        elinewidth=0.6, alpha=0.95, zorder=3,
    )  # fmt: skip


def quality_by_task(report: Report) -> Any:
    """Quality by task: DER beside the best single expert, the best of the other methods, and the oracle."""
    shown = _rivals(report)
    tasks = list(report.data.tasks)
    figure, axes = new_figure(max(7.2, 1.0 + 1.05 * len(tasks)), 3.6)
    width = 0.8 / len(shown)
    for number, method in enumerate(shown):
        look = LOOKS[method.family]
        found = [method.tasks[task] for task in tasks]
        place = np.arange(len(tasks)) + (number - (len(shown) - 1) / 2) * width
        y = np.array([t.quality.estimate for t in found])
        spread = [y - [t.quality.low for t in found], [t.quality.high for t in found] - y]
        axes.bar(
            place, y, width, label=method.label, hatch=look.hatch * 2, linewidth=0.8,
            facecolor=look.colour if method.family == "der" else "white", edgecolor=look.colour,
            yerr=spread, error_kw={"elinewidth": 0.7, "ecolor": "#666666"},
        )  # fmt: skip
    axes.set_xticks(
        range(len(tasks)), [f"{t or 'other'}\n(n={report.data.tasks[t]})" for t in tasks]
    )
    axes.set_ylabel(f"quality ({report.data.metric}, mean)")
    axes.set_ylim(0, 1.02)
    axes.grid(axis="x", visible=False)
    figure.suptitle("Quality by task (thin lines: 95 % intervals)", fontsize=10, x=0.01, ha="left")
    figure.legend(loc="outside lower left", ncols=4 if len(tasks) > 6 else 2)
    return figure


def _rivals(report: Report) -> list[MethodResult]:
    plain = [m for m in report.methods if m.curve in (None, m.name)]

    def best(*families: str) -> list[MethodResult]:
        found = [m for m in plain if m.family in families]
        return [max(found, key=lambda m: m.quality.estimate)] if found else []

    oracle = [m for m in plain if m.name == "oracle"]
    others = best("run_all", "mixture", "cascade", "router", "reference")
    return [report.method("der"), *best("single"), *others, *oracle]


def route_flow(report: Report) -> Any:
    """Who follows whom on DER's routes: one heat map for all questions, one for each task."""
    routes = report.routes
    flows = {"all questions": routes.flow}
    if len(routes.flow_by_task) > 1:
        flows.update(routes.flow_by_task)
    used = [name for name in routes.flow.columns[:-1] if routes.shares[name] > 0]
    columns = min(3, len(flows))
    rows = -(-len(flows) // columns)
    side = 1.1 + 0.42 * (len(used) + 1)
    figure, grid = new_figure(columns * side + 0.8, rows * (side + 0.25), rows, columns)
    image = None
    for place, axes in enumerate(np.atleast_1d(grid).ravel()):
        if place >= len(flows):
            axes.set_visible(False)
            continue
        title, flow = list(flows.items())[place]
        image = _heat_map(axes, title, flow, used, left=place % columns == 0)
    bar = figure.colorbar(image, ax=grid, shrink=0.7 if rows > 1 else 1.0, pad=0.01)
    bar.set_label("share of the row's steps")
    figure.suptitle(
        "From the row's expert to the column's (number of questions in each cell)",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    return figure


def _heat_map(axes: Any, title: str, flow: Flow, used: list[str], *, left: bool) -> Any:
    rows = [flow.rows[0], *used]
    columns = [*used, flow.columns[-1]]
    counts = np.array(
        [[flow.counts[flow.rows.index(r)][flow.columns.index(c)] for c in columns] for r in rows]
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Greys", vmin=0, vmax=1, aspect="equal")
    for i, j in np.argwhere(counts > 0):
        axes.text(
            j, i, counts[i, j], ha="center", va="center", fontsize=7,
            color="white" if shares[i, j] > 0.55 else "black",
        )  # fmt: skip
    axes.set_xticks(
        range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=7
    )
    axes.set_yticks(range(len(rows)), rows if left else [], fontsize=7)
    axes.grid(visible=False)
    axes.set_title(title, fontsize=8.5, loc="left")
    return image


def wall_clock(report: Report) -> Any:
    """Where the time of a question goes."""
    clock = report.wall_clock
    assert clock is not None
    figure, axes = new_figure(7.2, 1.9)
    parts = {
        "experts": clock.experts,
        "encoder": clock.encoder,
        "agent": clock.agent,
        "graph": clock.graph,
    }
    hatches = ("", "//", "xx", "..")
    whole = sum(part.mean for part in parts.values()) or 1.0
    start = 0.0
    for (name, span), hatch, shade in zip(
        parts.items(), hatches, ("0.75", "0.9", "1", "1"), strict=True
    ):
        seconds = f"{span.mean:.2f} s" if span.mean >= 1 else f"{span.mean * 1000:.1f} ms"
        axes.barh(
            0, span.mean, left=start, hatch=hatch * 2, facecolor=shade, edgecolor="black", linewidth=0.8,
            label=f"{name}: {seconds} ({span.mean / whole:.1%})",
        )  # fmt: skip
        start += span.mean
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(
        f"seconds a question (mean of {clock.questions}, one at a time, nothing cached)"
    )
    axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0), columnspacing=1.2)
    return figure


def _point(method: MethodResult) -> tuple[float, float]:
    return method.cost.estimate, method.quality.estimate


def _short(method: MethodResult) -> str:
    if method.family == "single":
        return method.name.removeprefix("single:")
    if method.family == "mixture":
        return "mixture of agents"
    return method.name.replace("_", "-")


def _plain_numbers(value: float, _: int) -> str:
    return f"{value:g}"
