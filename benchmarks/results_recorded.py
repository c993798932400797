"""Sections of the results page on recorded answers: the comparison, the peers, a new expert, large pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from recorded_data import at_cost
from results_text import Row, band, budget, methods, mixed, points, shown, spread, table

TARGET_QUALITY, TARGET_COST = 0.73, 47.0
COSTS = (20.0, 35.0, 42.0, 45.0, 47.0, 50.0, 55.0, 60.0)
MARGIN_AT, MARGIN = 45.0, 0.03
TRAINED_SHARE = 0.5
"""Of the gain of training with a new expert, what probe questions alone are to bring."""


def curves_table(rows: list[Row], names: list[str]) -> str:
    """Quality at some costs, a method a row."""
    head = ["method", *(f"at {cost:g} B" for cost in COSTS)]
    body = []
    for name in names:
        cells = [spread(band(rows, name, cost)) for cost in COSTS]
        body.append(["**DER**" if name == "der" else name, *cells])
    return table(head, body)


def points_table(rows: list[Row], names: list[str]) -> str:
    """Methods without a knob."""
    body = [
        [name, spread({"estimate": r["quality"], "low": r["low"], "high": r["high"]}),
         shown(r["cost"]), shown(r["calls"], 2), spread(band(rows, "der", r["cost"]))]
        for name in names
        for r in points(rows, name)
    ]  # fmt: skip
    return table(["method", "quality", "cost, B", "calls", "DER at this cost"], body)


def comparison(found: Mapping[str, Any]) -> str:
    """DER, single models, routers and cascades by cross-validation."""
    rows: list[Row] = found["rows"]
    routers, fixed = methods(rows, "router:"), methods(rows, "single:") + methods(rows, "cascade:")
    seeds = len({run["seed"] for run in found["curves"]})
    folds = len({run["fold"] for run in found["curves"]})
    ends = [r for r in points(rows, "der")]
    parts = [
        f"Cross-validation: {folds} of 5 folds, {seeds} seeds a fold. In brackets: 95 % intervals over the "
        "questions, of the mean over the seeds; between two points of a knob, quality is interpolated. A "
        "dash: "
        "the knob does not reach that cost.",
        curves_table(rows, ["der", *routers]),
        points_table(rows, fixed),
        _target(rows),
        _margin(rows, routers),
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
        f"Target: {TARGET_QUALITY} at {TARGET_COST:g} B or less. **Missed**: {at['estimate']:.3f} "
        f"[{at['low']:.3f}, {at['high']:.3f}] at {TARGET_COST:g} B. {inside}. {reached}"
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
    beaten = [
        f"{name} at {r['cost']:.1f} B"
        for name in routers
        for r in points(rows, name)
        if (other := budget(rows, "der", r["cost"])) is not None and other < r["quality"]
    ]
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


def _fixed(rows: list[Row], fixed: list[str]) -> str:
    above = []
    for name in fixed:
        r = points(rows, name)[0]
        mine = budget(rows, "der", r["cost"])
        if mine is not None and r["quality"] > mine:
            above.append(f"{name} ({r['quality']:.3f} against {mine:.3f} at {r['cost']:.1f} B)")
    if above:
        return (
            f"Single models and cascades above DER's curve at their own cost: {'; '.join(above)}."
        )
    return "No single model and no cascade is above DER's curve at its own cost, where the curve reaches it."


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


ARMS = {"without": "without", "added": "added by probes", "trained": "trained with it"}


def new_expert(rows: list[Row]) -> str:
    """Probed against trained."""
    head = ["price", *ARMS.values(), "share of the gain"]
    body = [
        [f"{r['cost_weight']:g}",
         *(f"{r['quality'][arm]:.3f} at {r['cost'][arm]:.1f} B" for arm in ARMS),
         "–" if r["share"] is None or r["share"] != r["share"] else f"{r['share']:.2f}"]
        for r in rows
    ]  # fmt: skip
    mean = {arm: float(np.mean([r["quality"][arm] for r in rows])) for arm in ARMS}
    gain, got = mean["trained"] - mean["without"], mean["added"] - mean["without"]
    if gain <= 0:
        text = "Training with the expert brought nothing on average: there is no gain to share."
    else:
        verdict = "met" if got / gain >= TRAINED_SHARE else "missed"
        text = (
            "The target is read at the same prices, over all of them: training with the expert brings "
            f"{gain:+.3f}; adding it by probes brings {got:+.3f}: {got / gain:.0%} of it. The target of "
            f"{TRAINED_SHARE:.0%} is **{verdict}**."
        )
    if rows and all("utility" in r for r in rows):
        utility = {arm: float(np.mean([r["utility"][arm] for r in rows])) for arm in ARMS}
        more, most = (utility[arm] - utility["without"] for arm in ("added", "trained"))
        text += (
            " In utility, quality less what the cost is worth, which is what agents are trained for, at the "
            f"same price for a unit of cost: {utility['without']:.3f} without, {utility['added']:.3f} added, "
            f"{utility['trained']:.3f} trained" + (f"; {more / most:.0%}." if most > 0 else ".")
        )
    return "\n\n".join(part for part in (table(head, body), text, _equal_cost(rows)) if part)


def _equal_cost(rows: list[Row]) -> str:
    """The three agents at the same cost, where all their knobs reach it."""
    curves = {arm: sorted((r["cost"][arm], r["quality"][arm]) for r in rows) for arm in ARMS}
    low = max(curve[0][0] for curve in curves.values())
    high = min(curve[-1][0] for curve in curves.values())
    if low >= high:
        return ""
    body = [
        [f"{cost:.1f}", *(f"{at_cost(curve, cost):.3f}" for curve in curves.values())]
        for cost in (low, (low + high) / 2, high)
    ]
    return (
        "At the same price the agents do not spend the same. At the same cost, where all three overlap:\n\n"
        + table(["cost, B", *ARMS.values()], body)
    )


def large_pool(rows: list[Row]) -> str:
    """Time of a decision."""
    body = [
        [str(r["experts"]), str(r["repeats"]), f"{r['p50_ms']:.2f}", f"{r['p95_ms']:.2f}"]
        for r in rows
    ]
    last = max(rows, key=lambda r: int(r["experts"]))
    verdict = "met" if last["p50_ms"] < 10 else "missed"
    return (
        table(["experts", "decisions", "p50, ms", "p95, ms"], body)
        + f"\n\nTarget: under 10 ms with 1,000 experts, beyond the encoder. With {last['experts']}: "
        f"{last['p50_ms']:.1f} ms at the median, so it is {verdict}."
    )


def peers(rows: list[Row], der: list[Row]) -> str:
    """Other projects' routers beside DER."""
    costs = (20.0, 45.0, 47.0, 60.0)
    named = {name: points(rows, name) for name in methods(rows, "")}
    ours = {"**DER**": points(der, "der")}
    ours |= {name: points(der, name) for name in methods(der, "router:")}
    ours["single models, by coin"] = [r for r in der if r["method"].startswith("single:")]
    body = [
        [name, str(len(mine)), *(shown(mixed(mine, cost), 3) for cost in costs)]
        for name, mine in {**(ours if der else {}), **named}.items()
    ]
    beaten = [
        f"{name} ({r['quality']:.3f} at {r['cost']:.1f} B)"
        for name, mine in named.items()
        for r in mine
        if (own := budget(der, "der", r["cost"])) is not None and own < r["quality"]
    ]
    parts = [
        "Quality at a mean cost of at most so much, of the best mixture of two settings of one method by "
        "the toss of a "
        "coin. Which two is found on the test questions, which favours those with many settings. A toss "
        "between single "
        "models is what any router has to beat. The command prints every setting with its interval.",
        table(["method", "settings", *(f"at {cost:g} B" for cost in costs)], body),
    ]
    if der:
        parts.append(
            f"Settings of theirs above DER's curve: {', '.join(beaten)}."
            if beaten
            else "No setting of theirs is above DER's curve at its own cost, where the curve reaches it."
        )
    return "\n\n".join(parts)
