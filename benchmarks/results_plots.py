"""The plots of docs/results.md, made of the JSONs alone; legible in black and white.

    results ──draw──> images/results-<name>.png and .svg

`plots_of` is the list of them. Two shapes serve all studies: `lines`, and `effects` of the package
(estimates with intervals). The comparison has a plot of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results_page import ARMS, BEST, Results, Row, grouped, pairs

from der_graph.policies.evaluation import plots
from der_graph.policies.evaluation.plots import LOOKS, ROUTER_LINES, ROUTER_MARKERS, new_figure
from der_graph.policies.evaluation.report_schema import Estimate
from der_graph.policies.evaluation.study_plots import Effect, effects, training_curves

COST = "cost of a question, billions of parameters (mean)"
QUALITY = "quality (share of right answers)"
CHANGE = "difference in quality"
_MARKERS = "so^Dv<>"
Series = Mapping[str, Sequence[tuple[float, Any]]]
"""By label: numbers, or estimates with their intervals, over numbers."""


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Draw what there is data for.

    Args:
        results: By name of the stage.
        folder: Where to; beside the page.

    Returns:
        File of each plot relative to the page, by name.
    """
    drawn = {}
    for name, (given, make) in plots_of(results).items():
        if given:
            with plots.styled():
                plots.save(make(given), folder, f"results-{name}")
            drawn[name] = f"{folder.name}/results-{name}.png"
    return drawn


def plots_of(results: Results) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """By name of the plot: what it shows, empty if that was not measured, and how it is drawn."""
    ablations, compared, ktp, pool = (
        results.get(name, {}) for name in ("ablations", "comparison", "ktp", "large_pool")
    )
    studies = ablations.get("studies", {})
    new, injected = results.get("new_expert", {}), results.get("injection", {}).get("routes", [])
    bad = [r for key in ("bad_expert", "bad_in_training") for r in studies.get(key, [])]
    stable = [r for r in ablations.get("stability", []) if r.get("questions")]
    shares = {
        "route": "route differs between seeds", "last": "last expert differs between seeds",
        "next_price": "route differs at the next price",
    }  # fmt: skip
    arms = {
        title: [(r["cost"][arm], r["quality"][arm]) for r in new.get("rows", ())]
        for arm, title in {**ARMS, "without": "without it"}.items()
    }
    split = pairs(results)["split"] if ktp else []

    def over(study: str, label: str) -> tuple[Any, Callable[[Any], Any]]:
        """Quality over a number: of agents trained so, and of those limited so when asked."""
        rows = [r for r in studies.get(study, []) if r["quality"] and r["value"] is not None]
        given = {
            way: [(r["value"], r["quality"]) for r in rows if ("," in r["label"]) == asked]
            for way, asked in (("trained so", False), ("limited when asked", True))
        }
        words = label, "quality at 47 B or near it (bars: 95 %)"
        return rows and given, lambda given: lines(given, *words, ticks=True)

    def knobs(study: str) -> Series:
        return {r["label"]: r["curve"] for r in studies.get(study, ())}

    return {
        "quality-cost": (compared, lambda given: quality_cost(given["rows"], results.get("peers", []))),
        "training": ([run for run in compared.get("curves", ()) if run["curve"]], training),
        "max-steps": over("max_steps", "longest route, calls"),
        "pool-size": over("pool_size", "experts in the pool"),
        "questions": over("questions", "training questions"),
        "reward": (knobs("reward"), lines),
        "clones": (knobs("clones"), lines),
        "left-out": (
            [Effect(r["label"], Estimate(**r["quality"])) for r in studies.get("left_out", ())],
            lambda given: effects(given, QUALITY, zero=False),
        ),
        "bad-expert": (
            [_effect(r["label"], r) for r in bad if r["difference"]], lambda given: effects(given, CHANGE)
        ),
        "stability": (
            {title: [(r["price"], r[k]) for r in stable if k in r] for k, title in shares.items()}
            if stable else {},
            lambda given: lines(
                given, "price of cost", "share of the questions (bars: 95 %)", ylim=(-0.03, 1.03)
            ),
        ),
        "new-expert": (new and arms, lines),
        "large-pool": (
            pool and _times(pool, "experts", "p50_ms", "p95_ms"),
            lambda given: lines(
                given, "experts in the pool", "time of a decision, ms", ticks=True, ylim=(0, None)
            ),
        ),
        "demo": (results.get("demo"), plots.quality_cost),
        "ktp": (
            [_effect(r["name"], r) for r in ktp.get("routes", ())],
            lambda given: effects(
                given, f"{CHANGE}, with knowledge minus without", "DER's routes on the demo pool"
            ),
        ),
        "pairs": (
            [_effect(f"{r['pair']}, {r['template']}, first {r['when']}", r) for r in split],
            lambda given: effects(
                given, f"{CHANGE}, shown the first answer minus alone",
                "The second expert of a pair on the demo pool",
            ),
        ),
        "deadline": (results.get("deadline"), deadline),
        "injection": (
            [_effect(f"{r['expert']}: {r['kind']}", r) for r in injected if r["difference"]],
            lambda given: effects(given, CHANGE),
        ),
    }  # fmt: skip


