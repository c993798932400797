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
import results_others as others
import results_recorded as recorded
from results_ablations import ablation_sections, how
from results_plan import HERE, PEERS, STAGES, stage
from results_sections import INTRO, SECTIONS
from results_text import shown, table

from der_graph.policies.evaluation import Report, read_report

NOT_MEASURED = "Not measured yet: `make results`."
MOST_MINUTES, MOST_GB = 60, 6
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
    peers = runs / PEERS if (runs / PEERS).is_file() else HERE / "peers" / "measured.json"
    if peers.is_file():
        found["peers"] = json.loads(peers.read_text("utf-8"))
    notes = {each.name: runs / f"{each.name}.meta.json" for each in STAGES if each.name in found}
    found["took"] = {
        name: json.loads(file.read_text("utf-8")) for name, file in notes.items() if file.is_file()
    }
    return found


def took(notes: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What measuring took; None if that is not known of any stage.

    Args:
        notes: What each stage noted.
    """
    known = {name: note for name, note in notes.items() if "seconds" in note}
    if not known:
        return None
    body = [
        [name, f"{note['seconds'] / 60:.1f}", shown(note.get("peak_gb"))]
        for name, note in known.items()
    ]
    parts = [table(["stage", "minutes", "peak, GB"], body)]
    minutes = sum(note["seconds"] for note in known.values()) / 60
    peaks = [note.get("peak_gb") for note in known.values()]
    cores = {note["cores"] for note in known.values()}
    runs = {note.get("run") for note in known.values()}
    on = f"on {cores.pop()} cores" if len(cores) == 1 else "on several machines"
    if len(known) == len(STAGES) and len(runs) == 1 and None not in (*runs, *peaks):
        peak = max(float(value) for value in peaks if value is not None)
        fits = "met" if minutes < MOST_MINUTES and peak < MOST_GB else "missed"
        parts.append(
            f"All stages, in one run, took {minutes:.0f} minutes {on}, peak {peak:.1f} GB (all processes "
            f"together). Target: under {MOST_MINUTES} minutes on 2 cores and under {MOST_GB} GB: **{fits}**."
        )
    else:
        parts.append(
            f"These {len(known)} of {len(STAGES)} stages took {minutes:.0f} minutes {on}, in several runs."
        )
    return "\n\n".join(parts)


def bodies(results: Results) -> dict[str, str | None]:
    """The text of every section that has data."""

    def of(name: str, make: Callable[[Any], str]) -> str | None:
        return make(results[name]) if name in results else None

    der = results.get("comparison", {}).get("rows", [])
    demo: Callable[[Report], str] = live.demo
    return {
        "comparison": of("comparison", recorded.comparison),
        "training": of("comparison", recorded.training),
        "peers": of("peers", lambda rows: others.peers(rows, der)),
        "new_expert": of("new_expert", others.new_expert),
        "large_pool": of("large_pool", others.large_pool),
        "demo": of("demo", demo),
        "ktp": of("ktp", live.ktp),
        "pairs": live.pairs(results["ktp"]) if "ktp" in results else None,
        "deadline": of("deadline", live.deadline),
        "injection": of("injection", live.injection),
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
    cost = took(results.get("took", {}))
    if cost is not None:
        parts += ["## What measuring took", cost]
    return "\n\n".join(parts) + "\n"


def command(name: str) -> str:
    """What makes a section."""
    if name == "peers":
        return (
            "python benchmarks/peers/report.py --data runs/peers --out runs/results/peers.json  "
            "# after the runs that its folder describes"
        )
    return stage(name).shown()
