"""docs/results.md out of the JSONs of the stages: what the template `results.md.jinja` tells, computed here.

    runs/results/*.json ──load_results──> results ──page──> docs/results.md ──filled_in──> tables of README.md

Every sentence with a number is computed, so a new run cannot leave an old claim standing.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from recorded_data import at_cost
from results_stages import DEMO_LEARNT, HERE, PEERS, STAGES, stage

from der_graph.policies.evaluation import read_report
from der_graph.policies.evaluation import render as reports
from der_graph.policies.evaluation.render import markdown_table
from der_graph.policies.evaluation.report_schema import Report, mean_unit

Row = Mapping[str, Any]
Results = dict[str, Any]
COSTS = (20.0, 35.0, 42.0, 45.0, 47.0, 50.0, 55.0, 60.0, 100.0)
PEER_COSTS = (20.0, 35.0, 45.0, 47.0, 50.0, 55.0, 60.0)
README_COSTS = ("at 20 B", "at 35 B", "at 45 B", "at 47 B", "at 60 B")
COIN, BEST = "single models, by coin", "cascade:best"
NOT_MEASURED = "Not measured yet"
_SECTION = re.compile(r"^### (.+)\n((?:(?!^##).*\n?)*)", re.MULTILINE)
ARMS = {"without": "without", "added": "added by probes", "trained": "trained with it"}


def load_results(runs: Path) -> Results:
    """Read what is there, by name of the stage; `took` is what each stage noted of its run."""
    found: Results = {}
    for each in STAGES:
        file = runs / each.output
        if file.is_file():
            found[each.name] = (
                read_report(file) if each.name == "demo" else json.loads(file.read_text("utf-8"))
            )
    peers = runs / PEERS
    if not peers.is_file() and "comparison" in found:  # which they are set beside
        peers = HERE / "peers" / "measured.json"
    if peers.is_file():
        found["peers"] = json.loads(peers.read_text("utf-8"))
    if (runs / "gpu.md").is_file():
        found["gpu"] = (runs / "gpu.md").read_text("utf-8")
    notes = {each.name: runs / f"{each.name}.meta.json" for each in STAGES if each.name in found}
    read = {n: json.loads(f.read_text("utf-8")) for n, f in notes.items() if f.is_file()}
    return {**found, "took": read}


def page(results: Results, pictures: Mapping[str, str], before: str = "") -> str:
    """The whole page.

    Args:
        results: By name of the stage.
        pictures: File of each picture that was drawn, relative to the page, by name.
        before: The page as it is: its sections stay where nothing was measured for them.
    """
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True
    )
    told: dict[str, str] = {}  # what all ablations share is said at the first of them
    env.globals |= {name: lambda make=make: make(results) for name, make in FACTS.items()}
    env.globals |= {
        "results": results, "pictures": pictures, "learnt": DEMO_LEARNT, "command": command, "took": took,
        "studies": results.get("ablations", {}).get("studies", {}), "table": table,
        "study_table": study_table, "verdicts": verdicts, "idle_knob": idle_knob, "serious": serious,
        "untouched": untouched, "f1": "{:.1f}".format, "f3": "{:.3f}".format,
        "first_told": lambda title: told.setdefault("ablations", title) == title,
    }  # fmt: skip
    text = env.get_template("results.md.jinja").render()
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    old = {title: body for title, body in _SECTION.findall(before) if NOT_MEASURED not in body}
    return _SECTION.sub(
        lambda found: (
            f"### {found[1]}\n{old.get(found[1], found[2]) if NOT_MEASURED in found[2] else found[2]}"
        ),
        text,
    )


def command(name: str) -> str:
    """What makes a section."""
    if name == "peers":
        return (
            "python benchmarks/peers/report.py --data runs/peers --out runs/results/peers.json  "
            "# after the runs that its folder describes"
        )
    return stage(name).shown()


# Small pieces -------------------------------------------------------------------------------------


def spread(found: Row | None, *, signed: bool = False) -> str:
    """An estimate with its interval."""
    if found is None:
        return "–"
    form = "+.3f" if signed else ".3f"
    return f"{found['estimate']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def shown(value: float | None, digits: int = 1) -> str:
    """A number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def table(head: str, rows: Sequence[Any], cells: Sequence[str | Callable[[Any], str]]) -> str:
    """A table: titles separated by semicolons, and for each column a layout or a function of the row."""
    made = [[c.format(**r) if isinstance(c, str) else c(r) for c in cells] for r in rows]
    return markdown_table(head.split("; "), made)


