"""The worlds' table (markdown) and picture, made of results alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from der_graph.policies.evaluation.plots import LOOKS, new_figure, save, styled

from .measure import Result

NOTE = (
    "Share of the optimum's utility at each price, mean of the seeds (and the least of them); the optimum is "
    "simulated on the same test questions. **Bold**: the baseline that is best on these is above DER by more "
    "than two standard errors of the difference."
)
REACHED = (0.97, 0.95)


def table(results: Sequence[Result]) -> str:
    """One row per world: DER's shares of the optimum and the best baseline's, and how many reach what."""
    prices = list(results[0]["prices"])
    head = ["world", *prices, "best baseline's, same prices", "training, s"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    reached: list[float] = []
    behind = 0
    for world, runs in _by_world(results).items():
        cells, theirs = [world], []
        for price in prices:
            rows = [run["prices"][price] for run in runs]
            shares = [row["DER"]["share"] for row in rows]
            reached += shares
            best, ahead = rival(rows)
            behind += ahead
            least = f" ({min(shares):.3f})" if len(shares) > 1 else ""
            cells.append(
                f"**{mean(shares):.3f}**{least}" if ahead else f"{mean(shares):.3f}{least}"
            )
            theirs.append(f"{_mean(rows, best, 'share'):.3f}")
        seconds = mean(run["train_seconds"] for run in runs)
        lines.append(f"| {' | '.join([*cells, ' / '.join(theirs), f'{seconds:.0f}'])} |")
    places = (len(lines) - 2) * len(prices)
    counts = ", ".join(f"{sum(s >= least for s in reached)} reach {least}" for least in REACHED)
    summary = (
        f"Of {len(reached)} figures (world, seed and price) {counts}; mean {mean(reached):.3f}, least "
        f"{min(reached):.3f}. A baseline is significantly ahead at {behind} of {places} places."
    )
    return "\n".join([*lines, "", NOTE, "", summary, ""])


def rival(rows: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """The best baseline over some runs, and whether it is significantly above DER."""
    names = [name for name in rows[0] if name not in ("DER", "optimum")]
    best = max(names, key=lambda name: _mean(rows, name, "utility"))
    ahead = mean(row[best]["ahead"] for row in rows)
    # The runs share their test questions, so their mean is no surer than one of them.
    return best, ahead < -2 * mean(row[best]["error"] for row in rows)


def draw(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw the share of the optimum, one panel per price, one line per world."""
    worlds = _by_world(results)
    prices = list(results[0]["prices"])
    with styled():
        figure, axes = new_figure(2.0 + 2.2 * len(prices), 1.2 + 0.3 * len(worlds), 1, len(prices))
        for panel, price in zip([axes] if len(prices) == 1 else axes, prices, strict=True):
            for height, runs in enumerate(worlds.values()):
                rows = [run["prices"][price] for run in runs]
                shares = [row["DER"]["share"] for row in rows]
                best = _mean(rows, rival(rows)[0], "share")
                der, other = LOOKS["der"], LOOKS["router"]
                panel.plot([min(shares), max(shares)], [height] * 2, color=der.colour, linewidth=1)
                panel.plot(max(best, 0.5), height, "o", color=other.colour, markerfacecolor="white")
                panel.plot(
                    max(mean(shares), 0.5), height, der.marker, color=der.colour, markersize=5
                )
            panel.axvline(1.0, color="black", linewidth=0.8)
            panel.axvline(0.97, color="black", linewidth=0.6, linestyle=":")
            panel.set_yticks(
                range(len(worlds)), worlds if price == prices[0] else [""] * len(worlds)
            )
            panel.set_ylim(len(worlds) - 0.5, -0.5)
            panel.set_xlim(0.48, 1.03)
            panel.set_title(f"price {price}", loc="left")
        figure.supxlabel(
            "Share of the optimum's utility. Filled square: DER, with the range of its seeds; open circle: "
            "the best baseline; dotted: 0.97. What is below 0.5 stands at 0.5",
            fontsize=8,
        )
        return save(figure, folder, "worlds")


def _mean(rows: Sequence[Mapping[str, Any]], name: str, figure: str) -> float:
    return mean(float(row[name][figure]) for row in rows)


def _by_world(results: Iterable[Result]) -> dict[str, list[Result]]:
    worlds: dict[str, list[Result]] = {}
    for result in results:
        worlds.setdefault(result["world"], []).append(result)
    return worlds
