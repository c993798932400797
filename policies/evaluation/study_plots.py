"""Plots of studies: training curves over seeds, what the Knowledge Transfer Prompt does, sensitivity.

progress.csv of several seeds ──training_curves──> figure        rows of a study ──> figure
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from der_graph.errors import DataError
from der_graph.policies.evaluation.plots import new_figure
from der_graph.policies.evaluation.report_schema import Estimate

_LINES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 3)))

CURVES = {
    "dev/quality": "quality on the dev questions",
    "dev/cost": "cost of a dev question",
    "dev/calls": "calls a dev question",
    "rollout/reward": "reward of a route (exploring)",
}
"""Columns of `progress.csv` that are drawn where they are there, and how their axes are labelled."""


def training_curves(
    files: Sequence[str | os.PathLike[str] | Mapping[str, Any]],
    *,
    columns: Mapping[str, str] = CURVES,
    references: Mapping[str, float] | None = None,
) -> Any:
    """Draw the curves of several runs: each seed thin, their mean thick.

    Args:
        files: `progress.csv` of each run, or the folders that hold one; or what to draw itself, arrays of
            (step, value) by column.
        columns: Which columns, with the labels of their axes.
        references: Horizontal lines in the first plot, by label: the best single expert and the like.

    Returns:
        A matplotlib figure.

    Raises:
        DataError: If a file cannot be read, or has none of the columns.
    """
    runs = [file if isinstance(file, Mapping) else _read_curve(file) for file in files]
    shown = [name for name in columns if all(len(run.get(name, ())) for run in runs)]
    if not shown or not runs:
        raise DataError(
            f"no run has all of {', '.join(columns)}; give progress.csv files of der train"
        )
    figure, grid = new_figure(3.1 * len(shown), 2.7, 1, len(shown))
    for number, (axes, name) in enumerate(zip(np.atleast_1d(grid).ravel(), shown, strict=True)):
        curves = [run[name] for run in runs]
        for curve in curves:
            axes.plot(curve[:, 0], curve[:, 1], color="0.65", linewidth=0.8)
        x, mean, low, high = _mean_curve(curves)
        axes.fill_between(x, low, high, color="black", alpha=0.10, linewidth=0)
        axes.plot(x, mean, color="black", linewidth=1.8)
        for line, (label, value) in zip(_LINES[1:], (references or {}).items(), strict=False):
            if number == 0:
                axes.axhline(value, color="0.3", linewidth=0.9, linestyle=line)
                axes.annotate(
                    label, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7
                )  # fmt: skip
        axes.set_xlabel("decisions trained on")
        axes.set_ylabel(columns[name])
        axes.xaxis.set_major_formatter(_thousands)
    count = (
        f"{len(runs)} seeds: each thin, mean thick, band from worst to best"
        if len(runs) > 1
        else "1 seed"
    )
    figure.suptitle(f"Training ({count})", fontsize=10, x=0.01, ha="left")
    return figure


class Effect(NamedTuple):
    """One row of a forest plot.

    Attributes:
        label: What was compared.
        difference: Of the qualities, with its interval.
        helped: Questions that became better.
        harmed: Questions that became worse.
        questions: All of them; 0 where they were not counted.
    """

    label: str
    difference: Estimate
    helped: int = 0
    harmed: int = 0
    questions: int = 0


def effects(rows: Sequence[Effect], axis: str, title: str = "", *, zero: bool = True) -> Any:
    """Draw differences with intervals, one a line; the counts of helped and harmed beside them, if known.

    Args:
        rows: From top to bottom.
        axis: Label of the horizontal axis.
        title: Above the plot.
        zero: Mark zero, and which intervals are outside of it.
    """
    figure, axes = new_figure(7.2, 1.0 + 0.27 * len(rows))
    y = np.arange(len(rows))[::-1]
    if zero:
        axes.axvline(0, color="black", linewidth=0.9)
    for place, row in zip(y, rows, strict=True):
        gap = row.difference
        face = "black" if not zero or gap.low > 0 or gap.high < 0 else "white"
        axes.plot([gap.low, gap.high], [place, place], color="black", linewidth=1.2)
        axes.plot(gap.estimate, place, "s", color="black", markersize=5, markerfacecolor=face)
        if row.questions:
            note = f"+{row.helped}  −{row.harmed}  of {row.questions}"
            axes.annotate(
                note, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=7.5,
                annotation_clip=False,
            )  # fmt: skip
    axes.set_yticks(y, [row.label for row in rows], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{axis}\n(bars: 95 % intervals{'; filled: zero is outside' if zero else ''})")
    axes.set_title(title, loc="left")
    if any(row.questions for row in rows):
        axes.annotate(
            "helped, harmed", (1.01, 1.0), xycoords="axes fraction", fontsize=7.5, style="italic",
            va="bottom", annotation_clip=False,
        )  # fmt: skip
    return figure


class Point(NamedTuple):
    """One setting of a study.

    Attributes:
        value: Of the parameter.
        quality: With its interval.
        cost: Mean, in the pool's unit.
    """

    value: float
    quality: Estimate
    cost: float


def sensitivity(studies: Mapping[str, Sequence[Point]]) -> Any:
    """Draw how quality and cost depend on settings, such as those of the reward: a column each.

    Args:
        studies: Points by name of the parameter.
    """
    figure, grid = new_figure(2.9 * len(studies), 4.2, 2, len(studies))
    above, below = np.asarray(grid).reshape(2, len(studies))
    for column, (name, given) in enumerate(studies.items()):
        points = sorted(given)
        x = np.array([p.value for p in points])
        y = np.array([p.quality.estimate for p in points])
        spread = [y - [p.quality.low for p in points], [p.quality.high for p in points] - y]
        above[column].errorbar(
            x, y, yerr=spread, fmt="s-", color="black", markersize=4, elinewidth=0.7
        )
        below[column].plot(
            x, [p.cost for p in points], "o--", color="black", markerfacecolor="white", markersize=4
        )
        for axes in (above[column], below[column]):
            if x.min() > 0 and x.max() / x.min() > 15:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(_thousands)
        below[column].set_xlabel(name)
    every = [point for points in studies.values() for point in points]
    ends = min(p.quality.low for p in every), max(p.quality.high for p in every)
    room = 0.05 * max(ends[1] - ends[0], 1e-3)
    for upper, lower in zip(
        above, below, strict=True
    ):  # the same scale, so that a flat curve looks flat
        upper.set_ylim(ends[0] - room, ends[1] + room)
        lower.set_ylim(0, 1.1 * max(p.cost for p in every) or 1.0)
    above[0].set_ylabel("quality (bars: 95 %)")
    below[0].set_ylabel("cost of a question")
    return figure


def _read_curve(file: str | os.PathLike[str]) -> dict[str, Any]:
    """The columns of a `progress.csv` as arrays of (step, value), without the rows that leave them empty."""
    path = Path(file)
    path = path / "progress.csv" if path.is_dir() else path
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); der train writes one"
        ) from error
    found: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        pairs = [(row["time/steps"], row[name]) for row in rows if row.get(name)]
        try:
            found[name] = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        except (KeyError, ValueError) as error:
            raise DataError(f"{path}, column {name}: {error}") from error
    return found


def _mean_curve(curves: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    """Mean, least and most of curves, on the steps that all of them span."""
    start = max(curve[0, 0] for curve in curves)
    end = min(curve[-1, 0] for curve in curves)
    x = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    x = x[(x >= start) & (x <= end)]
    values = np.array([np.interp(x, curve[:, 0], curve[:, 1]) for curve in curves])
    return x, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