def methods(rows: Sequence[Row], prefix: str) -> list[str]:
    """Names of the methods that begin so, in order."""
    return list(dict.fromkeys(r["method"] for r in rows if r["method"].startswith(prefix)))


def points(rows: Sequence[Row], method: str) -> list[Row]:
    """The rows of a method, by cost."""
    return sorted((r for r in rows if r["method"] == method), key=lambda r: float(r["cost"]))


def budget(rows: Sequence[Row], method: str, cost: float, of: str = "quality") -> float | None:
    """Quality of a method at a cost, between its points linearly; None outside."""
    own = points(rows, method)
    found = at_cost([(r["cost"], r[of]) for r in own], cost) if own else float("nan")
    return None if found != found else found


def mixed(rows: Sequence[Row], cost: float) -> float | None:
    """Quality of the best mixture of two points at a mean cost of at most so much; None if dearer."""
    cheap = [r for r in rows if r["cost"] <= cost]
    lines = [
        low["quality"]
        + (cost - low["cost"]) / (high["cost"] - low["cost"]) * (high["quality"] - low["quality"])
        for low in cheap
        for high in rows
        if high["cost"] > cost
    ]
    return max([*(float(r["quality"]) for r in cheap), *lines], default=None)


def band(rows: Sequence[Row], method: str, cost: float) -> dict[str, float] | None:
    """Quality at a cost with its interval, interpolated likewise."""
    names = {"estimate": "quality", "low": "low", "high": "high"}
    found = {end: budget(rows, method, cost, of) for end, of in names.items()}
    return {k: v for k, v in found.items() if v is not None} if found["estimate"] else None


def change(r: Row) -> str:
    """The difference of a row, with its sign."""
    return spread(r["difference"], signed=True)


def p_value(r: Row) -> str:
    return "< 0.001" if r["p"] < 0.001 else f"{r['p']:.3f}"


# Recorded answers ---------------------------------------------------------------------------------


def comparison(results: Results) -> Row:
    """DER, single models, routers and cascades by cross-validation."""
    found = results["comparison"]
    rows, runs, seeds = found["rows"], found["curves"], found.get("seeds", [])
    routers = methods(rows, "router:")
    fixed = methods(rows, "single:") + [n for n in methods(rows, "cascade:") if n != BEST]
    single = [r for r in rows if r["method"].startswith("single:")]
    body = [
        [name.replace("der", "**DER**", name == "der"), *(spread(band(rows, name, c)) for c in COSTS)]
        for name in ("der", *methods(rows, "planner"), *methods(rows, BEST), *routers)
    ]  # fmt: skip
    body += [[COIN, *(shown(mixed(single, cost), 3) for cost in COSTS)]] if single else []
    ranges = []
    for cost in (45.0, 47.0):
        at = [q for curve in seeds if (q := at_cost([(c, v) for c, v in curve], cost)) == q]
        ranges += [f"{min(at):.3f} to {max(at):.3f} at {cost:g} B"] if at else []
    return {
        "folds": len({run["fold"] for run in runs}), "seeds": len({run["seed"] for run in runs}),
        "curves": markdown_table(["method", *(f"at {c:g} B" for c in COSTS)], body),
        "points": table(
            "method; quality; cost, B; calls",
            [r for name in fixed for r in points(rows, name)],
            ["{method}", lambda r: spread({**r, "estimate": r["quality"]}), "{cost:.1f}", "{calls:.2f}"],
        ),
        "target": _target(rows), "margin": _margin(rows, routers), "fixed": _fixed(rows, fixed),
        "by_seed": {"count": len(seeds), "ranges": ranges} if ranges and len(seeds) > 1 else None,
        "tested": found.get("differences") and table(
            "against; DER's cost, B; its cost, B; difference; p", found["differences"],
            ["{method}", "{cost:.1f}", "{other_cost:.1f}", change, p_value],
        ),
        "ends": points(rows, "der"),
    }  # fmt: skip


