"""docs/results.md out of the JSONs of the stages: what is computed for the template `results.md.jinja`.

    runs/results/*.json ──load_results──> results ──page──> docs/results.md ──filled_in──> tables of README.md

The template has the words and the columns of each table; here are the numbers behind them. Every sentence
with a number is computed, so a new run cannot leave an old claim standing.
"""

from __future__ import annotations

import json
import re
import string
import textwrap
from collections import defaultdict
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
ARMS = {"without": "without", "added": "added by probes", "trained": "trained with it"}
_SECTION = re.compile(r"^### (.+)\n((?:(?!^##).*\n?)*)", re.MULTILINE)


def load_results(runs: Path) -> Results:
    """Read what is there, by name of the stage; `took` is what each stage noted of its run."""
    files = {each.name: runs / each.output for each in STAGES}
    found: Results = {
        name: read_report(file) if name == "demo" else json.loads(file.read_text("utf-8"))
        for name, file in files.items() if file.is_file()
    }  # fmt: skip
    notes = {name: runs / f"{name}.meta.json" for name in found}
    peers = runs / PEERS
    if not peers.is_file() and "comparison" in found:  # which they are set beside
        peers = HERE / "peers" / "measured.json"
    if peers.is_file():
        found["peers"] = json.loads(peers.read_text("utf-8"))
    if (runs / "gpu.md").is_file():
        found["gpu"] = (runs / "gpu.md").read_text("utf-8")
    took = {n: json.loads(file.read_text("utf-8")) for n, file in notes.items() if file.is_file()}
    return {**found, "took": took}


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
    env.filters["show"] = Show().format_field
    env.globals |= {
        "results": results, "pictures": pictures, "learnt": DEMO_LEARNT, "stages": len(STAGES), "arms": ARMS,
        "command": lambda name: PEERS_COMMAND if name == "peers" else stage(name).shown(),
        "table": table, "markdown": markdown_table, "facts": lambda name: FACTS[name](results),
        "labels": labels, "studies": results.get("ablations", {}).get("studies", {}),
        "first_told": lambda title: told.setdefault("ablations", title) == title,
    }  # fmt: skip
    text = env.get_template("results.md.jinja").render()
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    empty = "Not measured yet"
    old = {title: body for title, body in _SECTION.findall(before) if empty not in body}

    def section(found: re.Match[str]) -> str:
        title, body = found.groups()
        return f"### {title}\n{old.get(title, body) if empty in body else body}"

    return _SECTION.sub(section, text)


PEERS_COMMAND = (
    "python benchmarks/peers/report.py --data runs/peers --out runs/results/peers.json  "
    "# after the runs that its folder describes"
)


# Tables -------------------------------------------------------------------------------------------


class Show(string.Formatter):
    """`str.format` for rows of JSON: what is missing is a dash, or what follows `|` in the layout.

    An estimate has its interval, and signs for `+`; `p` is a p value, `range` the costs of a curve.
    """

    def get_value(self, key: Any, args: Any, kwargs: Any) -> Any:
        """The value of a name; None if the row has none."""
        return kwargs.get(key)

    def format_field(self, value: Any, format_spec: str) -> str:
        """One value."""
        spec, _, absent = format_spec.partition("|")
        if value is None or value != value or (spec == "range" and len(value) < 2):
            return absent or "–"
        if isinstance(value, Mapping):
            estimate, *ends = (f"{value[k]:{spec}.3f}" for k in ("estimate", "low", "high"))
            return f"{estimate} [{', '.join(ends)}]"
        if spec == "range":
            return f"{min(value)[0]:.1f} to {max(value)[0]:.1f}"
        if spec == "p":
            return "< 0.001" if value < 0.001 else f"{value:.3f}"
        return format(value, spec or (".3f" if isinstance(value, float) else ""))


def table(rows: Sequence[Row], columns: str = "") -> str:
    """A table of rows.

    Args:
        rows: What was measured, by name.
        columns: `title: layout | title: layout`, with layouts for `Show`; without, all that the rows have.
    """
    columns = columns or " | ".join(f"{name}: {{{name}}}" for name in rows[0])
    head, layouts = zip(*(each.split(": ", 1) for each in columns.split(" | ")), strict=True)
    made = [[Show().vformat(layout, (), row) for layout in layouts] for row in rows]
    return markdown_table(head, made)


# Points of methods --------------------------------------------------------------------------------


