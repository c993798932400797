"""The plots of docs/results.md, made of the JSONs alone; legible in black and white.

    results ──draw──> images/results-<name>.png and .svg

Three shapes serve all studies: `lines` (numbers over a number), `curves` (quality against cost), `forest`
(estimates with intervals). The comparison has a plot of its own.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results_page import ARMS, Results, Row, methods, points

from der_graph.policies.evaluation import plots
from der_graph.policies.evaluation.plots import LOOKS, ROUTER_LINES, ROUTER_MARKERS, new_figure
from der_graph.policies.evaluation.report_schema import Estimate
from der_graph.policies.evaluation.study_plots import Effect, effects, training_curves

COST = "cost of a question, billions of parameters (mean)"
QUALITY = "quality (share of right answers)"
CHANGE = "difference in quality (bars: 95 %)"
_MARKERS = "so^Dv<>"


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Draw what there is data for.

    Args:
        results: By name of the stage.
        folder: Where to; beside the page.

    Returns:
        File of each plot relative to the page, by name.
    """
    drawn = {}
    for name, make in _makers(results).items():
        with plots.styled():
            plots.save(make(), folder, f"results-{name}")
        drawn[name] = f"{folder.name}/results-{name}.png"
    return drawn


def _makers(results: Results) -> dict[str, Callable[[], Any]]:
    """How to draw what there is data for, by name."""
    found: dict[str, Callable[[], Any]] = {}
    ablations = results.get("ablations", {})
    studies = ablations.get("studies", {})
    if "comparison" in results:
        compared = results["comparison"]
        found["quality-cost"] = lambda: quality_cost(compared, results.get("peers", []))
        if any(run["curve"] for run in compared["curves"]):
            found["training"] = lambda: training(compared)
    for study, label in {
        "max_steps": "longest route, calls",
        "pool_size": "experts in the pool",
        "questions": "training questions",
    }.items():
        rows = [r for r in studies.get(study, []) if r["quality"] and r["value"] is not None]
        if rows:
            found[study.replace("_", "-")] = lambda r=rows, label=label: over(r, label)  # type: ignore[misc]
    for study in ("reward", "clones"):
        if rows := studies.get(study):
            found[study] = lambda r=rows: curves({row["label"]: row["curve"] for row in r})  # type: ignore[misc]
    if rows := studies.get("left_out"):
        shown = [(r["label"], r["quality"]) for r in rows]
        found["left-out"] = lambda: forest(shown, f"{QUALITY}, bars: 95 %")
    bad = [r for key in ("bad_expert", "bad_in_training") for r in studies.get(key, [])]
    if changed := [(r["label"], r["difference"]) for r in bad if r["difference"]]:
        found["bad-expert"] = lambda: forest(changed, CHANGE, zero=True)
    if any(r.get("questions") for r in ablations.get("stability", [])):
        found["stability"] = lambda: stability(ablations["stability"])
    if "new_expert" in results:
        arms = {
            label: [[r["cost"][arm], r["quality"][arm]] for r in results["new_expert"]["rows"]]
            for arm, label in {**ARMS, "without": "without it"}.items()
        }
        found["new-expert"] = lambda: curves(arms)
    if "large_pool" in results:
        found["large-pool"] = lambda: large_pool(results["large_pool"])
    if "demo" in results:
        found["demo"] = lambda: plots.quality_cost(results["demo"])
    if "ktp" in results:
        ktp = results["ktp"]
        found["ktp"] = lambda: effects(
            [_effect(r["name"], r) for r in ktp["routes"]],
            title="DER's routes on the demo pool",
            axis="difference in quality, with knowledge minus without",
        )
        pairs = [
            _effect(f"{p['first']} → {p['then']}, {p['template']}, first {when}", d)
            for p in ktp["pairs"]
            for when, d in (("right", p["after_right"]), ("wrong", p["after_wrong"]))
            if d is not None
        ]
        if pairs:
            found["pairs"] = lambda: effects(
                pairs,
                title="The second expert of a pair on the demo pool",
                axis="difference in quality, shown the first answer minus alone",
            )
    if "deadline" in results:
        found["deadline"] = lambda: deadline(results["deadline"])
    if "injection" in results:
        rows = [r for r in results["injection"]["routes"] if r["difference"]]
        told = [(f"{r['expert']}: {r['kind']}", r["difference"]) for r in rows]
        found["injection"] = lambda: forest(told, CHANGE, zero=True)
    return found


def _effect(label: str, r: Row) -> Effect:
    counts = (r["helped"], r["harmed"], r["questions"])
    return Effect(label, Estimate(**r["difference"]), *counts, r["p"])