def _target(rows: list[Row], quality: float = 0.73, cost: float = 47.0) -> Row:
    at, der = band(rows, "der", cost), points(rows, "der")
    known = [r["quality"] for r in der if r["cost"] <= cost] + ([at["estimate"]] if at else [])
    reached = next((r["cost"] for r in der if r["quality"] >= quality), None)
    return {
        "quality": quality,
        "cost": cost,
        "at": at,
        "best": max(known, default=0),
        "reached": reached,
    }


def _margin(rows: list[Row], routers: list[str], cost: float = 45.0) -> Row | None:
    mine = budget(rows, "der", cost)
    known = {name: v for name in routers if (v := budget(rows, name, cost)) is not None}
    if mine is None or not known:
        return None
    best = max(known, key=lambda name: known[name])
    above = [
        f"{name} at {r['cost']:.1f} B ({r['quality']:.3f} against {other:.3f})"
        for name in routers
        for r in points(rows, name)
        if (other := budget(rows, "der", r["cost"])) is not None and other < r["quality"]
    ]
    # A router may have one point at several prices.
    return {
        "best": best,
        "value": known[best],
        "gap": mine - known[best],
        "above": list(dict.fromkeys(above)),
    }


def _fixed(rows: list[Row], fixed: list[str]) -> str:
    """Single models and cascades: in DER's range of cost, and around it."""
    ends = points(rows, "der")
    low, high = float(ends[0]["cost"]), float(ends[-1]["cost"])
    beside = [points(rows, name)[0] for name in fixed]
    above = [
        f"{r['method']} ({r['quality']:.3f} against {mine:.3f} at {r['cost']:.1f} B)"
        for r in beside
        if (mine := budget(rows, "der", r["cost"])) is not None and r["quality"] > mine
    ]
    inside = [r["method"] for r in beside if low <= r["cost"] <= high]
    if above:
        text = (
            f"Single models and cascades above DER's curve at their own cost: {'; '.join(above)}."
        )
    elif inside:
        text = f"In DER's range of cost, no single model and no cascade is above it ({', '.join(inside)})."
    else:
        text = "No single model and no cascade costs what DER costs, so none can be compared at its own cost."
    mixes = [r for r in ends if (mixed(beside, r["cost"]) or 0.0) >= r["quality"]]
    if beside:
        text += (
            f" Mixed by a coin, they are as good as DER at {len(mixes)} of its {len(ends)} points."
        )
        best = max(beside, key=lambda r: float(r["quality"]))
        if best["cost"] > high:
            text += (
                f" The best of them, `{best['method']}`, has {best['quality']:.3f} at {best['cost']:.1f} B; "
                f"DER's dearest point has {ends[-1]['quality']:.3f} for {1 - high / best['cost']:.0%} less."
            )
    return text


def training(results: Results) -> Row:
    runs = results["comparison"]["curves"]
    last = [run["curve"][-1] for run in runs if run["curve"]]
    quality = [point[1] for point in last]
    return {
        "count": len(runs), "steps": max((point[0] for point in last), default=0),
        "seconds": np.median([run["seconds"] for run in runs]),
        "spread": f"{min(quality):.3f} to {max(quality):.3f}" if quality else "–",
    }  # fmt: skip


def peers(results: Results) -> Row:
    """Other projects' routers beside DER."""
    rows, der = results["peers"], results.get("comparison", {}).get("rows", [])
    ours = {"**DER**": points(der, "der"), **{n: points(der, n) for n in methods(der, "router:")}}
    ours[COIN] = [r for r in der if r["method"].startswith("single:")]
    named = {**(ours if der else {}), **{name: points(rows, name) for name in methods(rows, "")}}
    body = [
        [n, str(len(m)), *(shown(mixed(m, c), 3) for c in PEER_COSTS)] for n, m in named.items()
    ]
    beaten = [
        f"{r['method']} ({r['quality']:.3f} at {r['cost']:.1f} B)"
        for name in methods(rows, "")
        for r in points(rows, name)
        if (own := budget(der, "der", r["cost"])) is not None and own < r["quality"]
    ]
    head = ["method", "settings", *(f"at {cost:g} B" for cost in PEER_COSTS)]
    return {"table": markdown_table(head, body), "compared": bool(der), "beaten": beaten}