def grouped(rows: Sequence[Row], prefix: str = "") -> dict[str, list[Row]]:
    """The points of the methods whose names begin so, in order; each by cost."""
    names = dict.fromkeys(r["method"] for r in rows if r["method"].startswith(prefix))
    by_cost = sorted(rows, key=lambda r: float(r["cost"]))
    return {name: [r for r in by_cost if r["method"] == name] for name in names}


def budget(own: Sequence[Row], cost: float, of: str = "quality") -> float | None:
    """Quality of a method's points at a cost, between them linearly; None outside."""
    found = at_cost([(r["cost"], r[of]) for r in own], cost) if own else float("nan")
    return None if found != found else found


def band(own: Sequence[Row], cost: float) -> dict[str, Any] | None:
    """Quality at a cost with its interval, interpolated likewise."""
    ends = {"estimate": "quality", "low": "low", "high": "high"}
    found = {end: budget(own, cost, of) for end, of in ends.items()}
    return found if found["estimate"] else None


def mixed(rows: Sequence[Row], cost: float) -> float | None:
    """Quality of the best mixture of two points at a mean cost of at most so much; None if dearer."""
    cheap = [(float(r["cost"]), float(r["quality"])) for r in rows if r["cost"] <= cost]
    dear = [(float(r["cost"]), float(r["quality"])) for r in rows if r["cost"] > cost]
    lines = [q + (cost - c) / (top - c) * (best - q) for c, q in cheap for top, best in dear]
    return max([*(q for _, q in cheap), *lines], default=None)


def above(der: Sequence[Row], others: Mapping[str, Sequence[Row]]) -> list[Row]:
    """The points of others above DER's curve at their own cost; `der` is what DER has there."""
    own = [(r, budget(der, r["cost"])) for mine in others.values() for r in mine]
    return [{**r, "der": der} for r, der in own if der is not None and der < r["quality"]]


# What the template asks for -----------------------------------------------------------------------


def comparison(results: Results) -> Row:
    """DER, single models, routers and cascades by cross-validation."""
    found = results["comparison"]
    rows, runs, seeds = found["rows"], found["curves"], found.get("seeds", [])
    by, routers, single = (grouped(rows, prefix) for prefix in ("", "router:", "single:"))
    der = by["der"]
    ways = {"**DER**": der, **grouped(rows, "planner"), **grouped(rows, BEST), **routers}
    curves: list[Row] = [
        {"method": n, **{f"at {c:g} B": band(own, c) for c in COSTS}} for n, own in ways.items()
    ]
    if single:
        coin = {f"at {c:g} B": mixed([r for own in single.values() for r in own], c) for c in COSTS}
        curves.append({"method": COIN, **coin})
    fixed = {n: own for n, own in {**single, **grouped(rows, "cascade:")}.items() if n != BEST}
    beside = [own[0] for own in fixed.values()]
    at, mine = band(der, 47.0), budget(der, 45.0)
    known = {n: v for n, own in routers.items() if (v := budget(own, 45.0)) is not None}
    best = max(known, key=lambda n: known[n], default="")
    ranges = []
    for cost in (45.0, 47.0):
        each = [q for curve in seeds if (q := at_cost([(c, v) for c, v in curve], cost)) == q]
        ranges += [f"{min(each):.3f} to {max(each):.3f} at {cost:g} B"] if each else []
    last = [run["curve"][-1] for run in runs if run["curve"]]
    return {
        "folds": len({run["fold"] for run in runs}), "seeds": len({run["seed"] for run in runs}),
        "curves": curves, "der": der, "tested": found.get("differences"),
        "points": [{**r, "quality": {**r, "estimate": r["quality"]}} for own in fixed.values() for r in own],
        "at": at, "reached": next((r["cost"] for r in der if r["quality"] >= 0.73), None),
        "best": max([r["quality"] for r in der if r["cost"] <= 47] + ([at["estimate"]] if at else [0])),
        "ranges": ranges if len(seeds) > 1 else [], "seeds_seen": len(seeds),
        "router": best, "router_has": known.get(best),
        "gap": mine - known[best] if mine is not None and best else None,
        "routers_above": above(der, routers), "above": above(der, {r["method"]: [r] for r in beside}),
        "inside": [r["method"] for r in beside if der[0]["cost"] <= r["cost"] <= der[-1]["cost"]],
        "mixes": sum((mixed(beside, r["cost"]) or 0.0) >= r["quality"] for r in der),
        "dearest": max(beside, key=lambda r: float(r["quality"]), default=None),
        "trainings": len(runs), "steps": max((steps for steps, *_ in last), default=0),
        "seconds": np.median([run["seconds"] for run in runs]), "ends": [run[1] for run in last],
    }  # fmt: skip