def lines(axes: Any, x: Sequence[float], given: Mapping[str, Sequence[Any]]) -> None:
    """Draw numbers over a number, by label; with bars where they are estimates."""
    for number, (label, values) in enumerate(given.items()):
        bars = None
        y: Any = values
        if isinstance(values[0], Mapping):
            y, low, high = (np.array([v[k] for v in values]) for k in ("estimate", "low", "high"))
            bars = np.clip([y - low, high - y], 0, None)
        axes.errorbar(
            list(x)[: len(y)], y, yerr=bars, label=label, marker=_MARKERS[number], markersize=5, capsize=2,
            elinewidth=0.7, color=("black", "0.35", "0.55")[number % 3],
            linestyle=("-", *ROUTER_LINES)[number],
            markerfacecolor="black" if number == 0 else "white",
        )  # fmt: skip
    if len(given) > 1:
        axes.legend()


def curves(given: Mapping[str, Sequence[Sequence[float]]]) -> Any:
    """Quality against cost of several agents."""
    figure, axes = new_figure(5.6, 3.6)
    for number, (label, pairs) in enumerate(given.items()):
        x, y = np.array(sorted(map(tuple, pairs))).T
        axes.plot(
            x, y, label=label, marker=_MARKERS[number % len(_MARKERS)], markersize=4.5,
            color="black" if number == 0 else str(0.2 + 0.12 * number),
            linestyle=("-", *ROUTER_LINES)[number % (1 + len(ROUTER_LINES))],
            markerfacecolor="black" if number == 0 else "white",
        )  # fmt: skip
    axes.set(xlabel=COST, ylabel=QUALITY)
    axes.legend()
    return figure


def forest(rows: Sequence[tuple[str, Row]], axis: str, *, zero: bool = False) -> Any:
    """Estimates with intervals, from top to bottom; filled where zero is outside, if zero is of interest."""
    figure, axes = new_figure(6.4, 0.9 + 0.26 * len(rows))
    y = np.arange(len(rows))[::-1]
    if zero:
        axes.axvline(0, color="black", linewidth=0.9)
    for place, (_, r) in zip(y, rows, strict=True):
        sure = not zero or r["low"] > 0 or r["high"] < 0
        axes.plot([r["low"], r["high"]], [place, place], color="black", linewidth=1.2)
        face = "black" if sure else "white"
        axes.plot(r["estimate"], place, "s", color="black", markersize=5, markerfacecolor=face)
    axes.set_yticks(y, [label for label, _ in rows])
    axes.set_xlabel(axis)
    return figure


def over(rows: Sequence[Row], label: str) -> Any:
    """Quality over a number; a line for agents trained so, one for those limited so when asked."""
    figure, axes = new_figure(4.6, 3.2)
    ways = {
        way: sorted((r for r in rows if ("," in r["label"]) == asked), key=lambda r: float(r["value"]))
        for way, asked in (("trained so", False), ("limited when asked", True))
    }  # fmt: skip
    ways = {way: mine for way, mine in ways.items() if mine}
    for number, (way, mine) in enumerate(ways.items()):
        y, low, high = (
            np.array([r["quality"][k] for r in mine]) for k in ("estimate", "low", "high")
        )
        axes.errorbar(
            [r["value"] for r in mine], y, label=way, marker=_MARKERS[number], markersize=5, capsize=2,
            yerr=[y - low, high - y], color="black" if number == 0 else "0.45",
            linestyle=("-", "--")[number % 2], elinewidth=0.7,
            markerfacecolor="black" if number == 0 else "white",
        )  # fmt: skip
    axes.set(xlabel=label, ylabel="quality at 47 B or near it (bars: 95 %)")
    values = sorted({r["value"] for r in rows})
    if values[-1] / values[0] > 12:
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    if len(ways) > 1:
        axes.legend()
    return figure


def stability(rows: Sequence[Row]) -> Any:
    """How many questions go another way, over the price."""
    figure, axes = new_figure(5.6, 3.4)
    given = {
        "route differs between seeds": [r["route"] for r in rows],
        "last expert differs between seeds": [r["last"] for r in rows],
        "route differs at the next price": [r["next_price"] for r in rows if "next_price" in r],
    }
    lines(axes, [float(r["price"]) for r in rows], {k: v for k, v in given.items() if v})
    axes.set(xlabel="price of cost", ylabel="share of the questions (bars: 95 %)")
    axes.set_ylim(-0.03, 1.03)
    return figure


def _times(rows: Sequence[Row], median: str, high: str) -> dict[str, list[float]]:
    return {"median": [r[median] for r in rows], "95th percentile": [r[high] for r in rows]}


def large_pool(rows: Sequence[Row]) -> Any:
    """Time of a decision over the number of experts."""
    figure, axes = new_figure(4.6, 3.0)
    x = [float(r["experts"]) for r in rows]
    lines(axes, x, _times(rows, "p50_ms", "p95_ms"))
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(xlabel="experts in the pool", ylabel="time of a decision, ms")
    return figure


