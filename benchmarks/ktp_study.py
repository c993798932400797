"""What the Knowledge Transfer Prompt is worth on a live pool: DER's routes and every pair of experts.

    python benchmarks/ktp_study.py --data heldout.jsonl [--pool demo] [--agent demo] [--out runs/ktp]

Replays DER's routes without transfer, with the last answer or all of them, in the default wording and in the
paper's; then asks every expert after every other. Qualities are compared question by question. Prints tables,
and with `--out` writes them as JSON and Markdown with plots.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from der_graph.data import load_examples
from der_graph.nodes.ktp import KTPTemplate, ktp_template
from der_graph.policies.agent import load_agent
from der_graph.policies.answers import open_cache
from der_graph.policies.evaluation.ktp_study import Difference, KTPStudy, Pair
from der_graph.policies.evaluation.plots import save
from der_graph.policies.evaluation.render import interval
from der_graph.policies.evaluation.render import markdown_table as table
from der_graph.policies.evaluation.study_plots import Effect, effects
from der_graph.policies.evaluation.summary import shown_p
from der_graph.policies.quality import get_metric
from der_graph.pool import load_pool


def row(found: Difference, *first: str) -> list[str]:
    relative = "–" if found.relative is None else f"{found.relative:+.0%}"
    return [
        *(first or (found.name,)), str(found.questions), f"{found.without:.3f}", f"{found.with_it:.3f}",
        interval(found.difference, signed=True), relative, f"{found.helped} / {found.harmed}",
        shown_p(found.p).removeprefix("p ").removeprefix("= "),
    ]  # fmt: skip


HEAD = ["questions", "without", "with", "difference", "relative", "helped / harmed", "p"]


def markdown(routes: Sequence[Difference], pairs: Sequence[Pair]) -> str:
    parts = [
        "## DER's routes, with knowledge against without",
        table(["transfer", *HEAD], [row(r) for r in routes]),
    ]
    rows = []
    for pair in pairs:
        name = f"{pair.first} → {pair.then}"
        parts_of = {
            "all": pair.overall,
            "first right": pair.after_right,
            "first wrong": pair.after_wrong,
        }
        rows += [row(d, pair.template, name, when) for when, d in parts_of.items() if d is not None]
    if rows:
        parts += ["## The second expert of a pair, with the first one's answer against alone"]
        parts.append(table(["template", "pair", "questions where", *HEAD], rows))
    return "\n\n".join(parts) + "\n"


def effect(found: Difference, label: str) -> Effect:
    return Effect(label, found.difference, found.helped, found.harmed, found.questions)


def plain(thing: Any) -> Any:
    if hasattr(thing, "_asdict"):
        return {key: plain(value) for key, value in thing._asdict().items()}
    return thing.model_dump() if hasattr(thing, "model_dump") else thing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", required=True, nargs="+", help="questions (JSON Lines), one file or more"
    )
    parser.add_argument("--pool", default="demo")
    parser.add_argument("--agent", default="demo")
    parser.add_argument("--metric", default="match")
    parser.add_argument("--limit", type=int, help="only the first N questions of each file")
    parser.add_argument("--cache", help="answer cache")
    parser.add_argument("--no-pairs", action="store_true", help="DER's routes only")
    parser.add_argument(
        "--templates",
        default="pool,paper",
        help="of the pairs: `pool` for its own, or names of templates",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for JSON, Markdown and plots")
    args = parser.parse_args()
    pool, agent = load_pool(args.pool), load_agent(args.agent)
    examples = [e for file in args.data for e in load_examples(file, limit=args.limit)]
    templates: dict[str, KTPTemplate | None] = {
        name: None if name == "pool" else ktp_template(name) for name in args.templates.split(",")
    }
    with open_cache(args.cache) as cache:
        study = KTPStudy(
            list(pool), pool.rules, examples, get_metric(args.metric), ktp=pool.settings.ktp, cache=cache,
            seed=args.seed, say=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
        routes = study.routes(agent)
        print(markdown(routes, []), flush=True)
        pairs = [] if args.no_pairs else study.pairs(templates)
    text = markdown(routes, pairs)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "ktp_study.md").write_text(text, encoding="utf-8")
        figures = {"routes": [plain(r) for r in routes], "pairs": [plain(p) for p in pairs]}
        (args.out / "ktp_study.json").write_text(
            json.dumps(figures, indent=1) + "\n", encoding="utf-8"
        )
        axis = "difference in quality, with knowledge minus without"
        lines = [effect(r, r.name) for r in routes]
        save(
            effects(lines, axis, f"DER's routes on {len(examples)} questions"),
            args.out,
            "ktp_routes",
        )
        lines = [
            effect(found, f"{pair.first} → {pair.then}, {pair.template}, {when}")
            for pair in pairs
            for when, found in (
                ("first right", pair.after_right),
                ("first wrong", pair.after_wrong),
            )
            if found is not None
        ]
        if lines:
            save(
                effects(lines, axis, "The second expert of a pair"),
                args.out,
                "ktp_pairs",
            )


if __name__ == "__main__":
    main()