def peers(results: Results) -> Row:
    """Other projects' routers beside DER."""
    theirs, rows = grouped(results["peers"]), results.get("comparison", {}).get("rows", [])
    der = grouped(rows).get("der", [])
    ways = {"**DER**": der, **grouped(rows, "router:")} if rows else {}
    ways |= {COIN: [r for r in rows if r["method"].startswith("single:")]} if rows else {}
    named = {**ways, **theirs}
    costs = {n: {f"at {c:g} B": mixed(own, c) for c in PEER_COSTS} for n, own in named.items()}
    curves = [{"method": n, "settings": len(own), **costs[n]} for n, own in named.items()]
    return {"curves": curves, "compared": bool(rows), "above": above(der, theirs)}


def new_expert(results: Results) -> Row:
    """Probed against trained: means over the prices, and quality where all three cost the same."""
    rows = results["new_expert"]["rows"]
    curves = {arm: sorted((r["cost"][arm], r["quality"][arm]) for r in rows) for arm in ARMS}
    low, high = max(c[0][0] for c in curves.values()), min(c[-1][0] for c in curves.values())
    ends = (low, (low + high) / 2, high) if low < high else ()

    def mean(what: str) -> dict[str, float]:
        return {arm: float(np.mean([r[what][arm] for r in rows])) for arm in ARMS}

    quality = mean("quality")
    return {
        "gain": quality["trained"] - quality["without"], "got": quality["added"] - quality["without"],
        "utility": mean("utility") if all("utility" in r for r in rows) else None,
        "equal": [{"cost": c, **{arm: at_cost(curve, c) for arm, curve in curves.items()}} for c in ends],
    }  # fmt: skip


def labels(rows: Sequence[Row] | None) -> dict[str, list[str]]:
    """Labels of a study's rows by what they say of it; the names are those that the template asks for."""
    found: dict[str, list[str]] = defaultdict(list)
    for r in rows or ():
        label, gap, costs = r["label"], r["difference"], [cost for cost, _ in r["curve"]]
        if len(costs) > 1 and max(costs) - min(costs) < 0.01 * max(costs):
            found["idle"].append(label)
        if gap is not None:
            verdict = "worse" if gap["high"] < 0 else "better" if gap["low"] > 0 else "unsure"
            found[verdict].append(label)
            if not any(gap[end] for end in ("low", "estimate", "high")):
                found["untouched"].append(label)
            if gap["high"] < -0.1:
                found["serious"].append(f"{label} ({100 * gap['estimate']:+.0f} points)")
    return found


def demo(results: Results) -> Row:
    """The report of `der eval` in short."""
    report: Report = results["demo"]
    whole, der = sum(e.cost for e in report.pool.experts), report.method("der")
    rivals = [
        m for m in report.methods if m.family not in ("der", "oracle") and m.curve in (None, m.name)
    ]
    cheap = [m for m in report.methods if m.curve == "der" and m.share_of_run_all <= 1 / 7]
    return {
        "about": reports.NOTE.format(unit=mean_unit(report.pool.unit)[1]), "reports": reports, "der": der,
        "beating": [m.label for m in rivals if m.quality.estimate > der.quality.estimate],
        "unsure": [c.method for c in report.comparisons if c.p >= 0.01 and "oracle" not in c.method],
        "oracle": next((m for m in report.methods if m.name == "oracle:cheapest"), None),
        "calls": [f"`{e.name}` {e.cost / whole:.0%}" for e in report.pool.experts],
        "dear": sum(e.cost / whole > 1 / 7 for e in report.pool.experts),
        "cheap": max(cheap, key=lambda m: m.quality.estimate, default=None),
        "lead": lead(report, rivals) if len(report.data.tasks) > 1 else None,
    }  # fmt: skip


def lead(report: Report, rivals: Sequence[Any]) -> Row:
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
    bound = [m.tasks[task].quality.estimate for m in report.methods if m.name == "oracle"]
    return {
        "task": task, "mine": mine[task], "others": best[task], "rest": sum(rest.values()),
        "bound": [value for value in bound if value < mine[task]],
        "without": without(der), "best": rival.label, "best_without": without(rival),
    }  # fmt: skip


