"""Sections of the results page on the live demo pool: baselines, knowledge transfer, deadlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results_text import Row, spread, table

from der_graph.policies.report import Report
from der_graph.policies.report_markdown import clock_table, comparison_table, method_table

SHARE_OF_RUN_ALL = 1 / 7


def demo(report: Report) -> str:
    """The report of `der eval` in short."""
    der = report.method("der")
    rivals = [
        m for m in report.methods if m.family not in ("der", "oracle") and m.curve in (None, m.name)
    ]
    beating = [m.label for m in rivals if m.quality.estimate > der.quality.estimate]
    unsure = [c.method for c in report.comparisons if c.p >= 0.01 and "oracle" not in c.method]
    quality = f"**missed**: better are {', '.join(beating)}" if beating else "**met**"
    tested = (
        f" Not significant at 0.01: {', '.join(unsure)}."
        if unsure
        else " Every difference has p < 0.01."
    )
    share = "met" if der.share_of_run_all <= SHARE_OF_RUN_ALL else "missed"
    parts = [
        report.headline,
        table(*method_table(report)),
        table(*comparison_table(report)),
        f"Target: at or above every baseline but the oracles: {quality}.{tested}",
        f"Target: at most 1/7 of run-all's parameters: **{share}**, {der.share_of_run_all:.0%}.",
    ]
    if report.wall_clock is not None:
        parts += ["Where the time of a request goes:", table(*clock_table(report))]
    return "\n\n".join(parts)


def ktp(found: Mapping[str, Any]) -> str:
    """The KTP study."""
    head = ["questions", "without", "with", "difference", "helped / harmed", "p"]
    routes = [[r["name"], *_cells(r)] for r in found["routes"]]
    parts = [
        "DER's routes replayed: the same experts in the same order, with the earlier answer against without.",
        table(["transfer", *head], routes),
    ]
    pairs = [
        [f"{p['first']} → {p['then']}", p["template"], when, *_cells(d)]
        for p in found["pairs"]
        for when, d in (("right", p["after_right"]), ("wrong", p["after_wrong"]))
        if d is not None
    ]
    if pairs:
        parts += [
            "Every pair of experts: the second one's quality with the first one's answer against alone, by "
            "whether "
            "the first answer was right.",
            table(["pair", "template", "first answer", *head], pairs),
        ]
    own = found["routes"][0]
    relative = own["relative"]
    gain = "not defined" if relative is None else f"{relative:+.0%}"
    met = relative is not None and relative >= 0.09 and own["p"] < 0.01
    parts.append(
        f"Target: transfer on against off at least +9 %, p < 0.01: **{'met' if met else 'missed'}** "
        f"({gain}, p {'< 0.001' if own['p'] < 0.001 else '= ' + format(own['p'], '.3f')})."
    )
    harmed = [
        f"{p['first']} → {p['then']} ({p['template']})"
        for p in found["pairs"]
        if p["after_wrong"] is not None and p["after_wrong"]["difference"]["high"] < 0
    ]
    if harmed:
        parts.append(
            "An earlier wrong answer misleads, with zero outside the interval: "
            + ", ".join(harmed)
            + ". These "
            "pairs are why whom to ask next has to be learnt."
        )
    return "\n\n".join(parts)


def _cells(found: Mapping[str, Any]) -> list[str]:
    return [
        str(found["questions"]), f"{found['without']:.3f}", f"{found['with_it']:.3f}",
        spread(found["difference"], signed=True), f"{found['helped']} / {found['harmed']}",
        "< 0.001" if found["p"] < 0.001 else f"{found['p']:.3f}",
    ]  # fmt: skip


def deadline(rows: Sequence[Row]) -> str:
    """Quality and latency under a deadline."""
    body = [
        ["none" if r["deadline"] is None else f"{r['deadline']:g}", str(r["questions"]), spread(r["quality"]),
         f"{r['calls']:.2f}", f"{r['p50']:.2f}", f"{r['p95']:.2f}", f"{r['longest']:.2f}", f"{r['late']:.0%}"]
        for r in rows
    ]  # fmt: skip
    head = [
        "deadline, s",
        "n",
        "quality",
        "calls",
        "p50, s",
        "p95, s",
        "longest, s",
        "later than it",
    ]
    over = max(
        (r["longest"] - r["deadline"] for r in rows if r["deadline"] is not None), default=0.0
    )
    return (
        f"{table(head, body)}\n\nWall clock of whole requests through the graph, one at a time, nothing "
        "cached. "
        f"The most that a request took beyond its deadline is {max(0.0, over):.2f} s: a call that runs "
        "stops at the "
        "next token, but reading the prompt is not cut."
    )
