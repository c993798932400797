"""The pictures of the results page, made of the JSONs alone; legible in black and white.

results ──draw──> images/results-<name>.png and .svg
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results_studies import COST, QUALITY, study_pictures
from results_text import Row, methods, points

from der_graph.policies.evaluation.plots import (
    LOOKS,
    ROUTER_LINES,
    ROUTER_MARKERS,
    label_points,
    new_figure,
    save,
    styled,
)
from der_graph.policies.evaluation.plots import quality_cost as report_quality_cost
from der_graph.policies.evaluation.study_plots import training_curves

Results = dict[str, Any]
_MARKERS = "so^Dv<>"


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Draw what there is data for.

    Args:
        results: By name of the stage.
        folder: Where to; beside the page.

    Returns:
        File of each picture relative to the page, by name.
    """
    makers: dict[str, Callable[[], Any]] = {}
    if "comparison" in results:
        makers["quality-cost"] = lambda: quality_cost(
            results["comparison"], results.get("peers", [])
        )
        if any(run["curve"] for run in results["comparison"]["curves"]):
            makers["training"] = lambda: training(results["comparison"])
    found = results.get("ablations", {}).get("studies", {})
    for name, study, label in (
        ("max-steps", "max_steps", "longest route, calls"),
        ("pool-size", "pool_size", "experts in the pool"),
        ("questions", "questions", "training questions"),
    ):
        rows = [
            r for r in found.get(study, []) if r["quality"] is not None and r["value"] is not None
        ]
        if rows:
            makers[name] = lambda rows=rows, label=label: over(rows, label)  # type: ignore[misc]
    if "demo" in results:
        makers["demo"] = lambda: report_quality_cost(results["demo"])
    makers |= study_pictures(results)
    drawn = {}
    for name, make in makers.items():
        with styled():
            save(make(), folder, f"results-{name}")
        drawn[name] = f"{folder.name}/results-{name}.png"
    return drawn