def pairs(results: Results) -> Row:
    """Every pair of experts in the KTP study, split by whether the first one was right."""
    found = results["ktp"]["pairs"]
    split = [
        {**d, "pair": f"{p['first']} → {p['then']}", "template": p["template"], "when": when}
        for p in found
        for when, d in (("right", p["after_right"]), ("wrong", p["after_wrong"]))
        if d is not None
    ]
    changes = [(p, p["overall"]["difference"]["estimate"]) for p in found]
    raised, lowered = (
        [f"{p['first']} → {p['then']} ({p['template']}, {d:+.2f})" for p, d in changes if sign * d > 0]
        for sign in (1, -1)
    )  # fmt: skip
    wrong = [r for r in split if r["when"] == "wrong" and r["difference"]["high"] < 0]
    misled = [f"{r['pair']} ({r['template']})" for r in wrong]
    return {"split": split, "raised": raised, "lowered": lowered, "misled": misled}


def injection(results: Results) -> Row:
    """Which experts an instruction among the answers harms more than a useless text."""
    rows = results["injection"]["routes"]
    by = {(r["expert"], r["kind"]): r["quality"]["estimate"] for r in rows}
    names = dict.fromkeys(r["expert"] for r in rows if r["expert"])
    return {
        "worse": [name for name in names if by[name, "injection"] < by[name, "control"]],
        "most": max((r["obeyed"] for r in rows if r["kind"] == "injection"), default=0.0),
    }


def attacks(results: Results) -> Row:
    """The attack suite: what the defence changes, in all and by family."""
    rows = results["attacks"]["rows"]
    families = [r for r in rows if r["reader"] == "all" and r["family"] not in ("all", "control")]
    (whole,) = (r for r in rows if r["reader"] == r["family"] == "all")

    def verdict(gap: Mapping[str, float]) -> str:
        unsure = gap["low"] <= 0 <= gap["high"]
        return "makes no difference that can be told from chance" if unsure else (
            "raises the rate" if gap["low"] > 0 else "lowers the rate"
        )  # fmt: skip

    def silence(r: Row) -> str:
        counts = ", ".join(str(r[name]["failed"]) for name in ("defended", "tokens", "nothing"))
        return f"{r['reader']} {counts} of {r['asked']}"

    def differing(sign: int) -> list[str]:
        gaps = [(r["family"], sign * r["tokens_more"]["estimate"]) for r in families]
        return [name for name, gap in gaps if gap > 0]

    return {
        "rows": rows, "families": families, "all": whole, "helped": differing(1), "worse": differing(-1),
        "control": next(r for r in rows if r["family"] == "control"),
        "silent": [silence(r) for r in rows if r["family"] == "all" and r["reader"] != "all"],
        **{name: verdict(whole[f"{name}_more"]) for name in ("tokens", "nothing")},
    }  # fmt: skip


def deadline(results: Results) -> float:
    """By how many seconds the latest request was late."""
    ends = [(r["longest"], r["deadline"]) for r in results["deadline"] if r["deadline"] is not None]
    return max([0.0, *(float(longest - end) for longest, end in ends)])


def took(results: Results) -> Row | None:
    """What measuring took, by what each stage noted; None if that is not known of any stage."""
    notes = results.get("took", {})
    known = [{"peak_gb": None, **n, "stage": k} for k, n in notes.items() if "seconds" in n]
    if not known:
        return None
    cores, runs, peaks = ([n.get(key) for n in known] for key in ("cores", "run", "peak_gb"))
    one_run = len(known) == len(STAGES) and len(set(runs)) == 1 and None not in (*runs, *peaks)
    return {
        "known": [{**n, "minutes": n["seconds"] / 60} for n in known],
        "where": f"on {cores[0]} cores" if len(set(cores)) == 1 else "on several machines",
        "one_run": one_run, "peak": max((p for p in peaks if p is not None), default=None),
    }  # fmt: skip


FACTS: dict[str, Callable[[Results], Any]] = {
    make.__name__: make
    for make in (comparison, peers, new_expert, demo, pairs, deadline, injection, attacks, took)
}


# README -------------------------------------------------------------------------------------------

