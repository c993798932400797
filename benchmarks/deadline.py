"""What a deadline does to quality and latency, on a live pool: wall clock of whole requests, one at a time.

    python benchmarks/deadline.py --data heldout.jsonl [--pool demo] [--agent demo] [--out deadline.json]

Every question goes through the graph once without a deadline and once with each; nothing is cached. A route
that no expert finished in time counts with quality 0.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.messages import HumanMessage

from der_graph.data import Example, load_examples
from der_graph.errors import AllExpertsFailedError
from der_graph.graph import create_der_graph
from der_graph.nodes.ktp import ktp_template
from der_graph.policies.agent import load_agent
from der_graph.policies.quality import QualityMetric, get_metric
from der_graph.policies.statistics import bootstrap_interval
from der_graph.pool import load_pool
from der_graph.state import DERContext, answers_of, good_answers


def timed(
    graph: Any, examples: Sequence[Example], metric: QualityMetric, deadline: float | None
) -> dict[str, Any]:
    """One row: all questions under one deadline."""
    seconds, calls, qualities = [], [], []
    for example in examples:
        start = time.perf_counter()
        try:
            state = graph.invoke(
                {"messages": [HumanMessage(example.question)]},
                context=DERContext(deadline=deadline),
            )
        except AllExpertsFailedError:
            answers = []
        else:
            answers = answers_of(state["route"])
        seconds.append(time.perf_counter() - start)
        good = good_answers(answers)
        calls.append(len(answers))
        qualities.append(float(metric.score([good[-1]], [example])[0]) if good else 0.0)
    late = 0.0 if deadline is None else float(np.mean(np.array(seconds) > deadline))
    return {
        "deadline": deadline, "questions": len(examples),
        "quality": bootstrap_interval(qualities, seed=0)._asdict(),
        "calls": float(np.mean(calls)), "p50": float(np.quantile(seconds, 0.5)),
        "p95": float(np.quantile(seconds, 0.95)), "longest": max(seconds), "late": late,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="questions (JSON Lines)")
    parser.add_argument("--pool", default="demo")
    parser.add_argument("--agent", default="demo")
    parser.add_argument("--metric", default="match")
    parser.add_argument("--limit", type=int, help="so many questions, spread over the file")
    parser.add_argument("--deadlines", default="0.25,0.5,1,2,4", help="seconds, by comma")
    parser.add_argument("--cache", help="not used: taken so that all live benchmarks take the same")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    args = parser.parse_args()
    pool, agent = load_pool(args.pool), load_agent(args.agent)
    examples = load_examples(args.data)
    if args.limit is not None:  # files are sorted by kind
        at = np.linspace(0, len(examples) - 1, min(args.limit, len(examples))).astype(int)
        examples = [examples[i] for i in at]
    metric = get_metric(args.metric)
    graph = create_der_graph(pool, agent=agent).compile()
    for expert in pool:  # loads the models
        expert.ask([expert.prompt([], examples[0].question, [], ktp_template(pool.settings.ktp))])
    graph.invoke({"messages": [HumanMessage(examples[0].question)]})
    limits: list[float | None] = [None, *map(float, args.deadlines.split(","))]
    rows = [timed(graph, examples, metric, limit) for limit in limits]
    for row in rows:
        limit = "none" if row["deadline"] is None else f"{row['deadline']:g} s"
        print(
            f"{limit:>7}  quality {row['quality']['estimate']:.3f}  {row['calls']:.2f} calls  "
            f"p50 {row['p50']:.2f} s  p95 {row['p95']:.2f} s  late {row['late']:.0%}"
        )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
