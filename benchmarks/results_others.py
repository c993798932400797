"""Sections of the results page on recorded answers: a new expert, large pools, the peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from recorded_data import at_cost
from results_recorded import COIN
from results_text import Row, budget, methods, mixed, points, shown, spread, table

TRAINED_SHARE = 0.5
"""Of the gain of training with a new expert, what probe questions alone are to bring."""
ARMS = {"without": "without", "added": "added by probes", "trained": "trained with it"}


def new_expert(found: Mapping[str, Any]) -> str:
    """Probed against trained."""
    rows: list[Row] = found["rows"]
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
        if verdict == "missed":
            text += (
                " An agent that was trained with the expert may spend more at the same price, so this "
                "reading counts money as skill; see the utility, and the comparison at equal cost."
            )
    if rows and all("utility" in r for r in rows):
        utility = {arm: float(np.mean([r["utility"][arm] for r in rows])) for arm in ARMS}
        more, most = (utility[arm] - utility["without"] for arm in ("added", "trained"))
        text += (
            " In utility, quality less what the cost is worth, which is what agents are trained for, at the "
            f"same price for a unit of cost: {utility['without']:.3f} without, {utility['added']:.3f} added, "
            f"{utility['trained']:.3f} trained" + (f"; {more / most:.0%}." if most > 0 else ".")
        )
    return "\n\n".join(
        part
        for part in (table(head, body), text, _equal_cost(rows), _gains(found.get("gains", [])))
        if part
    )


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


def _gains(gains: Sequence[Row]) -> str:
    """What the expert brings, with intervals; empty where that was not measured."""
    if not gains:
        return ""
    body = [
        [ARMS[g["arm"]], "all prices" if g["cost"] is None else f"{g['cost']:.1f} B",
         spread(g["difference"], signed=True)]
        for g in gains
    ]  # fmt: skip
    return "Gain over the agent without the expert, question by question:\n\n" + table(
        ["agent", "at", "gain"], body
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
    costs = (20.0, 35.0, 45.0, 47.0, 50.0, 55.0, 60.0)
    named = {name: points(rows, name) for name in methods(rows, "")}
    ours = {"**DER**": points(der, "der")}
    ours |= {name: points(der, name) for name in methods(der, "router:")}
    ours[COIN] = [r for r in der if r["method"].startswith("single:")]
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
        "They were measured once, in environments of their own, and are not measured again by `make "
        "results`. Each setting with its interval, and what was adapted: [peers.md](peers.md). They are "
        "in the picture above. Hyperparameters are those that the packages ship with.",
    ]
    if der:
        parts.append(
            f"Settings of theirs above DER's curve: {', '.join(beaten)}."
            if beaten
            else "No setting of theirs is above DER's curve at its own cost, where the curve reaches it."
        )
    return "\n\n".join(parts)