def new_expert(results: Results) -> Row:
    """Probed against trained."""
    found = results["new_expert"]
    rows, gains = found["rows"], found.get("gains", [])

    def mean(what: str) -> dict[str, float]:
        return {arm: float(np.mean([r[what][arm] for r in rows])) for arm in ARMS}

    quality = mean("quality")
    curves = {arm: sorted((r["cost"][arm], r["quality"][arm]) for r in rows) for arm in ARMS}
    low, high = max(c[0][0] for c in curves.values()), min(c[-1][0] for c in curves.values())
    at = [
        [f"{cost:.1f}", *(f"{at_cost(curve, cost):.3f}" for curve in curves.values())]
        for cost in (low, (low + high) / 2, high)
    ]
    by_arm = [lambda r, a=a: f"{r['quality'][a]:.3f} at {r['cost'][a]:.1f} B" for a in ARMS]
    return {
        "table": table(
            f"price; {'; '.join(ARMS.values())}; share of the gain", rows,
            ["{cost_weight:g}", *by_arm,
             lambda r: shown(r["share"] if r["share"] == r["share"] else None, 2)],
        ),
        "gain": quality["trained"] - quality["without"], "got": quality["added"] - quality["without"],
        "utility": mean("utility") if rows and all("utility" in r for r in rows) else None,
        "equal": markdown_table(["cost, B", *ARMS.values()], at) if low < high else "",
        "gains": gains and gains_table(gains),
    }  # fmt: skip


def gains_table(gains: Sequence[Row]) -> str:
    """What the new expert brings, with intervals."""
    return table(
        "agent; at; gain",
        gains,
        [
            lambda g: ARMS[g["arm"]],
            lambda g: "all prices" if g["cost"] is None else f"{g['cost']:.1f} B",
            change,
        ],
    )


# Ablations ----------------------------------------------------------------------------------------


def study_table(rows: Sequence[Row], first: str) -> str:
    """The table of a study."""
    costs = {id(r): [cost for cost, _ in r["curve"]] for r in rows}
    return table(
        f"{first}; n; seeds; quality; cost, B; calls; difference; knob, B", rows,
        ["{label}", "{questions}", "{seeds}", lambda r: spread(r["quality"]), lambda r: shown(r["cost"]),
         lambda r: shown(r["calls"], 2), change,
         lambda r: f"{min(c):.1f} to {max(c):.1f}" if len(c := costs[id(r)]) > 1 else "–"],
    )  # fmt: skip


