"""Sections of the results page on recorded answers: the comparison and its trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from recorded_data import at_cost
from results_text import Row, band, budget, methods, mixed, points, shown, spread, table

TARGET_QUALITY, TARGET_COST = 0.73, 47.0
COSTS = (20.0, 35.0, 42.0, 45.0, 47.0, 50.0, 55.0, 60.0, 100.0)
MARGIN_AT, MARGIN = 45.0, 0.03
COIN = "single models, by coin"
BEST = "cascade:best"


WHY_MISSED = (
    "What was found: quite different ways end within half a point of each other there: training from "
    "random weights, from cascades, held near to cascades, from rewards smoothed by a model of who is "
    "right, from profiles or with an output for each expert, and the best cascades themselves. The agent "
    "shown is told how probably the last answer and each expert is right. The settings were chosen for the "
    "whole range of costs, not for this one point."
)


def curves_table(rows: list[Row], names: list[str]) -> str:
    """Quality at some costs, a method a row."""
    head = ["method", *(f"at {cost:g} B" for cost in COSTS)]
    body = []
    for name in names:
        cells = [spread(band(rows, name, cost)) for cost in COSTS]
        body.append(["**DER**" if name == "der" else name, *cells])
    single = [r for r in rows if r["method"].startswith("single:")]
    if single:
        body.append([COIN, *(shown(mixed(single, cost), 3) for cost in COSTS)])
    return table(head, body)


def points_table(rows: list[Row], names: list[str]) -> str:
    """Methods without a knob."""
    body = [
        [name, spread({"estimate": r["quality"], "low": r["low"], "high": r["high"]}),
         shown(r["cost"]), shown(r["calls"], 2)]
        for name in names
        for r in points(rows, name)
    ]  # fmt: skip
    return table(["method", "quality", "cost, B", "calls"], body)


def comparison(found: Mapping[str, Any]) -> str:
    """DER, single models, routers and cascades by cross-validation."""
    rows: list[Row] = found["rows"]
    routers = methods(rows, "router:")
    fixed = methods(rows, "single:") + [n for n in methods(rows, "cascade:") if n != BEST]
    knobs = [*methods(rows, BEST), *routers]
    seeds = len({run["seed"] for run in found["curves"]})
    folds = len({run["fold"] for run in found["curves"]})
    ends = [r for r in points(rows, "der")]
    parts = [
        f"Cross-validation: {folds} of 5 folds, {seeds} seeds a fold. In brackets: 95 % intervals over the "
        "questions, of the mean over the seeds; between two points of a knob, quality is interpolated. A "
        "dash: the knob does not reach that cost. The last line looks at no question: it tosses a coin "
        "between two single models, so that their mean cost is the one wanted; any router has to beat it.",
        curves_table(rows, ["der", *knobs]),
        points_table(rows, fixed),
        _target(rows),
        _seeds(found.get("seeds", [])),
        _margin(rows, routers),
        _tested(found.get("differences", [])),
        _fixed(rows, fixed),
        f"Over its knob DER goes from {ends[0]['quality']:.3f} at {ends[0]['cost']:.1f} B to "
        f"{ends[-1]['quality']:.3f} at {ends[-1]['cost']:.1f} B: outside of that range the routers are the "
        "ones that "
        "have something to offer. Published figures on other questions are left out, as they cannot be "
        "compared.",
    ]
    return "\n\n".join(part for part in parts if part)


def _target(rows: list[Row]) -> str:
    at = band(rows, "der", TARGET_COST)
    if at is None:
        return f"Target: {TARGET_QUALITY} at {TARGET_COST:g} B or less. DER's knob is never that cheap here."
    best = max(
        (r for r in points(rows, "der") if r["cost"] <= TARGET_COST), key=lambda r: r["quality"]
    )
    value = max(at["estimate"], best["quality"])
    if value >= TARGET_QUALITY:
        return f"Target: {TARGET_QUALITY} at {TARGET_COST:g} B or less. **Met**: {value:.3f}."
    inside = (
        "The interval contains it"
        if at["high"] >= TARGET_QUALITY
        else "The interval does not contain it"
    )
    dearer = [r for r in points(rows, "der") if r["quality"] >= TARGET_QUALITY]
    reached = (
        f"DER first reaches {TARGET_QUALITY} at {dearer[0]['cost']:.1f} B."
        if dearer
        else f"DER does not reach {TARGET_QUALITY} at any price of its knob."
    )
    return (
        f"Target: {TARGET_QUALITY} at {TARGET_COST:g} B or less. **Missed**: {at['estimate']:.4f} "
        f"[{at['low']:.3f}, {at['high']:.3f}] at {TARGET_COST:g} B. {inside}. {reached} {WHY_MISSED}"
    )


def _margin(rows: list[Row], routers: list[str]) -> str:
    mine = budget(rows, "der", MARGIN_AT)
    others = {name: budget(rows, name, MARGIN_AT) for name in routers}
    known = {name: value for name, value in others.items() if value is not None}
    if mine is None or not known:
        return ""
    best = max(known, key=lambda name: known[name])
    gap = mine - known[best]
    verdict = "Met" if gap >= MARGIN else "Missed"
    above = [
        f"{name} at {r['cost']:.1f} B ({r['quality']:.3f} against {other:.3f})"
        for name in routers
        for r in points(rows, name)
        if (other := budget(rows, "der", r["cost"])) is not None and other < r["quality"]
    ]
    beaten = list(dict.fromkeys(above))  # a router may have one point at several prices
    where = (
        f"Points of routers above DER's curve: {', '.join(beaten)}."
        if beaten
        else "No point of a router is above DER's curve where the two overlap."
    )
    return (
        f"Target: 3 points above every one-shot router at {MARGIN_AT:g} B. **{verdict}**: the best of them "
        "is "
        f"`{best}` with {known[best]:.3f}, and DER is {100 * gap:+.1f} points from it. {where}"
    )


def _seeds(seeds: list[list[list[float]]]) -> str:
    """How far the seeds differ; empty without their curves."""
    parts = []
    for cost in (MARGIN_AT, TARGET_COST):
        at = [q for curve in seeds if (q := at_cost([(c, v) for c, v in curve], cost)) == q]
        if at:
            parts.append(f"{min(at):.3f} to {max(at):.3f} at {cost:g} B")
    return f"The {len(seeds)} seeds, each over all folds: {', '.join(parts)}." if parts else ""


def _tested(gaps: list[Row]) -> str:
    """DER minus the others, paired."""
    if not gaps:
        return ""
    body = [
        [g["method"], f"{g['cost']:.1f}", f"{g['other_cost']:.1f}", spread(g["difference"], signed=True),
         "< 0.001" if g["p"] < 0.001 else f"{g['p']:.3f}"]
        for g in gaps
    ]  # fmt: skip
    return (
        "DER minus each other method, question by question (p: paired permutation test, not adjusted for "
        "their number). Methods with a knob at the same cost; those without at their own cost, or against "
        "DER at its dearest if that is less, and left out if they are cheaper than DER ever is:\n\n"
        + table(["against", "DER's cost, B", "its cost, B", "difference", "p"], body)
    )


def _fixed(rows: list[Row], fixed: list[str]) -> str:
    """Single models and cascades: in DER's range, and around it."""
    ends = points(rows, "der")
    low, high = float(ends[0]["cost"]), float(ends[-1]["cost"])
    beside = {name: points(rows, name)[0] for name in fixed}
    above = [
        f"{name} ({r['quality']:.3f} against {mine:.3f} at {r['cost']:.1f} B)"
        for name, r in beside.items()
        if (mine := budget(rows, "der", r["cost"])) is not None and r["quality"] > mine
    ]
    inside = [name for name, r in beside.items() if low <= r["cost"] <= high]
    if above:
        text = (
            f"Single models and cascades above DER's curve at their own cost: {'; '.join(above)}."
        )
    elif inside:
        text = f"In DER's range of cost, no single model and no cascade is above it ({', '.join(inside)})."
    else:
        text = "No single model and no cascade costs what DER costs, so none can be compared at its own cost."
    mixes = [r for r in ends if (mixed(list(beside.values()), r["cost"]) or 0.0) >= r["quality"]]
    if beside:
        text += (
            f" Mixed by a coin, they are as good as DER at {len(mixes)} of its {len(ends)} points."
        )
    best = max((r for r in beside.values()), key=lambda r: float(r["quality"]), default=None)
    if best is not None and best["cost"] > high:
        text += (
            f" The best of them, `{best['method']}`, has {best['quality']:.3f} at {best['cost']:.1f} B; "
            f"DER's dearest point has {ends[-1]['quality']:.3f} for {1 - high / best['cost']:.0%} less."
        )
    return text


def training(found: Mapping[str, Any]) -> str:
    """The curves of the comparison's trainings."""
    runs = found["curves"]
    seconds = [run["seconds"] for run in runs]
    last = [run["curve"][-1] for run in runs if run["curve"]]
    steps = max((point[0] for point in last), default=0)
    quality = [point[1] for point in last]
    spread_of = f"{min(quality):.3f} to {max(quality):.3f}" if quality else "–"
    return (
        f"{len(runs)} trainings of {steps:,} decisions; each took {np.median(seconds):.0f} s (median; as "
        "many at "
        "once as the command says, on whatever else the machine was doing). On their test folds, at the "
        "agent's default price, they end at "
        f"{spread_of}: that spread is of folds and seeds together. The test folds were watched for these "
        "curves "
        "only; the last agent is kept, whatever they say."
    )
