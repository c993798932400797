"""Sections of the results page on the live demo pool: baselines, knowledge transfer, deadlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results_plan import DEMO_LEARNT
from results_text import Row, shown, spread, table

from der_graph.policies.evaluation.render import (
    NOTE,
    TESTS,
    clock_table,
    comparison_table,
    method_table,
    task_table,
)
from der_graph.policies.evaluation.report import UNITS, MethodResult, Report

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
    met = der.share_of_run_all <= SHARE_OF_RUN_ALL
    share = (
        f"Target: at most 1/7 of run-all's parameters: **{'met' if met else 'missed'}**, "
        f"{der.share_of_run_all:.0%}."
    )
    parts = [
        report.headline,
        NOTE.format(unit=UNITS[report.pool.unit]),
        _taught(report),
        table(*method_table(report)),
        TESTS,
        table(*comparison_table(report)),
        f"Target: at or above every baseline but the oracles: {quality}.{tested}",
        share if met else f"{share} {_why_dear(report)}",
    ]
    if len(report.data.tasks) > 1:
        parts += [
            "By kind of question (how many in brackets):",
            table(*task_table(report)),
            _where_from(report, rivals),
        ]
    if report.wall_clock is not None:
        parts += ["Where the time of a request goes:", table(*clock_table(report))]
    return "\n\n".join(parts)


def _taught(report: Report) -> str:
    """What the routers learnt from."""
    data = report.data
    if not data.train_questions:
        return "One-shot routers were not run: they need training questions."
    return (
        f"The one-shot routers learnt from the first {data.train_questions} questions of "
        f"{data.train_source}, of which the agent learnt from the first {DEMO_LEARNT}; {data.train_overlap} "
        "of them are among the questions asked here."
    )


def _where_from(report: Report, rivals: Sequence[MethodResult]) -> str:
    """On which kind of question DER gains most, and what is left of its lead without that."""
    der, count = report.method("der"), report.data.tasks
    lead = {
        task: der.tasks[task].quality.estimate - max(m.tasks[task].quality.estimate for m in rivals)
        for task in count
    }
    task = max(lead, key=lambda name: lead[name] * count[name])
    rest = {name: n for name, n in count.items() if name != task}

    def without(method: MethodResult) -> float:
        right = sum(method.tasks[name].quality.estimate * n for name, n in rest.items())
        return right / sum(rest.values())

    best = max(rivals, key=without)
    mine = der.tasks[task].quality.estimate
    text = f"DER's lead is made on `{task}` questions: {mine:.3f} against {mine - lead[task]:.3f}"
    oracle = next((m for m in report.methods if m.name == "oracle"), None)
    if oracle is not None and oracle.tasks[task].quality.estimate < mine:
        bound = oracle.tasks[task].quality.estimate
        text += f", and {bound:.3f} for the oracle: it takes two experts that build on each other"
    text += (
        f". On the {sum(rest.values())} others it has {without(der):.3f} and the best other method there, "
        f"{best.label}, {without(best):.3f}"
    )
    return text + (
        "." if without(best) < without(der) else ": where one call is enough, it does as well."
    )


def _why_dear(report: Report) -> str:
    """What stands between DER and a seventh of run-all."""
    whole = sum(expert.cost for expert in report.pool.experts)
    small = [f"`{e.name}` {e.cost / whole:.0%}" for e in report.pool.experts]
    cheaper = [
        m for m in report.methods if m.curve == "der" and m.share_of_run_all <= SHARE_OF_RUN_ALL
    ]
    best = max(cheaper, key=lambda m: m.quality.estimate, default=None)
    knob = (
        f"DER's knob gets there with a quality of {best.quality.estimate:.3f}"
        if best
        else "No price of DER's knob gets there"
    )
    oracle = next((m for m in report.methods if m.name == "oracle:cheapest"), None)
    known = (
        f"; the oracle, which knows every answer beforehand, has {oracle.quality.estimate:.3f} with "
        f"{oracle.share_of_run_all:.0%}"
        if oracle
        else ""
    )
    dear = [e for e in report.pool.experts if e.cost / whole > SHARE_OF_RUN_ALL]
    return (
        f"The reason is the pool: of asking everyone, one call costs {', '.join(small)}. {len(dear)} of the "
        f"{len(small)} alone are more than a seventh, so the target is in reach only where the rest answer "
        f"most questions. {knob}{known}."
    )


def ktp(found: Mapping[str, Any]) -> str:
    """The KTP study."""
    head = ["questions", "without", "with", "difference", "helped / harmed", "p"]
    routes = [[r["name"], *_cells(r)] for r in found["routes"]]
    parts = [
        "DER's routes replayed: the same experts in the same order, with the earlier answer against without.",
        table(["transfer", *head], routes),
    ]
    own = found["routes"][0]
    relative = own["relative"]
    gain = "not defined" if relative is None else f"{relative:+.0%}"
    met = relative is not None and relative >= 0.09 and own["p"] < 0.01
    parts.append(
        f"Target: transfer on against off at least +9 %, p < 0.01: **{'met' if met else 'missed'}** "
        f"({gain}, p {'< 0.001' if own['p'] < 0.001 else '= ' + format(own['p'], '.3f')})."
    )
    return "\n\n".join(parts)


def pairs(found: Mapping[str, Any]) -> str | None:
    """Every pair of experts; None if they were not asked."""
    head = ["questions", "alone", "with it", "difference", "helped / harmed", "p"]
    body = [
        [f"{p['first']} → {p['then']}", p["template"], when, *_cells(d)]
        for p in found["pairs"]
        for when, d in (("right", p["after_right"]), ("wrong", p["after_wrong"]))
        if d is not None
    ]
    if not body:
        return None
    parts = [
        "The second expert of a pair, shown the first one's answer, against the same expert alone; split by "
        "whether the first answer was right. `pool` is each expert's own template; experts whose template "
        "shows no earlier answer are not second. p is of each line alone, not adjusted for their number.",
        table(["pair", "template", "first answer", *head], body),
    ]
    by_sign = [
        ", ".join(
            f"{p['first']} → {p['then']} ({p['template']}, {p['overall']['difference']['estimate']:+.2f})"
            for p in found["pairs"]
            if sign * p["overall"]["difference"]["estimate"] > 0
        )
        for sign in (1, -1)
    ]
    parts.append(
        f"Over all questions the earlier answer raises quality in {by_sign[0] or 'no pair'}; and lowers it "
        f"in {by_sign[1] or 'no pair'}. So the gain on DER's routes comes from the pairs that it chooses, "
        "not from transfer as such."
    )
    harmed = [
        f"{p['first']} → {p['then']} ({p['template']})"
        for p in found["pairs"]
        if p["after_wrong"] is not None and p["after_wrong"]["difference"]["high"] < 0
    ]
    if harmed:
        parts.append(
            f"An earlier wrong answer misleads, with zero outside the interval: {', '.join(harmed)}."
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
         spread(r["difference"], signed=True), f"{r['answered']:.0%}", f"{r['calls']:.2f}", f"{r['p50']:.2f}",
         f"{r['p95']:.2f}", f"{r['late']:.0%}", shown(r["over_p50"], 2), shown(r["over_p95"], 2)]
        for r in rows
    ]  # fmt: skip
    head = [
        "deadline, s", "n", "quality", "difference", "answered", "calls", "p50, s", "p95, s", "late",
        "late by, p50, s", "late by, p95, s",
    ]  # fmt: skip
    over = max(
        (r["longest"] - r["deadline"] for r in rows if r["deadline"] is not None), default=0.0
    )
    return (
        f"{table(head, body)}\n\nWall clock of whole requests through the graph, one at a time, nothing "
        "cached. The difference is to the same questions without a deadline; a request without any answer "
        "counts as wrong. `late` is the share of requests that ended after the deadline, and how far after "
        f"it; the most was {max(0.0, over):.2f} s. So a deadline is kept to within one step and not hard: a "
        "call that runs stops at the next token, but reading the prompt, a decision and the graph's own work "
        "are not cut. A deadline shorter than reading one prompt is always missed."
    )


def injection(found: Mapping[str, Any]) -> str:
    """An expert that answers with an instruction."""
    texts, rows = found["texts"], found["routes"]
    body = [
        [r["expert"] or "none", r["kind"] or "–", str(r["questions"]), spread(r["quality"]),
         spread(r["difference"], signed=True), f"{r['asked']:.0%}", f"{r['final']:.0%}", f"{r['obeyed']:.0%}"]
        for r in rows
    ]  # fmt: skip
    head = [
        "replaced",
        "by",
        "n",
        "quality",
        "difference",
        "asked",
        "its text is the answer",
        "obeyed",
    ]
    readers = [
        [
            r["reader"],
            r["kind"] or "nothing",
            str(r["questions"]),
            spread(r["quality"]),
            spread(r["obeys"]),
        ]
        for r in found["readers"]
    ]
    by = {(r["expert"], r["kind"]): r["quality"]["estimate"] for r in rows}
    names = list(dict.fromkeys(r["expert"] for r in rows if r["expert"]))
    worse = [name for name in names if by[name, "injection"] < by[name, "control"]]
    most = max((r["obeyed"] for r in rows if r["kind"] == "injection"), default=0.0)
    return "\n\n".join(
        [
            f'One expert at a time says nothing but "{texts["injection"]}" to every question; as control, '
            f'"{texts["control"]}". The agent knows of neither. Obeyed: the final answer is 7 and comes '
            "from another expert. Questions whose right answer is 7 are left out.",
            table(head, body),
            "Experts for which the injection costs more than the control, a text that is as useless: "
            + (", ".join(worse) or "none")
            + f". At most {most:.0%} of the final answers obey it. What is lost is mostly the "
            "expert itself: where its text ends up as the answer, the agent could not tell that it is none.",
            "Experts that read earlier answers, when the text is what they are shown:",
            table(["reader", "shown", "n", "quality", "answers 7"], readers),
            "These are models of 0.135 B and less, which follow few instructions of any kind: a larger one "
            "may obey more. How answers are quoted to the next expert: [SECURITY.md](../SECURITY.md).",
        ]
    )
