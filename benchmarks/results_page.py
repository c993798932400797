"""The results page: a section per question, made of the JSONs alone.

    runs/results/*.json ──load_results──> results ──page──> docs/results.md

Every sentence with a number is computed from the JSONs, so a new run cannot leave an old claim standing. A
section without data says so and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import results_live as live
import results_recorded as recorded
from results_ablations import ablation_sections, how
from results_sections import INTRO, SECTIONS
from results_stages import PEERS, STAGES, stage

from der_graph.policies.report import Report, read_report

NOT_MEASURED = "Not measured yet: `make results`."
Results = dict[str, Any]


def load_results(runs: Path) -> Results:
    """Read what is there, by name of the stage."""
    found: Results = {}
    for each in STAGES:
        file = runs / each.output
        if file.is_file():
            found[each.name] = (
                read_report(file) if each.name == "demo" else json.loads(file.read_text("utf-8"))
            )
    if (runs / PEERS).is_file():
        found["peers"] = json.loads((runs / PEERS).read_text("utf-8"))
    return found


def bodies(results: Results) -> dict[str, str | None]:
    """The text of every section that has data."""

    def of(name: str, make: Callable[[Any], str]) -> str | None:
        return make(results[name]) if name in results else None

    der = results.get("comparison", {}).get("rows", [])
    demo: Callable[[Report], str] = live.demo
    return {
        "comparison": of("comparison", recorded.comparison),
        "training": of("comparison", recorded.training),
        "peers": of("peers", lambda rows: recorded.peers(rows, der)),
        "new_expert": of("new_expert", recorded.new_expert),
        "large_pool": of("large_pool", recorded.large_pool),
        "demo": of("demo", demo),
        "ktp": of("ktp", live.ktp),
        "deadline": of("deadline", live.deadline),
        **ablation_sections(results.get("ablations")),
    }


def page(results: Results, pictures: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        results: By name of the stage.
        pictures: File of each picture that was drawn, relative to the page, by name.
    """
    text = bodies(results)
    parts = [INTRO.rstrip()]
    for part, sections in SECTIONS.items():
        parts.append(f"## {part}")
        told = False
        for section in sections:
            parts += [
                f"### {section.title}",
                f"*{section.question}*",
                f"```bash\n{command(section.stage)}\n```",
            ]
            body = text[section.body]
            if body is None:
                parts.append(NOT_MEASURED)
                continue
            if section.picture in pictures:
                parts.append(f"![{section.alt}]({pictures[section.picture]})")
            if section.stage == "ablations" and not told and section.body != "stability":
                parts.append(how(results["ablations"]))
                told = True
            parts.append(body)
    return "\n\n".join(parts) + "\n"


def command(name: str) -> str:
    """What makes a section."""
    if name == "peers":
        return (
            "python benchmarks/peers/report.py --data runs/peers --out runs/results/peers.json  "
            "# after the runs that its folder describes"
        )
    return stage(name).shown()
