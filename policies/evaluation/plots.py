"""The plots of a report: quality against cost, by task, who follows whom, where the time goes.

    Report ──draw_report──> PNG and SVG files          training curves and studies are in `study_plots.py`

The style is that of all plots of this project (`styled`, `new_figure`, `label_points`): legible in black
and white, with labels at the data where they fit. Methods differ by marker, line style and hatch, and by
colour on top of that (Okabe and Ito's palette, which the colour-blind can tell apart). matplotlib is an
extra, and is imported when a plot is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from der_graph.errors import require
from der_graph.policies.evaluation.report_schema import Flow, MethodResult, Report, mean_unit
from der_graph.policies.evaluation.statistics import pareto_front

# Ratio of the dearest to the cheapest method from which on costs need a logarithmic axis.
_LOG_FROM = 15.0


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
    many, unit = mean_unit(report.pool.unit)
    axes.set_xlabel(f"cost in {unit} (mean{', log scale' if logarithmic else ''})")
    axes.set_ylabel(f"quality ({report.data.metric}, mean)")
    axes.set_title(
        f"Quality against cost on {report.data.questions} questions (bars and band: 95 % intervals)",
        loc="left",
    )
    if logarithmic or many != 1.0:
        axes.xaxis.set_major_formatter(lambda cost, _: f"{many * cost:g}")
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


Made = TypeVar("Made", bound=Callable[..., Any])

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "der-graph",  # the same picture gives the same file
    "figure.facecolor": "white",
}
DPI = 200


class Look(NamedTuple):
    """How a family of methods is drawn.

    Attributes:
        colour: Line and marker.
        marker: matplotlib's letter.
        line: Line style.
        filled: Is the marker filled?
        hatch: Of bars.
    """

    colour: str
    marker: str
    line: Any
    filled: bool
    hatch: str


LOOKS: dict[str, Look] = {
    "der": Look("#000000", "s", "-", True, ""),
    "single": Look("#56B4E9", "o", "", False, "//"),
    "reference": Look("#777777", "x", "", True, ".."),
    "cascade": Look("#CC79A7", "D", "", True, "xx"),
    "run_all": Look("#D55E00", "^", "", True, "\\\\"),
    "mixture": Look("#8C510A", "h", "", True, "++"),
    "router": Look("#009E73", "v", "--", False, "oo"),
    "oracle": Look("#444444", "P", "", False, "--"),
}
ROUTER_LINES: Sequence[Any] = (
    (0, (5, 2)),
    (0, (1, 1.5)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
ROUTER_MARKERS = "v<>1d"


@contextmanager
def styled() -> Iterator[Any]:
    """The package `matplotlib`, with this style.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="plots", why="plots")
    for part in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        require(part, extra="plots", why="plots")
    with matplotlib.rc_context(STYLE):
        yield matplotlib


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure that no window shows, and its axes.

    Args:
        width: In inches.
        height: In inches.
        rows: Of axes.
        columns: Of axes.

    Returns:
        The figure; and its axes, an array of (rows, columns) where there is more than one.
    """
    with styled() as matplotlib:
        figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
        matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns)


def save(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG.

    Returns:
        The two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.png", folder / f"{name}.svg"]
    with styled():
        figure.savefig(files[0], dpi=DPI, metadata={"Software": None})
        figure.savefig(files[1], metadata={"Date": None})
    return files


def label_points(
    axes: Any, points: Sequence[tuple[float, float]], texts: Sequence[str], *, size: float = 7.5,
    avoid: Sequence[tuple[float, float]] = (), bold: Sequence[bool] = (),
) -> None:  # fmt: skip
    """Write a label beside each point, where it hides the least: other labels, points, the border.

    Args:
        axes: Where to; its limits and scales must be final.
        points: In data coordinates.
        texts: The labels.
        size: Of the font, in points.
        avoid: More points to keep free of text.
        bold: Which labels are bold.
    """
    effects = require("matplotlib.patheffects", extra="plots", why="plots")
    outline = effects.withStroke(linewidth=2, foreground="white")  # legible on top of lines
    figure = axes.figure
    figure.draw_without_rendering()  # settles the layout, so that pixels mean something
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    scale = figure.dpi / 72
    pixels = [tuple(axes.transData.transform(p)) for p in [*points, *avoid]]
    boxes: list[tuple[float, float, float, float]] = []
    for i, text in enumerate(texts):
        weight = "bold" if i < len(bold) and bold[i] else "normal"
        best: tuple[float, Any, Any] | None = None
        x, y = pixels[i]
        label = axes.annotate(
            text, points[i], xytext=(0, 0), textcoords="offset points", fontsize=size,
            fontweight=weight, annotation_clip=False, zorder=6,
        )  # fmt: skip
        label.set_path_effects([outline])
        extent = label.get_window_extent(renderer)
        width, height = extent.width, extent.height
        for distance in (5, 9, 15, 24, 36):
            for dx, dy in _AROUND:
                left = (
                    x + dx * distance * scale - (width if dx < 0 else width / 2 if dx == 0 else 0)
                )
                low = (
                    y + dy * distance * scale - (height if dy < 0 else height / 2 if dy == 0 else 0)
                )
                box = (left, low, left + width, low + height)
                penalty = 0.12 * distance + _penalty(box, boxes, pixels, frame)
                if best is None or penalty < best[0]:
                    best = (penalty, box, distance)
        assert best is not None
        _, box, distance = best
        label.set_position(((box[0] - x) / scale, (box[1] - y) / scale))
        boxes.append(box)
        if distance > 12:  # too far to be seen as belonging together without a line
            near = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
            end = axes.transData.inverted().transform(near)
            axes.annotate(
                "", points[i], xytext=end, annotation_clip=False, zorder=2,
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#999999"},
            )  # fmt: skip


_AROUND = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1))


def _penalty(box: Any, boxes: Sequence[Any], points: Sequence[Any], frame: Any) -> float:
    left, low, right, high = box
    total = 0.0
    for a, b, c, d in boxes:
        width, height = min(right, c) - max(left, a), min(high, d) - max(low, b)
        if width > -2 and height > -1:
            total += 20 + max(0.0, width) * max(0.0, height) / 20
    total += sum(8.0 for x, y in points if left - 3 < x < right + 3 and low - 3 < y < high + 3)
    outside = max(0, frame.x0 - left) + max(0, right - frame.x1)
    outside += max(0, frame.y0 - low) + max(0, high - frame.y1)
    return float(total + outside)