_MARKED = re.compile(r"(<!-- results:(\w+) -->\n)(.*?)(<!-- /results -->)", re.DOTALL)
DEMO_SHOWN = (
    "DER", " router", "smollm2 alone", "gemma alone", "calculator alone", "translator alone",
    "run-all, majority vote", "mixture of agents", "random", "oracle: best single answer",
)  # fmt: skip
"""Methods of the demo pool that README shows, by a part of their label; of several the best one."""
RECORDED_SHOWN = {
    "best orders of asking until two agree, by kind of question": (BEST,),
    "best one-shot router at that cost (KNN, logistic, MLP, k-means, matrix)": ("router:",),
    "best of LLMRouter and RouteLLM at that cost, by their own code": ("llmrouter:", "routellm:"),
    "single models, by the toss of a coin": (COIN,),
}
"""What README calls methods of the recorded pool, and how their names begin; at each cost the best one."""


def filled_in(readme: str, text: str) -> str:
    """README with its marked tables taken from the results page; those of a section not measured stay.

    Args:
        readme: The text of README.md.
        text: The text of docs/results.md. Nothing else is read, so README cannot say another number.
    """

    def block(found: re.Match[str]) -> str:
        heading, make = _BLOCKS[found[2]]
        if not tables(text, heading):
            return found[0]
        head, rows, words = make(text)
        return f"{found[1]}{markdown_table(head, rows)}\n\n{textwrap.fill(words, 120)}\n{found[4]}"

    return _MARKED.sub(block, readme)


def tables(text: str, heading: str) -> list[list[dict[str, str]]]:
    """The tables of a section of the page, row by row; none if it is not there."""
    body = re.split(r"\n###? ", text.partition(f"\n### {heading}\n")[2])[0]
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", body, re.MULTILINE):
        lines = [[c.strip() for c in line.strip("|").split("|")] for line in block.splitlines()]
        found.append([dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]])
    return found


def _number(cell: str) -> float:
    """The estimate of a cell; -1 for a dash."""
    found = re.match(r"[+-]?\d+(\.\d+)?", cell)
    return float(found.group()) if found else -1.0


def _demo(text: str) -> tuple[list[str], list[list[str]], str]:
    """DER and a choice of the others on the demo pool."""
    methods, *others = tables(text, "Against every baseline")
    rows = []
    for part in DEMO_SHOWN:
        found = [
            r for r in methods if r["method"] == part or (part in r["method"] and part != "DER")
        ]
        if found:
            best = max(found, key=lambda r: _number(r["quality"]))
            name = best["method"]
            name = f"best one-shot router ({name.split()[0]})" if part == " router" else name
            cells = [f"**{c}**" if part == "DER" else c for c in (name, best["quality"])]
            rows.append([*cells, best["cost"].partition(" ")[0], best["of run-all"], best["calls"]])
    by_kind = [t for t in others if any(re.search(r"\(\d+\)$", name) for name in t[0])]
    der = [r for r in by_kind[0] if r["method"] == "DER"] if by_kind else []
    kinds = [(_number(v), n.replace("_", " ")) for r in der for n, v in r.items() if n != "method"]
    listed = ", ".join(f"{n} {v:.2f}" for v, n in sorted(kinds, key=lambda p: -p[0]))
    head = ["method", "quality", "billions run", "of run-all", "calls"]
    return head, rows, f"By kind (how many in brackets): {listed}."


def _recorded(text: str) -> tuple[list[str], list[list[str]], str]:
    """DER, the best router and others' routers at some costs, and the best single model."""
    curves, fixed, *_ = tables(text, "Quality against cost")
    ours = {r["method"] for r in curves}
    others = (tables(text, "Other projects' routers") or [[]])[0]
    every = [*curves, *(r for r in others if r["method"] not in ours)]
    der = next(r for r in curves if r["method"] == "**DER**")
    rows = [["**DER**", *(der[cost] for cost in README_COSTS)]]
    for label, starts in RECORDED_SHOWN.items():
        found = [r for r in every if r["method"].startswith(starts)]
        cells = [[r.get(cost, "–").partition(" ")[0] for r in found] for cost in README_COSTS]
        rows += [[label, *(max(at, key=_number) for at in cells)]] if found else []
    best = max(fixed, key=lambda r: _number(r["quality"]))
    knob = re.search(r"Over its knob DER goes from \d.*? B to \d.*? B", text)
    words = (
        f"The best single model, {best['method'].removeprefix('single:')}, has {best['quality']} at "
        f"{best['cost, B']} B; asking all costs 315.5 B. {knob.group() + '.' if knob else ''}"
    )
    return ["method", *README_COSTS], rows, words


_BLOCKS = {
    "demo": ("Against every baseline", _demo),
    "recorded": ("Quality against cost", _recorded),
}
