"""Rows of the ablations: what each training's tests come to, question by question against the standard agent.

    units (one training, fold and seed each) ──tables──> studies, a row per condition

Quality is taken at one cost, 47 B a question, by interpolation between the two nearest points of the
knob, for every question; or at the cost nearest to it that the condition and the standard agent both
reach. So conditions that change the meaning of the price are comparable. Intervals are over questions,
of the mean over seeds. A row counts only folds that the condition and the standard agent both have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ablation_studies import Condition, Training, studies
from knob_curve import DIGITS, Curve, Floats

from der_graph.policies.evaluation.statistics import bootstrap_interval

Unit = dict[str, Any]
Row = dict[str, Any]
COST = 47.0
"""Billions of parameters a question: the cost at which the comparison has its target."""


def curve(units: Sequence[Unit], test: str, folds: Sequence[int], task: str = "") -> Curve:
    """All folds of a test put together, after the mean over the seeds of each."""
    parts = []
    for fold in folds:
        mine = [unit for unit in units if unit["fold"] == fold]
        tables = np.mean([unit["tests"][test]["points"] for unit in mine], axis=0)
        if task:
            tables = tables[:, :, np.array(mine[0]["tasks"]) == task]
        parts.append(tables)
    joined = np.concatenate(parts, axis=2)  # (prices, 3, questions)
    return Curve(joined[:, 0], joined[:, 1], joined[:, 2])


def tables(units: Sequence[Unit]) -> dict[str, Any]:
    """Make all rows that the units have data for.

    Args:
        units: Results of trainings, as `ablations.run` makes them.
    """
    by_key: dict[str, list[Unit]] = {}
    for unit in units:
        by_key.setdefault(Training(**unit["training"]).key, []).append(unit)
    rows = {
        study: [row for condition in conditions for row in _row(condition, by_key)]
        for study, conditions in studies().items()
    }
    return {
        "cost": COST,
        "steps": sorted({unit["steps"] for unit in units}),
        "seconds_per_training": round(float(np.median([u["seconds"] for u in units])), 1) if units else None,
        "studies": {study: found for study, found in rows.items() if found},
        "stability": stability(by_key.get(Training().key, [])),
    }  # fmt: skip


def _row(condition: Condition, by_key: dict[str, list[Unit]]) -> list[Row]:
    def having(training: Training, test: str) -> list[Unit]:
        return [unit for unit in by_key.get(training.key, []) if test in unit["tests"]]

    mine = having(condition.training, condition.test)
    folds = {unit["fold"] for unit in mine}
    base: list[Unit] = []
    if condition.against is not None:
        base = having(*condition.against)
        folds &= {unit["fold"] for unit in base}
    if not folds:
        return []
    order = sorted(folds)
    found = curve(mine, condition.test, order, condition.task)
    if not found.quality.size:  # no test question is of this task
        return []
    other = curve(base, condition.against[1], order, condition.task) if condition.against else found
    low, high = np.array([found.ends(), other.ends()]).T
    common = bool(low.max() <= high.min()) or condition.price is not None
    at = float(np.clip(COST, low.max(), high.min())) if low.max() <= high.min() else COST
    quality, cost, calls = _point(found, condition.price, at)
    same = condition.against in (None, (condition.training, condition.test))
    gap = quality - _point(other, condition.price, at)[0]
    each_call = [unit["tests"][condition.test]["ms_per_call"] for unit in mine]
    return [
        {
            "label": condition.label, "value": condition.value, "curve": found.means(),
            "questions": found.quality.shape[1], "folds": len(order),
            "seeds": len({unit["seed"] for unit in mine}),
            "ms_per_call": round(float(np.mean(each_call)), 2),
            "quality": bootstrap_interval(quality, seed=0)._asdict(),
            "cost": round(float(cost.mean()), DIGITS),
            "calls": round(float(calls.mean()), DIGITS),
            "difference": bootstrap_interval(gap, seed=0)._asdict() if common and not same else None,
        }
    ]  # fmt: skip


def _point(found: Curve, price: int | None, cost: float) -> tuple[Floats, Floats, Floats]:
    if price is None:
        return found.at(cost)
    at = min(price, len(found.quality) - 1)  # a fault is looked at with one price only
    return found.quality[at], found.cost[at], found.calls[at]


def stability(units: Sequence[Unit]) -> list[Row]:
    """How far routes differ: between two seeds at each price, and from one price to the next."""
    found: list[Row] = []
    units = [unit for unit in units if "routes" in unit["tests"]["plain"]]
    if not units:
        return found
    prices = units[0]["tests"]["plain"]["prices"]
    by_fold: dict[int, list[list[list[str]]]] = {}
    for unit in sorted(units, key=lambda u: (u["fold"], u["seed"])):
        by_fold.setdefault(unit["fold"], []).append(unit["tests"]["plain"]["routes"])
    pairs = [
        (seeds[i], seeds[j])
        for seeds in by_fold.values()
        for i in range(len(seeds))
        for j in range(i)
    ]
    for k, price in enumerate(prices):
        row: Row = {"price": price, "pairs": len(pairs)}
        if pairs:
            both = [(x, y) for a, b in pairs for x, y in zip(a[k], b[k], strict=True)]
            row |= {
                "questions": len(both),
                "route": _share([x != y for x, y in both]),
                "first": _share([x.split()[:1] != y.split()[:1] for x, y in both]),
                "last": _share([x.split()[-1:] != y.split()[-1:] for x, y in both]),
            }
        if k + 1 < len(prices):
            steps = [
                x != y
                for seeds in by_fold.values()
                for routes in seeds
                for x, y in zip(routes[k], routes[k + 1], strict=True)
            ]
            row["next_price"] = _share(steps)
        found.append(row)
    return found


def _share(flags: Sequence[bool]) -> dict[str, float]:
    return bootstrap_interval([float(flag) for flag in flags], resamples=2000, seed=0)._asdict()
