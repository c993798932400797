"""Put the peers' choices into one table: quality against cost, and quality at the same cost.

    python benchmarks/peers/report.py --data peers_run [--der results.json] [--out peers.json]

`--out` has the row format of `benchmarks/recorded_pool.py --out`, with the knob in words besides, so that
both can be drawn into one plot. `--der` is such a file; its methods are put at the same costs as the
peers.

Quality at a cost is that of the best mixture of two settings of one router by the toss of a coin (the
upper concave hull of its points), at a mean cost of at most so much. That favours the peers: which
settings to mix is found on the test questions. The toss of a coin between single models is what any router
has to beat.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from peer_data import Floats, PeerData, Setting, load_choices

from der_graph.policies.evaluation.statistics import bootstrap_interval, bootstrap_intervals

Row = dict[str, Any]


class Mixture(NamedTuple):
    """Two points of a curve and the share of the second.

    Attributes:
        first: Index of one point.
        second: Index of the other; the same where one point is the best there is.
        share: How often the second is taken.
        quality: Mean quality of the mixture.
    """

    first: int
    second: int
    share: float
    quality: float


def mixture_at(costs: Sequence[float], quality: Sequence[float], budget: float) -> Mixture | None:
    """The best mixture of at most two points whose mean cost is at most the budget; None if none is."""
    best: Mixture | None = None
    for i, (cost, value) in enumerate(zip(costs, quality, strict=True)):
        if cost > budget:
            continue
        options = [Mixture(i, i, 0.0, value)]
        for j, (dearer, better) in enumerate(zip(costs, quality, strict=True)):
            if dearer > budget:
                share = (budget - cost) / (dearer - cost)
                options.append(Mixture(i, j, share, value + share * (better - value)))
        for option in options:
            if best is None or option.quality > best.quality:
                best = option
    return best


def rows_of(data: PeerData, settings: Sequence[Setting]) -> list[Row]:
    """A row for every setting."""
    table = np.stack([per_question(data, setting.choices) for setting in settings], axis=1)
    rows = []
    for setting, interval in zip(settings, bootstrap_intervals(table, seed=0), strict=True):
        rows.append(
            {"method": setting.method, "cost_weight": setting.cost_weight, "quality": interval.estimate,
             "low": interval.low, "high": interval.high,
             "cost": float(data.costs[setting.choices].mean()), "calls": 1.0, "knob": setting.knob}
        )  # fmt: skip
    return rows


def per_question(data: PeerData, choices: Sequence[int]) -> Floats:
    """(n,) the quality of the answers chosen."""
    chosen: npt.NDArray[np.int64] = np.asarray(choices)
    if (chosen < 0).any():
        raise ValueError(f"{int((chosen < 0).sum())} questions were not routed: run every fold")
    return data.quality[np.arange(len(chosen)), chosen]


def at_budgets(data: PeerData, settings: Sequence[Setting], budgets: Sequence[float]) -> list[Row]:
    """A row for every method with its quality at the budgets."""
    found: list[Row] = []
    for method in dict.fromkeys(setting.method for setting in settings):
        mine = [setting for setting in settings if setting.method == method]
        tables = [per_question(data, setting.choices) for setting in mine]
        costs = [float(data.costs[setting.choices].mean()) for setting in mine]
        row: Row = {"method": method}
        for budget in budgets:
            mixed = mixture_at(costs, [float(values.mean()) for values in tables], budget)
            if mixed is None:
                row[f"{budget:g}"] = None
                continue
            values = (1 - mixed.share) * tables[mixed.first] + mixed.share * tables[mixed.second]
            interval = bootstrap_interval(values, seed=0)
            row[f"{budget:g}"] = [interval.estimate, interval.low, interval.high]
        found.append(row)
    return found


def others_at_budgets(rows: Sequence[Row], budgets: Sequence[float]) -> list[Row]:
    """The same for the methods of benchmarks/recorded_pool.py, without intervals: means are all it keeps."""
    found: list[Row] = []
    for method in dict.fromkeys(row["method"] for row in rows):
        if method.startswith("single:"):
            continue
        mine = [row for row in rows if row["method"] == method]
        row: Row = {"method": method}
        for budget in budgets:
            mixed = mixture_at([r["cost"] for r in mine], [r["quality"] for r in mine], budget)
            row[f"{budget:g}"] = None if mixed is None else [mixed.quality]
        found.append(row)
    return found


def only(
    data: PeerData, settings: Sequence[Setting], folds: Sequence[int]
) -> tuple[PeerData, list[Setting]]:
    """The questions of some folds, and the settings that were run on them: for a run not yet complete."""
    rows = np.flatnonzero(np.isin(data.fold, folds))
    part = replace(
        data,
        questions=[data.questions[i] for i in rows],
        quality=data.quality[rows],
        embeddings=data.embeddings[rows],
        fold=data.fold[rows],
    )
    cut = [replace(setting, choices=[setting.choices[i] for i in rows]) for setting in settings]
    return part, [setting for setting in cut if min(setting.choices) >= 0]


def singles(data: PeerData) -> list[Setting]:
    """The single models as settings of one method: their mixtures are routing without looking."""
    n = len(data.questions)
    return [
        Setting("single models, by coin", name, None, [i] * n) for i, name in enumerate(data.names)
    ]


def markdown(budgets: Sequence[float], at: Sequence[Row], rows: Sequence[Row]) -> str:
    """Both tables."""
    lines = [
        "| method | " + " | ".join(f"at {budget:g} B" for budget in budgets) + " |",
        "|---|" + "---|" * len(budgets),
    ]
    for row in at:
        cells = []
        for budget in budgets:
            found = row[f"{budget:g}"]
            if found is None:
                cells.append("dearer")
            elif len(found) == 1:
                cells.append(f"{found[0]:.3f}")
            else:
                cells.append(f"{found[0]:.3f} [{found[1]:.3f}, {found[2]:.3f}]")
        lines.append(f"| {row['method']} | " + " | ".join(cells) + " |")
    lines += ["", "| method | setting | quality | B parameters |", "|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['method']} | {row['knob']} | {row['quality']:.3f} [{row['low']:.3f}, {row['high']:.3f}] "
            f"| {row['cost']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of export.py and the runs")
    parser.add_argument("--der", type=Path, help="what benchmarks/recorded_pool.py --out wrote")
    parser.add_argument("--budgets", type=float, nargs="+", default=[20.0, 45.0, 47.0, 60.0])
    parser.add_argument("--folds", type=int, nargs="+", help="only the questions of these, from 0")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--markdown", type=Path, help="write the tables as Markdown")
    args = parser.parse_args()
    data = PeerData.load(args.data)
    files = sorted(args.data.glob("choices_*.json"))
    if not files:
        raise SystemExit(
            f"{args.data}: no choices_*.json; run llmrouter_run.py and routellm_run.py first"
        )
    settings = load_choices(files)
    if args.folds:
        data, settings = only(data, settings, args.folds)
    rows = rows_of(data, settings)
    at = at_budgets(data, singles(data) + settings, args.budgets)
    if args.der:
        at += others_at_budgets(json.loads(args.der.read_text(encoding="utf-8")), args.budgets)
    text = markdown(args.budgets, at, rows)
    print(text)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