def _effect(label: str, r: Row) -> Effect:
    counts = (r["helped"], r["harmed"], r["questions"]) if "helped" in r else ()
    return Effect(label, Estimate(**r["difference"]), *counts)


def _times(rows: Sequence[Row], x: str, median: str, high: str) -> Series:
    named = {"median": median, "95th percentile": high}
    return {label: [(r[x], r[column]) for r in rows] for label, column in named.items()}


def lines(
    given: Series, x: str = COST, y: str = QUALITY, *, ticks: bool = False, ylim: Any = None, axes: Any = None
) -> Any:  # fmt: skip
    """Numbers over numbers, a line a label; with bars where they are estimates.

    Args:
        given: What to draw.
        x: What the horizontal axis says.
        y: What the vertical axis says.
        ticks: Name every number on the horizontal axis, which is logarithmic if they are far apart.
        ylim: Limits of the vertical axis.
        axes: Where to; None for a new figure.
    """
    figure, axes = (axes.figure, axes) if axes is not None else new_figure(5.6, 3.5)
    shown = {label: sorted(points, key=lambda p: p[0]) for label, points in given.items() if points}
    for number, (label, points) in enumerate(shown.items()):
        at: Any
        values: Any
        at, values = zip(*points, strict=True)
        bars = None
        if isinstance(values[0], Mapping):
            values, low, high = (
                np.array([v[k] for v in values]) for k in ("estimate", "low", "high")
            )
            bars = np.clip([values - low, high - values], 0, None)
        axes.errorbar(
            at, values, yerr=bars, label=label, marker=_MARKERS[number % len(_MARKERS)], markersize=5,
            capsize=2, elinewidth=0.7, color="black" if number == 0 else str(0.2 + 0.12 * number % 0.6),
            linestyle=("-", *ROUTER_LINES)[number % (1 + len(ROUTER_LINES))],
            markerfacecolor="black" if number == 0 else "white",
        )  # fmt: skip
    axes.set(xlabel=x, ylabel=y, **({"ylim": ylim} if ylim else {}))
    if ticks:
        places = sorted({at for points in shown.values() for at, _ in points})
        if places[-1] / places[0] > 12:
            axes.set_xscale("log")
        axes.set_xticks(places, [f"{at:g}" for at in places])
        axes.minorticks_off()
    if len(shown) > 1:
        axes.legend()
    return figure


def deadline(rows: Sequence[Row]) -> Any:
    """Quality, and how long requests take, over the deadline; the last point has none."""
    figure, (left, right) = new_figure(8.4, 3.2, 1, 2)
    order = sorted(rows, key=lambda r: float(np.inf if r["deadline"] is None else r["deadline"]))
    placed = [{**r, "at": at} for at, r in enumerate(order)]
    quality = {"quality": [(r["at"], r["quality"]) for r in placed]}
    lines(quality, "deadline, s", f"{QUALITY}, bars: 95 %", ylim=(0, None), axes=left)
    for r in placed:
        if r["deadline"] is not None:
            ends = [r["at"] - 0.3, r["at"] + 0.3]
            right.plot(ends, [r["deadline"]] * 2, color="black", linewidth=2.5)
    right.plot([], [], color="black", linewidth=2.5, label="the deadline")
    times = _times(placed, "at", "p50", "p95")
    lines(times, "deadline, s", "time of a request, s", axes=right)
    names = ["none" if r["deadline"] is None else f"{r['deadline']:g}" for r in placed]
    for axes in (left, right):
        axes.set_xticks(range(len(names)), names)
    return figure


