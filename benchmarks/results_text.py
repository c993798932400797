"""Small pieces of the results page: tables, intervals, and the curve of a method out of rows.

Knows nothing of sections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recorded_data import at_cost

from der_graph.policies.evaluation.render import table

Row = Mapping[str, Any]
__all__ = ["band", "budget", "methods", "mixed", "points", "shown", "spread", "table"]


def spread(found: Mapping[str, float] | None, *, signed: bool = False) -> str:
    """An estimate with its interval."""
    if found is None:
        return "–"
    form = "+.3f" if signed else ".3f"
    return f"{found['estimate']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def shown(value: float | None, digits: int = 1) -> str:
    """A number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def methods(rows: Sequence[Row], prefix: str) -> list[str]:
    """Names of the methods that begin so, in order."""
    return list(dict.fromkeys(r["method"] for r in rows if r["method"].startswith(prefix)))


def points(rows: Sequence[Row], method: str) -> list[Row]:
    """The rows of a method, by cost."""
    return sorted((r for r in rows if r["method"] == method), key=lambda r: float(r["cost"]))


def budget(rows: Sequence[Row], method: str, cost: float) -> float | None:
    """Quality of a method at a cost, between its points linearly; None outside."""
    found = at_cost([(r["cost"], r["quality"]) for r in points(rows, method)], cost)
    return None if found != found else found


def mixed(rows: Sequence[Row], cost: float) -> float | None:
    """Quality of the best mixture of two points at a mean cost of at most so much; None if dearer."""
    cheap = [r for r in rows if r["cost"] <= cost]
    if not cheap:
        return None
    best = max(float(r["quality"]) for r in cheap)
    for low in cheap:
        for high in rows:
            if high["cost"] > cost:
                share = (cost - low["cost"]) / (high["cost"] - low["cost"])
                best = max(best, low["quality"] + share * (high["quality"] - low["quality"]))
    return best


def band(rows: Sequence[Row], method: str, cost: float) -> dict[str, float] | None:
    """The same with its interval, interpolated likewise."""
    value = budget(rows, method, cost)
    if value is None:
        return None
    mine = points(rows, method)
    ends = {end: at_cost([(r["cost"], r[end]) for r in mine], cost) for end in ("low", "high")}
    return {"estimate": value, **ends}