def quality_cost(found: Any, peers: Sequence[Row]) -> Any:
    """DER's curve with its band, curves of routers, single models, cascades, and the target."""
    rows: list[Row] = found["rows"]
    figure, axes = new_figure(7.2, 4.6)
    der = points(rows, "der")
    x, y = [r["cost"] for r in der], [r["quality"] for r in der]
    axes.fill_between(
        x, [r["low"] for r in der], [r["high"] for r in der], color="black", alpha=0.1, linewidth=0
    )
    axes.plot(x, y, color="black", linewidth=2, marker="s", markersize=5, zorder=4)
    labels: list[tuple[tuple[float, float], str]] = [((x[len(x) // 2], y[len(y) // 2]), "DER")]
    every = list(zip(x, y, strict=True))
    curves = [*methods(rows, "cascade:best"), *methods(rows, "router:")]
    for number, name in enumerate(curves):
        mine = points(rows, name)
        axes.plot(
            [r["cost"] for r in mine], [r["quality"] for r in mine], label=name.replace(":", " "),
            linewidth=1, markersize=4,
            color=LOOKS[name.split(":")[0]].colour, markerfacecolor="white",
            linestyle=ROUTER_LINES[number % len(ROUTER_LINES)], zorder=2,
            marker=ROUTER_MARKERS[number % len(ROUTER_MARKERS)],
        )  # fmt: skip
        every += [(r["cost"], r["quality"]) for r in mine]
    # A point far below would flatten everything.
    floor = 0.75 * min(quality for _, quality in every)
    for number, name in enumerate(methods(peers, "")):
        mine = [r for r in points(peers, name) if r["quality"] >= floor]
        axes.plot(
            [r["cost"] for r in mine], [r["quality"] for r in mine], label=name, markersize=4.5,
            color=LOOKS["run_all"].colour, linestyle="", marker="+x1234|"[number % 7],
        )  # fmt: skip
    below = ["settings of other projects"] * any(r["quality"] < floor for r in peers)
    for family in ("single", "cascade"):
        look = LOOKS[family]
        for name in methods(rows, f"{family}:"):
            if name in curves:
                continue
            r = points(rows, name)[0]
            if r["quality"] < floor:
                below.append(
                    f"{name.removeprefix('single:')} ({r['cost']:g} B, {r['quality']:.2f})"
                )
                continue
            axes.errorbar(
                r["cost"], r["quality"], yerr=[[r["quality"] - r["low"]], [r["high"] - r["quality"]]],
                fmt=look.marker, color=look.colour, markersize=6, elinewidth=0.6, zorder=3,
                markerfacecolor=look.colour if look.filled else "white",
            )  # fmt: skip
            shown = name.removeprefix("single:").replace("cascade:", "cascade, agreeing: ")
            for word in ("-Instruct", "-instruct", "-Chat", "-it", "Meta-"):
                shown = shown.replace(word, "")
            labels.append(((r["cost"], r["quality"]), shown))
    axes.plot(47, 0.73, "*", color="black", markersize=11, markerfacecolor="white", zorder=5)
    labels.append(((47, 0.73), "target"))
    outside = f"\nnot shown, under {floor:.2f}: {', '.join(below)}" if below else ""
    axes.set_xlabel(COST + outside)
    axes.set_ylabel(QUALITY)
    axes.set_title(
        "Quality against cost, cross-validated (bars and band: 95 % intervals)", loc="left"
    )
    axes.margins(x=0.07, y=0.06)
    if curves or peers:
        axes.legend(loc="lower right", ncols=2 if peers else 1, fontsize=7)
    label_points(
        axes,
        [point for point, _ in labels],
        [text for _, text in labels],
        avoid=every,
        bold=[True],
        size=7,
    )
    return figure


def training(found: Any) -> Any:
    """A line per seed, the mean of its folds."""
    by_seed: dict[int, list[Any]] = {}
    for run in found["curves"]:
        by_seed.setdefault(run["seed"], []).append(run["curve"])
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for seed, runs in sorted(by_seed.items()):
            length = min(len(run) for run in runs)
            mean = np.mean([run[:length] for run in runs], axis=0)
            file = Path(folder) / f"{seed}.csv"
            with file.open("w", newline="", encoding="utf-8") as out:
                writer = csv.writer(out)
                writer.writerow(["time/steps", "dev/quality", "dev/cost"])
                writer.writerows(mean.tolist())
            files.append(file)
        return training_curves(
            files,
            columns={
                "dev/quality": "quality on the test folds",
                "dev/cost": "cost of a question, B",
            },
        )


def over(rows: Sequence[Row], label: str) -> Any:
    """Quality over a number; each way of getting there is a line."""
    figure, axes = new_figure(4.6, 3.2)
    lines = _by_beginning(rows)
    for number, (way, mine) in enumerate(lines.items()):
        mine = sorted(mine, key=lambda r: float(r["value"]))
        y = np.array([r["quality"]["estimate"] for r in mine])
        axes.errorbar(
            [r["value"] for r in mine], y, label=way, marker=_MARKERS[number], markersize=5, capsize=2,
            yerr=[y - [r["quality"]["low"] for r in mine], [r["quality"]["high"] for r in mine] - y],
            color="black" if number == 0 else "0.45", linestyle=("-", "--")[number % 2], elinewidth=0.7,
            markerfacecolor="black" if number == 0 else "white",
        )  # fmt: skip
    axes.set_xlabel(label)
    axes.set_ylabel("quality at 47 B or near it (bars: 95 %)")
    values = sorted({r["value"] for r in rows})
    if values[-1] / values[0] > 12:
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    if len(lines) > 1:
        axes.legend()
    return figure


def _by_beginning(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of a study by how they were made: trained so, or limited so when asked."""
    found: dict[str, list[Row]] = {}
    for r in rows:
        way = "limited when asked" if "," in r["label"] else "trained so"
        found.setdefault(way, []).append(r)
    return found