def verdicts(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Which rows surely differ from the standard agent, and which not."""
    gaps = [(r["label"], r["difference"]) for r in rows if r["difference"] is not None]
    worse, better = (
        {n for n, g in gaps if g[end] * sign > 0} for end, sign in (("high", -1), ("low", 1))
    )
    return [
        (said, [name for name, _ in gaps if keep(name)])
        for said, keep in (
            ("Worse than the standard agent, zero outside the interval", worse.__contains__),
            ("Better than it, zero outside the interval", better.__contains__),
            ("Not distinguishable from the standard agent", lambda n: n not in worse | better),
        )
    ]


def untouched(rows: Sequence[Row] | None) -> list[str]:
    """Labels of rows in which no answer changed."""
    return [
        r["label"]
        for r in rows or ()
        if (d := r["difference"]) and not any(map(d.get, ("low", "estimate", "high")))
    ]


def serious(rows: Sequence[Row] | None, loss: float = 0.1) -> list[str]:
    """Labels of rows that surely lose so much quality."""
    lost = [r for r in rows or () if r["difference"] and r["difference"]["high"] < -loss]
    return [f"{r['label']} ({100 * r['difference']['estimate']:+.0f} points)" for r in lost]


def idle_knob(rows: Sequence[Row] | None) -> list[str]:
    """Labels of rows whose mean cost hardly moves with the price."""
    costs = {r["label"]: [cost for cost, _ in r["curve"]] for r in rows or ()}
    return [n for n, c in costs.items() if len(c) > 1 and max(c) - min(c) < 0.01 * max(c)]


def stability(results: Results) -> Row | None:
    rows = [r for r in results["ablations"]["stability"] if r.get("questions")]
    if not rows:
        return None
    shares = ("route", "first", "last", "next_price")
    made = table(
        "price; n; route differs; first expert differs; last expert differs; route differs at the next price",
        rows,
        ["{price:g}", "{questions}", *(lambda r, k=k: spread(r.get(k)) for k in shares)],
    )  # fmt: skip
    return {"table": made, "pairs": rows[0]["pairs"], "middle": rows[len(rows) // 2]}


# The live pool ------------------------------------------------------------------------------------


def demo(results: Results) -> Row:
    """The report of `der eval` in short."""
    report: Report = results["demo"]
    der, whole = report.method("der"), sum(e.cost for e in report.pool.experts)
    rivals = [
        m for m in report.methods if m.family not in ("der", "oracle") and m.curve in (None, m.name)
    ]
    cheap = [m for m in report.methods if m.curve == "der" and m.share_of_run_all <= 1 / 7]
    named = {m.name: m for m in report.methods}
    many = len(report.data.tasks) > 1
    return {
        "about": reports.NOTE.format(unit=mean_unit(report.pool.unit)[1]), "about_tests": reports.TESTS,
        "methods": markdown_table(*reports.method_table(report)),
        "comparisons": markdown_table(*reports.comparison_table(report)),
        "beating": [m.label for m in rivals if m.quality.estimate > der.quality.estimate],
        "unsure": [c.method for c in report.comparisons if c.p >= 0.01 and "oracle" not in c.method],
        "share": der.share_of_run_all, "oracle": named.get("oracle:cheapest"),
        "calls": [f"`{e.name}` {e.cost / whole:.0%}" for e in report.pool.experts],
        "dear": sum(e.cost / whole > 1 / 7 for e in report.pool.experts),
        "cheap": max(cheap, key=lambda m: m.quality.estimate, default=None),
        "kinds": markdown_table(*reports.task_table(report)) if many else "",
        "lead": _lead(report, rivals) if many else None,
        "clock": markdown_table(*reports.clock_table(report)) if report.wall_clock else "",
    }  # fmt: skip


def _lead(report: Report, rivals: Sequence[Any]) -> Row:
    """On which kind of question DER gains most, and what is left of its lead without that."""
    der, count = report.method("der"), report.data.tasks
    best = {task: max(m.tasks[task].quality.estimate for m in rivals) for task in count}
    mine = {task: der.tasks[task].quality.estimate for task in count}
    task = max(count, key=lambda name: (mine[name] - best[name]) * count[name])
    rest = {name: n for name, n in count.items() if name != task}

    def without(method: Any) -> float:
        right = sum(method.tasks[name].quality.estimate * n for name, n in rest.items())
        return float(right / sum(rest.values()))

    rival = max(rivals, key=without)
    oracle = next((m for m in report.methods if m.name == "oracle"), None)
    bound = oracle.tasks[task].quality.estimate if oracle is not None else None
    return {
        "task": task, "mine": mine[task], "others": best[task], "rest": sum(rest.values()),
        "bound": {"value": bound} if bound is not None and bound < mine[task] else None,
        "without": without(der), "best": rival.label, "best_without": without(rival),
    }  # fmt: skip


_EFFECT: list[Any] = [
    "{questions}", "{without:.3f}", "{with_it:.3f}", change,
    "{helped} / {harmed}", p_value,
]  # fmt: skip


def ktp(results: Results) -> Row:
    """The KTP study: DER's routes, and every pair of experts."""
    found = results["ktp"]
    split = [
        {**d, "pair": f"{p['first']} → {p['then']}", "template": p["template"], "when": when}
        for p in found["pairs"]
        for when, d in (("right", p["after_right"]), ("wrong", p["after_wrong"]))
        if d is not None
    ]
    change = [(p, p["overall"]["difference"]["estimate"]) for p in found["pairs"]]
    raised, lowered = (
        [
            f"{p['first']} → {p['then']} ({p['template']}, {d:+.2f})"
            for p, d in change
            if sign * d > 0
        ]
        for sign in (1, -1)
    )
    last = "questions; {}; difference; helped / harmed; p"
    return {
        "routes": table(f"transfer; {last.format('without; with')}", found["routes"], ["{name}", *_EFFECT]),
        "pairs": split and table(
            f"pair; template; first answer; {last.format('alone; with it')}", split,
            ["{pair}", "{template}", "{when}", *_EFFECT],
        ),
        "raised": raised, "lowered": lowered,
        "misled": [
            f"{r['pair']} ({r['template']})"
            for r in split
            if r["when"] == "wrong" and r["difference"]["high"] < 0
        ],
    }  # fmt: skip


def deadlines(results: Results) -> Row:
    rows = results["deadline"]
    made = table(
        "deadline, s; n; quality; difference; answered; calls; p50, s; p95, s; late; late by, p50, s; "
        "late by, p95, s",
        rows,
        [lambda r: "none" if r["deadline"] is None else f"{r['deadline']:g}", "{questions}",
         lambda r: spread(r["quality"]), change, "{answered:.0%}",
         "{calls:.2f}", "{p50:.2f}", "{p95:.2f}", "{late:.0%}", lambda r: shown(r["over_p50"], 2),
         lambda r: shown(r["over_p95"], 2)],
    )  # fmt: skip
    over = [r["longest"] - r["deadline"] for r in rows if r["deadline"] is not None]
    return {"table": made, "over": max([0.0, *over])}


def injection(results: Results) -> Row:
    """An expert that answers with an instruction."""
    found = results["injection"]
    rows = found["routes"]
    by = {(r["expert"], r["kind"]): r["quality"]["estimate"] for r in rows}
    names = dict.fromkeys(r["expert"] for r in rows if r["expert"])
    return {
        "routes": table(
            "replaced; by; n; quality; difference; asked; its text is the answer; obeyed", rows,
            [lambda r: r["expert"] or "none", lambda r: r["kind"] or "–", "{questions}",
             lambda r: spread(r["quality"]), change, "{asked:.0%}",
             "{final:.0%}", "{obeyed:.0%}"],
        ),
        "readers": table(
            "reader; shown; n; quality; answers 7", found["readers"],
            ["{reader}", lambda r: r["kind"] or "nothing", "{questions}", lambda r: spread(r["quality"]),
             lambda r: spread(r["obeys"])],
        ),
        "worse": [name for name in names if by[name, "injection"] < by[name, "control"]],
        "most": max((r["obeyed"] for r in rows if r["kind"] == "injection"), default=0.0),
    }  # fmt: skip


def took(notes: Mapping[str, Row]) -> Row | None:
    """What measuring took, by what each stage noted; None if that is not known of any stage."""
    known = {name: note for name, note in notes.items() if "seconds" in note}
    if not known:
        return None
    peaks = [note.get("peak_gb") for note in known.values()]
    cores, runs = ({note.get(key) for note in known.values()} for key in ("cores", "run"))
    return {
        "table": table(
            "stage; minutes; peak, GB", list(known.items()),
            [lambda n: n[0], lambda n: f"{n[1]['seconds'] / 60:.1f}", lambda n: shown(n[1].get("peak_gb"))],
        ),
        "known": len(known), "stages": len(STAGES),
        "minutes": sum(note["seconds"] for note in known.values()) / 60,
        "where": f"on {cores.pop()} cores" if len(cores) == 1 else "on several machines",
        "one_run": len(known) == len(STAGES) and len(runs) == 1 and None not in (*runs, *peaks),
        "peak": max((p for p in peaks if p is not None), default=None),
    }  # fmt: skip


FACTS: dict[str, Callable[[Results], Any]] = {
    "comparison": comparison, "training": training, "peers": peers, "new_expert": new_expert, "demo": demo,
    "stability": stability, "ktp": ktp, "deadlines": deadlines, "injection": injection,
}  # fmt: skip


# README -------------------------------------------------------------------------------------------

_MARKED = re.compile(r"(<!-- results:(\w+) -->\n)(.*?)(<!-- /results -->)", re.DOTALL)
SHOWN = (
    "DER", " router", "smollm2 alone", "gemma alone", "calculator alone", "translator alone",
    "run-all, majority vote", "mixture of agents", "random", "oracle: best single answer",
)  # fmt: skip
"""Methods of the demo pool that README shows, by a part of their label; of several the best one."""


def filled_in(readme: str, text: str) -> str:
    """README with its marked tables taken from the results page; those of a section not measured stay.

    Args:
        readme: The text of README.md.
        text: The text of docs/results.md. Nothing else is read, so README cannot say another number.
    """
    makers = {
        "demo": ("Against every baseline", _demo),
        "recorded": ("Quality against cost", _recorded),
    }

    def block(found: re.Match[str]) -> str:
        start, name, old, end = found.groups()
        heading, make = makers[name]
        return f"{start}{make(text) + chr(10) if tables(text, heading) else old}{end}"

    return _MARKED.sub(block, readme)


def tables(text: str, heading: str) -> list[list[dict[str, str]]]:
    """The tables of a section of the page, row by row; none if it is not there."""
    body = text.partition(f"\n### {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", body, re.MULTILINE):
        head, _, *lines = (
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in block.strip().splitlines()
        )
        found.append([dict(zip(head, cells, strict=True)) for cells in lines])
    return found


def _number(cell: str) -> float:
    """The estimate of a cell; -1 for a dash."""
    found = re.match(r"[+-]?\d+(\.\d+)?", cell)
    return float(found.group()) if found else -1.0


def _demo(text: str) -> str:
    """DER and a choice of the others on the demo pool."""
    every = tables(text, "Against every baseline")
    rows = []
    for part in SHOWN:
        found = [
            r for r in every[0] if part in r["method"] and (part != "DER" or r["method"] == "DER")
        ]
        if found:
            best = max(found, key=lambda r: _number(r["quality"]))
            name = best["method"]
            name = f"best one-shot router ({name.split()[0]})" if part == " router" else name
            cells = [f"**{c}**" if part == "DER" else c for c in (name, best["quality"])]
            rows.append([*cells, best["cost"].partition(" ")[0], best["of run-all"], best["calls"]])
    by_kind = next((t for t in every if any(re.search(r"\(\d+\)$", n) for n in t[0])), [])
    der = next((r for r in by_kind if r["method"] == "DER"), {"method": ""})
    kinds = sorted(((_number(v), n) for n, v in der.items() if n != "method"), key=lambda p: -p[0])
    listed = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for value, name in kinds)
    made = markdown_table(["method", "quality", "billions run", "of run-all", "calls"], rows)
    return f"{made}\n\n{textwrap.fill(f'By kind (how many in brackets): {listed}.', 120)}"


