"""The pictures of the studies, a few shapes for all of them; legible in black and white.

rows ──forest──> estimates with intervals, a line each      ──lines──> numbers over a number
curves ──curves──> quality against cost
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from results_text import Row

from der_graph.policies.evaluation.plots import ROUTER_LINES, new_figure
from der_graph.policies.evaluation.report import Estimate
from der_graph.policies.evaluation.study_plots import Effect, effects

COST = "cost of a question, billions of parameters (mean)"
QUALITY = "quality (share of right answers)"
CHANGE = "difference in quality (bars: 95 %)"
_MARKERS = "so^Dv<>"


def study_pictures(results: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    """How to draw what there is data for, by name."""
    makers: dict[str, Callable[[], Any]] = {}
    ablations = results.get("ablations", {})
    found = ablations.get("studies", {})
    for name, study in (("reward", "reward"), ("clones", "clones")):
        if found.get(study):
            rows = found[study]
            makers[name] = lambda rows=rows: curves({r["label"]: r["curve"] for r in rows})  # type: ignore[misc]
    if found.get("left_out"):
        makers["left-out"] = lambda: forest(
            [(r["label"], r["quality"]) for r in found["left_out"]], f"{QUALITY}, bars: 95 %"
        )
    bad = [r for key in ("bad_expert", "bad_in_training") for r in found.get(key, [])]
    if any(r["difference"] for r in bad):
        changed = [(r["label"], r["difference"]) for r in bad if r["difference"]]
        makers["bad-expert"] = lambda: forest(changed, CHANGE, zero=True)
    if any(r.get("questions") for r in ablations.get("stability", [])):
        makers["stability"] = lambda: stability(ablations["stability"])
    if "new_expert" in results:
        arms = {"without": "without it", "added": "added by probes", "trained": "trained with it"}
        makers["new-expert"] = lambda: curves(
            {
                label: [[r["cost"][arm], r["quality"][arm]] for r in results["new_expert"]["rows"]]
                for arm, label in arms.items()
            }
        )
    if "large_pool" in results:
        makers["large-pool"] = lambda: large_pool(results["large_pool"])
    if "ktp" in results:
        makers["ktp"] = lambda: transfer(results["ktp"])
        if results["ktp"]["pairs"]:
            makers["pairs"] = lambda: pairs(results["ktp"])
    if "deadline" in results:
        makers["deadline"] = lambda: deadline(results["deadline"])
    if "injection" in results:
        told = [
            (f"{r['expert']}: {r['kind']}", r["difference"])
            for r in results["injection"]["routes"]
            if r["difference"]
        ]
        makers["injection"] = lambda: forest(told, CHANGE, zero=True)
    return makers


class Line(NamedTuple):
    """One line of a plot; bands may be left out."""

    label: str
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def lines(axes: Any, x: Sequence[float], given: Sequence[Line]) -> None:
    """Draw numbers over a number, with bars where there are intervals."""
    for number, line in enumerate(given):
        bars = None
        if line.low is not None and line.high is not None:
            y = np.array(line.y)
            bars = np.clip([y - line.low, np.array(line.high) - y], 0, None)
        axes.errorbar(
            list(x)[: len(line.y)], line.y, yerr=bars, label=line.label, marker=_MARKERS[number],
            markersize=5, capsize=2, elinewidth=0.7, color=("black", "0.35", "0.55")[number % 3],
            linestyle=("-", *ROUTER_LINES)[number], markerfacecolor="black" if number == 0 else "white",
        )  # fmt: skip
    if len(given) > 1:
        axes.legend()


def _line(label: str, rows: Sequence[Mapping[str, float]]) -> Line:
    return Line(label, *([r[end] for r in rows] for end in ("estimate", "low", "high")))


def forest(
    rows: Sequence[tuple[str, Mapping[str, float]]], axis: str, *, zero: bool = False
) -> Any:
    """Estimates with intervals, from top to bottom; filled where zero is outside, if zero is of interest."""
    figure, axes = new_figure(6.4, 0.9 + 0.26 * len(rows))
    y = np.arange(len(rows))[::-1]
    if zero:
        axes.axvline(0, color="black", linewidth=0.9)
    for place, (_, found) in zip(y, rows, strict=True):
        sure = not zero or found["low"] > 0 or found["high"] < 0
        axes.plot([found["low"], found["high"]], [place, place], color="black", linewidth=1.2)
        axes.plot(
            found["estimate"], place, "s", color="black", markersize=5,
            markerfacecolor="black" if sure else "white",
        )  # fmt: skip
    axes.set_yticks(y, [label for label, _ in rows])
    axes.set_xlabel(axis)
    return figure


def stability(rows: Sequence[Row]) -> Any:
    """How many questions go another way, over the price."""
    figure, axes = new_figure(5.6, 3.4)
    prices = [float(r["price"]) for r in rows]
    lines(
        axes,
        prices,
        [
            _line("route differs between seeds", [r["route"] for r in rows]),
            _line("last expert differs between seeds", [r["last"] for r in rows]),
            _line(
                "route differs at the next price",
                [r["next_price"] for r in rows if "next_price" in r],
            ),
        ],
    )
    axes.set_xlabel("price of cost")
    axes.set_ylabel("share of the questions (bars: 95 %)")
    axes.set_ylim(-0.03, 1.03)
    return figure


def large_pool(rows: Sequence[Row]) -> Any:
    """Time of a decision over the number of experts."""
    figure, axes = new_figure(4.6, 3.0)
    x = [float(r["experts"]) for r in rows]
    lines(
        axes,
        x,
        [
            Line("median", [r["p50_ms"] for r in rows]),
            Line("95th percentile", [r["p95_ms"] for r in rows]),
        ],
    )
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("experts in the pool")
    axes.set_ylabel("time of a decision, ms")
    return figure


def deadline(rows: Sequence[Row]) -> Any:
    """Quality, and how long requests take, over the deadline; the last point has none."""
    figure, (left, right) = new_figure(8.4, 3.2, 1, 2)
    some = sorted(
        (r for r in rows if r["deadline"] is not None), key=lambda r: float(r["deadline"])
    )
    order = [*some, *(r for r in rows if r["deadline"] is None)]
    x = [float(place) for place in range(len(order))]
    names = ["none" if r["deadline"] is None else f"{r['deadline']:g}" for r in order]
    lines(left, x, [_line("quality", [r["quality"] for r in order])])
    lines(
        right,
        x,
        [
            Line("median", [r["p50"] for r in order]),
            Line("95th percentile", [r["p95"] for r in order]),
        ],
    )
    for place, r in zip(x, order, strict=True):
        if r["deadline"] is not None:
            right.plot(
                [place - 0.3, place + 0.3], [r["deadline"]] * 2, color="black", linewidth=2.5
            )
    right.plot([], [], color="black", linewidth=2.5, label="the deadline")
    right.legend()
    left.set_ylabel(f"{QUALITY}, bars: 95 %")
    left.set_ylim(bottom=0)
    right.set_ylabel("time of a request, s")
    for axes in (left, right):
        axes.set_xticks(x, names)
        axes.set_xlabel("deadline, s")
    return figure


def curves(given: dict[str, Sequence[Sequence[float]]]) -> Any:
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
    axes.set_xlabel(COST)
    axes.set_ylabel(QUALITY)
    axes.legend()
    return figure


def transfer(found: Any) -> Any:
    """Forest plot of DER's routes with and without knowledge."""
    rows = [
        Effect(
            r["name"], Estimate(**r["difference"]), r["helped"], r["harmed"], r["questions"], r["p"]
        )
        for r in found["routes"]
    ]
    return effects(
        rows,
        title="DER's routes on the demo pool",
        axis="difference in quality, with knowledge minus without",
    )


def pairs(found: Any) -> Any:
    """Forest plot of every pair, by whether the first expert was right."""
    rows = [
        Effect(
            f"{p['first']} → {p['then']}, {p['template']}, first {when}", Estimate(**d["difference"]),
            d["helped"], d["harmed"], d["questions"], d["p"],
        )
        for p in found["pairs"]
        for when, d in (("right", p["after_right"]), ("wrong", p["after_wrong"]))
        if d is not None
    ]  # fmt: skip
    return effects(
        rows,
        title="The second expert of a pair on the demo pool",
        axis="difference in quality, shown the first answer minus alone",
    )
