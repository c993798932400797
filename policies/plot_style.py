"""How all plots look: legible in black and white, with labels at the data instead of legends where they fit.

Methods differ by marker, line style and hatch, and by colour on top of that (Okabe and Ito's palette,
which the colour-blind can tell apart). matplotlib is an extra and is imported when a plot is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from der_graph.errors import require

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
