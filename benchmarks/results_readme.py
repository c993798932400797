"""The tables of README.md that are taken from docs/results.md, between marks; nothing but that page is read.

    docs/results.md ──tables──> rows ──BLOCKS──> README.md between <!-- results:NAME --> and <!-- /results -->

So README cannot say another number than the page, and a test can tell that it does not.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence

from results_text import table

Row = dict[str, str]
_MARKED = re.compile(r"(<!-- results:(\w+) -->\n)(.*?)(<!-- /results -->)", re.DOTALL)
COSTS = ("at 20 B", "at 35 B", "at 45 B", "at 47 B", "at 60 B")
SHOWN = (
    "DER",
    " router",
    "smollm2 alone",
    "gemma alone",
    "calculator alone",
    "translator alone",
    "run-all, majority vote",
    "mixture of agents",
    "random",
    "oracle: best single answer",
)
"""Methods of the demo pool, by a part of their label; of several the best one."""


def tables(page: str, heading: str) -> list[list[Row]]:
    """The tables of a section; none if it is not there.

    Args:
        page: docs/results.md.
        heading: Of the section.
    """
    body = page.partition(f"\n### {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", body, re.MULTILINE):
        head, _, *lines = (_cells(line) for line in block.strip().splitlines())
        found.append([dict(zip(head, cells, strict=True)) for cells in lines])
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _number(cell: str) -> float:
    """The estimate of a cell; -1 for a dash."""
    found = re.match(r"[+-]?\d+(\.\d+)?", cell)
    return float(found.group()) if found else -1.0


def demo(page: str) -> str:
    """DER and a choice of the others on the demo pool."""
    methods = tables(page, "Against every baseline")[0]
    rows = []
    for part in SHOWN:
        found = [
            row
            for row in methods
            if part in row["method"] and (part != "DER" or row["method"] == "DER")
        ]
        if not found:
            continue
        best = max(found, key=lambda row: _number(row["quality"]))
        name = (
            f"best one-shot router ({best['method'].split()[0]})"
            if part == " router"
            else best["method"]
        )
        cost = best["cost"].partition(" ")[0]
        cells = [name, best["quality"], cost, best["of run-all"], best["calls"]]
        rows.append([f"**{cell}**" if part == "DER" else cell for cell in cells[:2]] + cells[2:])
    der = next(row for row in _by_kind(page) if row["method"] == "DER")
    by_kind = sorted(
        ((_number(value), name) for name, value in der.items() if name != "method"),
        key=lambda p: -p[0],
    )
    listed = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for value, name in by_kind)
    return "\n\n".join(
        [
            table(["method", "quality", "billions run", "of run-all", "calls"], rows),
            textwrap.fill(f"By kind (how many in brackets): {listed}.", 120),
        ]
    )


def _by_kind(page: str) -> list[Row]:
    """The table with a column for each kind of question."""
    every = tables(page, "Against every baseline")
    return next(
        (rows for rows in every if any(re.search(r"\(\d+\)$", name) for name in rows[0])),
        [{"method": "DER"}],
    )


def recorded(page: str) -> str:
    """DER, the best router and others' routers at some costs, and the best single model."""
    curves, fixed, *_ = tables(page, "Quality against cost")
    others = (
        tables(page, "Other projects' routers")[0]
        if tables(page, "Other projects' routers")
        else []
    )
    named = {row["method"].strip("*"): row for row in curves}
    routers = [row for name, row in named.items() if name.startswith("router:")]
    peers = [row for row in others if row["method"].startswith(("llmrouter:", "routellm:"))]
    body = [["**DER**", *(named["DER"][cost] for cost in COSTS)]]
    ordered = [named["cascade:best"]] if "cascade:best" in named else []
    body += [
        [label, *(_best(rows, cost) for cost in COSTS)]
        for label, rows in (
            ("best orders of asking until two agree, by kind of question", ordered),
            ("best one-shot router at that cost (KNN, logistic, MLP, k-means, matrix)", routers),
            ("best of LLMRouter and RouteLLM at that cost, by their own code", peers),
            (
                "single models, by the toss of a coin",
                [r for r in curves if "by coin" in r["method"]],
            ),
        )
        if rows
    ]
    best = max(fixed, key=lambda row: _number(row["quality"]))
    knob = re.search(r"Over its knob DER goes from \d.*? B to \d.*? B", page)
    said = (
        f"The best single model, {best['method'].removeprefix('single:')}, has {best['quality']} at "
        f"{best['cost, B']} B; asking all costs 315.5 B. {knob.group() + '.' if knob else ''}"
    )
    return "\n\n".join([table(["method", *COSTS], body), textwrap.fill(said, 120)])


def _best(rows: Sequence[Row], column: str) -> str:
    known = [row[column].partition(" ")[0] for row in rows if _number(row.get(column, "–")) >= 0]
    return max(known, key=_number, default="–")


BLOCKS: dict[str, Callable[[str], str]] = {"demo": demo, "recorded": recorded}


def filled_in(readme: str, page: str) -> str:
    """README with its marked blocks made anew; a block whose section was not measured stays.

    Args:
        readme: The text of README.md.
        page: The text of docs/results.md.
    """
    headings = {"demo": "Against every baseline", "recorded": "Quality against cost"}

    def block(found: re.Match[str]) -> str:
        start, name, old, end = found.groups()
        new = f"{BLOCKS[name](page)}\n" if tables(page, headings[name]) else old
        return f"{start}{new}{end}"

    return _MARKED.sub(block, readme)
