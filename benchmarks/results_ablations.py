"""Sections of the results page on the ablations: a table each, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results_text import Row, shown, spread, table

Found = Mapping[str, Any]


def study(found: Found, name: str, *, first: str) -> str:
    """The table of a study; empty if nothing of it was measured."""
    rows: Sequence[Row] = found["studies"].get(name, [])
    body = [
        [r["label"], str(r["questions"]), str(r["seeds"]), spread(r["quality"]), shown(r["cost"]),
         shown(r["calls"], 2), spread(r["difference"], signed=True)]
        for r in rows
    ]  # fmt: skip
    head = [first, "n", "seeds", "quality", "cost, B", "calls", "difference"]
    return table(head, body) if rows else ""


def how(found: Found) -> str:
    """What all tables of the ablations share."""
    steps = ", ".join(f"{count:,}" for count in found["steps"])
    return (
        f"Each training has {steps} decisions (the comparison's have 300,000). Quality is at "
        f"{found['cost']:g} B a "
        "question, interpolated over the knob, or at the nearest cost that the condition and "
        "the standard agent both reach; where they share none, at the condition's own nearest, and a dash "
        "stands for "
        "the difference. `n` is test questions, over all folds measured. The difference is from the "
        "standard agent "
        "on the same questions at the same cost. Brackets: 95 % intervals over questions; the luck of the "
        "seed is not "
        "in them, so a small difference between two trainings of one seed each says little."
    )


def sure(rows: Sequence[Row]) -> tuple[list[str], list[str], list[str]]:
    """Labels of rows whose difference is surely worse, surely better, and neither."""
    worse: list[str] = []
    better: list[str] = []
    neither: list[str] = []
    for r in rows:
        gap = r["difference"]
        if gap is not None:
            (worse if gap["high"] < 0 else better if gap["low"] > 0 else neither).append(r["label"])
    return worse, better, neither


def verdict(found: Found, name: str) -> str:
    """Which rows differ from the standard agent."""
    worse, better, neither = sure(found["studies"].get(name, []))
    parts = [
        f"{said}: {'; '.join(labels)}."
        for said, labels in (
            ("Worse than the standard agent, zero outside the interval", worse),
            ("Better, zero outside the interval", better),
            ("Not distinguishable from it", neither),
        )
        if labels
    ]
    return " ".join(parts)


def section(found: Found, names: Sequence[tuple[str, str]], *remarks: str) -> str | None:
    """Tables of some studies with their verdicts; None if nothing of them was measured."""
    parts = []
    for name, first in names:
        shown_table = study(found, name, first=first)
        if shown_table:
            parts += [shown_table, verdict(found, name)]
    if not parts:
        return None
    return "\n\n".join(part for part in [*parts, *remarks] if part)


def stability(found: Found) -> str | None:
    """Route stability."""
    rows = [r for r in found["stability"] if r.get("questions")]
    if not rows:
        return None
    body = [
        [f"{r['price']:g}", str(r["questions"]), spread(r["route"]), spread(r["first"]), spread(r["last"]),
         spread(r.get("next_price"))]
        for r in rows
    ]  # fmt: skip
    middle = rows[len(rows) // 2]
    head = [
        "price", "n", "route differs", "first expert differs", "last expert differs",
        "route differs at the next price",
    ]  # fmt: skip
    return (
        f"{table(head, body)}\n\n{rows[0]['pairs']} pairs of seeds, the same training questions. At a "
        "price of "
        f"{middle['price']:g}, {middle['route']['estimate']:.0%} of the questions take another route under "
        "another "
        f"seed, and {middle['last']['estimate']:.0%} end with another expert. Different routes need not "
        "differ in "
        "quality; this is about reproducing a route, not about its worth. A saved agent always takes the "
        "same one."
    )


def ablation_sections(found: Found | None) -> dict[str, str | None]:
    """Bodies of all sections on ablations, by name."""
    if found is None:
        found = {"studies": {}, "stability": [], "steps": [], "cost": 0.0}
    bad = section(
        found,
        (("bad_expert", "the bad expert"), ("bad_in_training", "bad in training too")),
        "The first table is at one price (0.2), with an agent that knows nothing of the fault: its cost "
        "may rise as "
        "well as its quality fall. `noise` has no value to agree with; `wrong` gives the commonest wrong "
        "value of the "
        "others, so that it agrees with whoever errs. Injections cannot be seen here: recorded "
        "experts do not read each other.",
    )
    return {
        "max_steps": section(found, (("max_steps", "longest route"),)),
        "pool_size": section(
            found,
            (("pool_size", "pool"),),
            "Pools are made by taking alternately the dearest and the cheapest expert that is left.",
        ),
        "questions": section(found, (("questions", "training questions"),)),
        "left_out": section(
            found,
            (("left_out", "task of the test questions"),),
            "The difference compares the two agents on the same questions, each at the same mean cost on "
            "that task.",
        ),
        "reward": section(
            found,
            (("reward", "reward"),),
            "p0 is not varied: qualities here are 0 or 1, and every p0 in (0, 1] then means the same. The "
            "price of "
            "cost is varied in every curve: it is the knob. The paper's preset charges 0.001 per billion "
            "parameters "
            "times the price, so at most 0.07 for the dearest expert, where a right answer earns 1 and "
            "more at every "
            "step: its agents hardly heed the knob.",
        ),
        "stability": stability(found),
        "bad_expert": bad,
        "clones": section(
            found,
            (("clones", "pool"),),
            "Every expert is copied, with prices that differ by up to 5 %; the agent saw 11 in training. "
            "Copies agree "
            "with each other without being evidence, and the agent cannot know that. The price of the knob "
            "is scaled so "
            "that a billion parameters cost the same as in the pool of 11.",
        ),
    }
