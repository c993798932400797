"""What a deadline does to quality and latency, on a live pool: wall clock of whole requests, one at a time.

    python benchmarks/deadline.py --data heldout.jsonl [--pool demo] [--agent demo] [--out deadline.json]

Every question goes through the graph once without a deadline and once with each; nothing is cached. A request
without any answer counts with quality 0. `difference` is to the same questions without a deadline; `over` is
how far beyond the deadline requests were that came late.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from langchain_core.messages import HumanMessage

from der_graph.data import Example, load_examples
from der_graph.errors import AllExpertsFailedError
from der_graph.graph import create_der_graph
from der_graph.nodes.ktp import ktp_template
from der_graph.policies.agent import load_agent
from der_graph.policies.evaluation.statistics import bootstrap_interval, paired_difference
from der_graph.policies.quality import QualityMetric, get_metric
from der_graph.pool import load_pool
from der_graph.state import DERContext, answers_of, good_answers


def spread_over(examples: list[Example], limit: int | None) -> list[Example]:
    """So many questions, evenly from a file that is sorted by kind; None for all."""
    if limit is None:
        return examples
    at = np.linspace(0, len(examples) - 1, min(limit, len(examples))).astype(int)
    return [examples[i] for i in at]


class Timed(NamedTuple):
    """What each question came to."""

    seconds: list[float]
    calls: list[int]
    quality: list[float]
    answered: list[bool]


def timed(
    graph: Any, examples: Sequence[Example], metric: QualityMetric, deadline: float | None
) -> Timed:
    """Ask all questions under one deadline."""
    found = Timed([], [], [], [])
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
        found.seconds.append(time.perf_counter() - start)
        good = good_answers(answers)
        found.calls.append(len(answers))
        found.answered.append(bool(good))
        found.quality.append(float(metric.score([good[-1]], [example])[0]) if good else 0.0)
    return found


def row(deadline: float | None, found: Timed, without: Timed) -> dict[str, Any]:
    """What a deadline came to.

    Args:
        deadline: In seconds, or None.
        found: Under this deadline.
        without: The same questions without one.
    """
    seconds = np.array(found.seconds)
    over = seconds[seconds > deadline] - deadline if deadline is not None else np.zeros(0)
    gap = paired_difference(np.array(found.quality), np.array(without.quality), seed=0)
    return {
        "deadline": deadline, "questions": len(seconds),
        "quality": bootstrap_interval(found.quality, seed=0)._asdict(),
        "difference": None if deadline is None else gap._asdict(),
        "answered": float(np.mean(found.answered)), "calls": float(np.mean(found.calls)),
        "p50": float(np.quantile(seconds, 0.5)), "p95": float(np.quantile(seconds, 0.95)),
        "longest": float(seconds.max()), "late": len(over) / len(seconds),
        "over_p50": float(np.quantile(over, 0.5)) if len(over) else None,
        "over_p95": float(np.quantile(over, 0.95)) if len(over) else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="questions (JSON Lines)")
    parser.add_argument("--pool", default="demo")
    parser.add_argument("--agent", default="demo")
    parser.add_argument("--metric", default="match")
    parser.add_argument("--limit", type=int, help="so many questions, spread over the file")
    parser.add_argument("--deadlines", default="0.1,0.25,0.5,1,2", help="seconds, by comma")
    parser.add_argument("--cache", help="not used: taken so that all live benchmarks take the same")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    args = parser.parse_args()
    pool, agent = load_pool(args.pool), load_agent(args.agent)
    examples = spread_over(load_examples(args.data), args.limit)
    metric = get_metric(args.metric)
    graph = create_der_graph(pool, agent=agent).compile()
    for expert in pool:  # loads the models
        expert.ask([expert.prompt([], examples[0].question, [], ktp_template(pool.settings.ktp))])
    graph.invoke({"messages": [HumanMessage(examples[0].question)]})
    without = timed(graph, examples, metric, None)
    rows = [row(None, without, without)]
    for limit in map(float, args.deadlines.split(",")):
        rows.append(row(limit, timed(graph, examples, metric, limit), without))
    for each in rows:
        name = "none" if each["deadline"] is None else f"{each['deadline']:g} s"
        over = "" if each["over_p50"] is None else f", by {each['over_p50']:.2f} s at the median"
        print(
            f"{name:>7}  quality {each['quality']['estimate']:.3f}  {each['calls']:.2f} calls  "
            f"p50 {each['p50']:.2f} s  p95 {each['p95']:.2f} s  late {each['late']:.0%}{over}"
        )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
