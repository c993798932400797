"""Sections of the results page on the ablations: a table each, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results_text import Row, shown, spread, table

Found = Mapping[str, Any]
SERIOUS = 0.1
"""Quality whose loss is worth a sentence."""


def study(found: Found, name: str, *, first: str) -> str:
    """The table of a study; empty if nothing of it was measured."""
    rows: Sequence[Row] = found["studies"].get(name, [])
    body = [
        [r["label"], str(r["questions"]), str(r["seeds"]), spread(r["quality"]), shown(r["cost"]),
         shown(r["calls"], 2), spread(r["difference"], signed=True), _reach(r)]
        for r in rows
    ]  # fmt: skip
    head = [first, "n", "seeds", "quality", "cost, B", "calls", "difference", "knob, B"]
    return table(head, body) if rows else ""


def _reach(r: Row) -> str:
    """From what to what mean cost the knob goes."""
    costs = [cost for cost, _ in r["curve"]]
    return f"{min(costs):.1f} to {max(costs):.1f}" if len(costs) > 1 else "–"


def how(found: Found) -> str:
    """What all tables of the ablations share."""
    return (
        f"Each training has {max(found['steps']):,} decisions. Quality is at "
        f"{found['cost']:g} B a "
        "question, interpolated over the knob, or at the nearest cost that the condition and "
        "the standard agent both reach; where they share none, at the condition's own nearest, and a dash "
        "stands for "
        "the difference. `n` is test questions, over all folds measured. The difference is from the "
        "standard agent "
        "on the same questions at the same cost. Brackets: 95 % intervals over questions; the luck of the "
        "seed is not "
        "in them, so a small difference between two trainings of one seed each says little. Not "
        "distinguishable does not mean equal: the interval says how large a difference may hide. `knob` is "
        "the range of mean costs over the prices."
    )


def untouched(rows: Sequence[Row]) -> list[str]:
    """Labels of rows in which no answer changed."""
    return [
        r["label"]
        for r in rows
        if r["difference"] is not None
        and not any(r["difference"][k] for k in ("low", "estimate", "high"))
    ]


def idle_knob(rows: Sequence[Row]) -> list[str]:
    """Labels of rows whose mean cost hardly moves with the price."""
    found = []
    for r in rows:
        costs = [cost for cost, _ in r["curve"]]
        if len(costs) > 1 and max(costs) - min(costs) < 0.01 * max(costs):
            found.append(r["label"])
    return found


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
            ("Better than it, zero outside the interval", better),
            ("Not distinguishable from the standard agent", neither),
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
    lost = [
        f"{r['label']} ({100 * r['difference']['estimate']:+.0f} points)"
        for r in found["studies"].get("bad_expert", [])
        if r["difference"] is not None and r["difference"]["high"] < -SERIOUS
    ]
    relied_on = (
        f"Serious: {'; '.join(lost)}. These are experts that the agent trusts and asks last. Nothing in the "
        "graph notices an expert that has become wrong, so watch your experts' quality, and train again or "
        "take a broken one out of the pool."
    )
    same = untouched(found["studies"].get("bad_expert", []))
    idle = (
        f"No answer changed with {'; '.join(same)}: at this price the agent does not ask them, so that says "
        "nothing of how robust it is."
    )
    bad = section(
        found,
        (("bad_expert", "the bad expert"), ("bad_in_training", "bad in training too")),
        relied_on if lost else "",
        idle if same else "",
        "The first table is at one price (0.2), with an agent that knows nothing of the fault: its cost "
        "may rise as "
        "well as its quality fall. `noise` has no value to agree with; `wrong` gives the commonest wrong "
        "value of the "
        "others, so that it agrees with whoever errs. Injections cannot be seen here, as recorded "
        "experts do not read each other: see the live pool.",
    )
    stuck = idle_knob(found["studies"].get("clones", []))
    same_cost = idle_knob(found["studies"].get("left_out", []))
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
            f"The knob moves nothing with {'; '.join(same_cost)}: the agent pays the same at every price."
            if same_cost
            else "",
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
            "step: its agents hardly heed the knob. Those begin from random weights, as the cascades of "
            "the warm start are best for the default reward.",
        ),
        "stability": stability(found),
        "bad_expert": bad,
        "clones": section(
            found,
            (("clones", "pool"),),
            f"With {' and '.join(stuck)} the knob no longer moves the cost: the agent asks the same kind of "
            "expert at every price, and is not a router any more."
            if stuck
            else "",
            "Simulated: every expert is copied, with prices that differ by up to 5 %; the agent saw 11 in "
            "training. Copies bring nothing that the original has not, so at best nothing is lost by them. "
            "They agree with each other without being evidence, and the agent cannot know that: asking a "
            "copy looks like a cheap way to be sure. So keep one of several like experts. The price of the "
            "knob, and the range that it is clipped to, are scaled so "
            "that a billion parameters cost the same as in the pool of 11.",
        ),
    }