def deadline(rows: Sequence[Row]) -> Any:
    """Quality, and how long requests take, over the deadline; the last point has none."""
    figure, (left, right) = new_figure(8.4, 3.2, 1, 2)
    order = sorted(rows, key=lambda r: float(np.inf if r["deadline"] is None else r["deadline"]))
    x = [float(place) for place in range(len(order))]
    lines(left, x, {"quality": [r["quality"] for r in order]})
    lines(right, x, _times(order, "p50", "p95"))
    for at, r in zip(x, order, strict=True):
        if r["deadline"] is not None:
            right.plot([at - 0.3, at + 0.3], [r["deadline"]] * 2, color="black", linewidth=2.5)
    right.plot([], [], color="black", linewidth=2.5, label="the deadline")
    right.legend()
    left.set_ylabel(f"{QUALITY}, bars: 95 %")
    left.set_ylim(bottom=0)
    right.set_ylabel("time of a request, s")
    for axes in (left, right):
        axes.set_xticks(
            x, ["none" if r["deadline"] is None else f"{r['deadline']:g}" for r in order]
        )
        axes.set_xlabel("deadline, s")
    return figure


def quality_cost(found: Any, peers: Sequence[Row]) -> Any:
    """DER's curve with its band, curves of routers, single models, cascades, and the target."""
    rows: list[Row] = found["rows"]
    figure, axes = new_figure(7.2, 4.6)

    def xy(mine: Sequence[Row]) -> tuple[list[float], list[float]]:
        return [r["cost"] for r in mine], [r["quality"] for r in mine]

    der = points(rows, "der")
    x, y = xy(der)
    ends = [r["low"] for r in der], [r["high"] for r in der]
    axes.fill_between(x, *ends, color="black", alpha=0.1, linewidth=0)
    axes.plot(x, y, color="black", linewidth=2, marker="s", markersize=5, zorder=4)
    labels: list[tuple[tuple[float, float], str]] = [((x[len(x) // 2], y[len(y) // 2]), "DER")]
    every = list(zip(x, y, strict=True))
    knobs = [*methods(rows, "cascade:best"), *methods(rows, "router:")]
    for number, name in enumerate(knobs):
        mine = points(rows, name)
        axes.plot(
            *xy(mine), label=name.replace(":", " "), linewidth=1, markersize=4, markerfacecolor="white",
            color=LOOKS[name.split(":")[0]].colour, linestyle=ROUTER_LINES[number % len(ROUTER_LINES)],
            marker=ROUTER_MARKERS[number % len(ROUTER_MARKERS)], zorder=2,
        )  # fmt: skip
        every += zip(*xy(mine), strict=True)
    floor = 0.75 * min(
        quality for _, quality in every
    )  # a point far below would flatten everything
    for number, name in enumerate(methods(peers, "")):
        mine = [r for r in points(peers, name) if r["quality"] >= floor]
        axes.plot(
            *xy(mine), label=name, markersize=4.5, color=LOOKS["run_all"].colour, linestyle="",
            marker="+x1234|"[number % 7],
        )  # fmt: skip
    below = ["settings of other projects"] * any(r["quality"] < floor for r in peers)
    fixed = [
        n for family in ("single:", "cascade:") for n in methods(rows, family) if n not in knobs
    ]
    for name in fixed:
        r, look = points(rows, name)[0], LOOKS[name.split(":")[0]]
        if r["quality"] < floor:
            below.append(f"{name.removeprefix('single:')} ({r['cost']:g} B, {r['quality']:.2f})")
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
    axes.set(xlabel=COST + outside, ylabel=QUALITY)
    axes.set_title(
        "Quality against cost, cross-validated (bars and band: 95 % intervals)", loc="left"
    )
    axes.margins(x=0.07, y=0.06)
    if knobs or peers:
        axes.legend(loc="lower right", ncols=2 if peers else 1, fontsize=7)
    at, texts = zip(*labels, strict=True)
    plots.label_points(axes, at, texts, avoid=every, bold=[True], size=7)
    return figure


def training(found: Any) -> Any:
    """A line per seed, the mean of its folds."""
    by_seed: dict[int, list[Any]] = {}
    for run in found["curves"]:
        by_seed.setdefault(run["seed"], []).append(run["curve"])
    columns = {"dev/quality": "quality on the test folds", "dev/cost": "cost of a question, B"}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{seed}.csv" for seed in sorted(by_seed)]
        for file, (_, runs) in zip(files, sorted(by_seed.items()), strict=True):
            length = min(len(run) for run in runs)
            with file.open("w", newline="", encoding="utf-8") as out:
                writer = csv.writer(out)
                writer.writerow(["time/steps", *columns])
                writer.writerows(np.mean([run[:length] for run in runs], axis=0).tolist())
        return training_curves(files, columns=columns)