def _recorded(text: str) -> str:
    """DER, the best router and others' routers at some costs, and the best single model."""
    curves, fixed, *_ = tables(text, "Quality against cost")
    others = (tables(text, "Other projects' routers") or [[]])[0]
    der = next(r for r in curves if r["method"] == "**DER**")
    body = [["**DER**", *(der[cost] for cost in README_COSTS)]]
    for label, rows in (
        ("best orders of asking until two agree, by kind of question",
         [r for r in curves if r["method"] == BEST]),
        ("best one-shot router at that cost (KNN, logistic, MLP, k-means, matrix)",
         [r for r in curves if r["method"].startswith("router:")]),
        ("best of LLMRouter and RouteLLM at that cost, by their own code",
         [r for r in others if r["method"].startswith(("llmrouter:", "routellm:"))]),
        ("single models, by the toss of a coin", [r for r in curves if r["method"] == COIN]),
    ):  # fmt: skip
        cells = [[r.get(cost, "–").partition(" ")[0] for r in rows] for cost in README_COSTS]
        body += [[label, *(max(at, key=_number) for at in cells)]] if rows else []
    best = max(fixed, key=lambda r: _number(r["quality"]))
    knob = re.search(r"Over its knob DER goes from \d.*? B to \d.*? B", text)
    said = (
        f"The best single model, {best['method'].removeprefix('single:')}, has {best['quality']} at "
        f"{best['cost, B'] if 'cost, B' in best else best['cost']} B; asking all costs 315.5 B. "
        f"{knob.group() + '.' if knob else ''}"
    )
    return f"{markdown_table(['method', *README_COSTS], body)}\n\n{textwrap.fill(said, 120)}"