def quality_cost(rows: Sequence[Row], peers: Sequence[Row]) -> Any:
    """DER's curve with its band, curves of routers, single models, cascades, and the target."""
    figure, axes = new_figure(7.2, 4.6)

    def xy(mine: Sequence[Row]) -> tuple[list[float], list[float]]:
        return [r["cost"] for r in mine], [r["quality"] for r in mine]

    by = grouped(rows)
    der, (x, y) = by["der"], xy(by["der"])
    ends = [r["low"] for r in der], [r["high"] for r in der]
    axes.fill_between(x, *ends, color="black", alpha=0.1, linewidth=0)
    axes.plot(x, y, color="black", linewidth=2, marker="s", markersize=5, zorder=4)
    labels: list[tuple[tuple[float, float], str]] = [((x[len(x) // 2], y[len(y) // 2]), "DER")]
    knobs = {**grouped(rows, BEST), **grouped(rows, "router:")}
    for number, (name, mine) in enumerate(knobs.items()):
        axes.plot(
            *xy(mine), label=name.replace(":", " "), linewidth=1, markersize=4, markerfacecolor="white",
            color=LOOKS[name.split(":")[0]].colour, linestyle=ROUTER_LINES[number % len(ROUTER_LINES)],
            marker=ROUTER_MARKERS[number % len(ROUTER_MARKERS)], zorder=2,
        )  # fmt: skip
    every = [(r["cost"], r["quality"]) for mine in (der, *knobs.values()) for r in mine]
    floor = 0.75 * min(quality for _, quality in every)  # a point far below would flatten the rest
    for number, (name, mine) in enumerate(grouped(peers).items()):
        axes.plot(
            *xy([r for r in mine if r["quality"] >= floor]), label=name, markersize=4.5, linestyle="",
            color=LOOKS["run_all"].colour, marker="+x1234|"[number % 7],
        )  # fmt: skip
    below = ["settings of other projects"] * any(r["quality"] < floor for r in peers)
    fixed = {**grouped(rows, "single:"), **grouped(rows, "cascade:")}
    for name, (r, *_) in fixed.items():
        look, shown = LOOKS[name.split(":")[0]], name.removeprefix("single:")
        if name in knobs:
            continue
        if r["quality"] < floor:
            below.append(f"{shown} ({r['cost']:g} B, {r['quality']:.2f})")
            continue
        axes.errorbar(
            r["cost"], r["quality"], yerr=[[r["quality"] - r["low"]], [r["high"] - r["quality"]]],
            fmt=look.marker, color=look.colour, markersize=6, elinewidth=0.6, zorder=3,
            markerfacecolor=look.colour if look.filled else "white",
        )  # fmt: skip
        shown = shown.replace("cascade:", "cascade, agreeing: ")
        for word in ("-Instruct", "-instruct", "-Chat", "-it", "Meta-"):
            shown = shown.replace(word, "")
        labels.append(((r["cost"], r["quality"]), shown))
    axes.plot(47, 0.73, "*", color="black", markersize=11, markerfacecolor="white", zorder=5)
    labels.append(((47, 0.73), "target"))
    outside = f"\nnot shown, under {floor:.2f}: {', '.join(below)}" if below else ""
    axes.set(xlabel=COST + outside, ylabel=QUALITY)
    title = "Quality against cost, cross-validated (bars and band: 95 % intervals)"
    axes.set_title(title, loc="left")
    axes.margins(x=0.07, y=0.06)
    if knobs or peers:
        axes.legend(loc="lower right", ncols=2 if peers else 1, fontsize=7)
    at, texts = zip(*labels, strict=True)
    plots.label_points(axes, at, texts, avoid=every, bold=[True], size=7)
    return figure


def training(runs: Sequence[Row]) -> Any:
    """A line per seed, the mean of its folds."""
    columns = {"dev/quality": "quality on the test folds", "dev/cost": "cost of a question, B"}
    seeds = []
    for seed in sorted({run["seed"] for run in runs}):
        mine = [run["curve"] for run in runs if run["seed"] == seed]
        mean = np.mean([curve[: min(map(len, mine))] for curve in mine], axis=0)
        seeds.append({name: mean[:, [0, at]] for at, name in enumerate(columns, 1)})
    return training_curves(seeds, columns=columns)
