"""What streaming through the graph costs: time to the first token, and the whole route, on a live pool.

    python benchmarks/streaming.py [--pool demo] [--agent demo] [--questions 12] [--repeats 3] [--json]

For each question the route is run once, to know it and to load the models. Then, in turn, `repeats` times:

- the expert that speaks first is asked by `expert.model.stream` with the very prompt that the graph gives it,
  until its first token;
- the graph streams `messages` until its first token, with every expert's tokens and, where the route has one
  step, with those of the final answer alone;
- the graph runs the whole route; its time is compared with the sum of its experts' own calls.

Targets, for medians: the first token comes at most 100 ms later than the expert's own, and a route takes at
most 1.05 times its experts' generations where those take over 0.5 s together. The 95th percentile is that of
the machine as well: look at its load.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable
from typing import Any

os.environ.setdefault("LANGSMITH_TRACING", "false")  # the time of a tracer is not the graph's

from langchain_core.messages import AIMessageChunk, HumanMessage

from der_graph import DERContext, create_der_graph, load_agent, load_pool
from der_graph.nodes.ktp import TEMPLATES

FIRST_TOKEN_MS = 100.0
ROUTE_RATIO = 1.05
LONG_S = 0.5

QUESTIONS = [
    "Explain in a few sentences why the sky is blue.",
    "Tell me something interesting about whales.",
    "What is the capital of France?",
    "Give me three tips for learning to play the piano.",
    "What is 37 * 48?",
    "Describe a walk through a forest in autumn.",
    "What is the plural of mouse?",
    "A shop sells 12 boxes of 24 pencils and keeps 30 pencils. How many pencils are sold?",
    "Why do people yawn?",
    "Write a short story about a lighthouse keeper.",
    "How do I boil an egg?",
    "What is the difference between a lake and a sea?",
]


def first_token(parts: Iterable[Any]) -> float | None:
    """Seconds until the first piece of text; the rest is left unread, which stops the model."""
    start = time.perf_counter()
    stream = iter(parts)
    try:
        for part in stream:
            message = part[0] if isinstance(part, tuple) else part
            if isinstance(message, AIMessageChunk) and message.text:
                return time.perf_counter() - start
        return None
    finally:
        stream.close()  # type: ignore[attr-defined]


def main() -> int:
    """Measure, print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pool", default="demo")
    parser.add_argument("--agent", default="demo")
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    options = parser.parse_args()
    pool = load_pool(options.pool)
    pool.preload()
    der = create_der_graph(pool, agent=load_agent(options.agent)).compile()
    template = pool.settings.ktp or TEMPLATES["default"]

    later: list[float] = []
    own: list[float] = []
    ratios: list[float] = []
    overheads: list[float] = []
    for question in QUESTIONS[: options.questions]:
        inputs: Any = {"messages": [HumanMessage(question)]}
        known = der.invoke(inputs)
        expert = pool[known["route"][0]["choice"]]
        prompt = expert.prompt([], question, [], template)
        final = DERContext(stream_tokens="final", max_steps=1)
        for _ in range(options.repeats):
            direct = first_token(expert.model.stream(prompt))
            if direct is not None:
                own.append(direct * 1000)
                for context in (DERContext(), final):
                    through = first_token(
                        der.stream(inputs, context=context, stream_mode="messages")
                    )
                    if through is not None:
                        later.append((through - direct) * 1000)
            start = time.perf_counter()
            route = der.invoke(inputs)["route"]
            taken = time.perf_counter() - start
            generating = sum(step["answer"]["seconds"] for step in route if step["answer"])
            overheads.append((taken - generating) * 1000)
            if generating > LONG_S:
                ratios.append(taken / generating)
    result = {
        "first_token_own_ms": _spread(own),
        "first_token_later_ms": _spread(later),
        "route_overhead_ms": _spread(overheads),
        "route_ratio": _spread(ratios),
        "long_routes": len(ratios),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }
    late, ratio = result["first_token_later_ms"], result["route_ratio"]
    good = late["median"] <= FIRST_TOKEN_MS and (not ratios or ratio["median"] <= ROUTE_RATIO)  # type: ignore[index]
    if options.json:
        print(json.dumps(result))
        return 0 if good else 1
    print(f"{'':<44}{'median':>9}{'p95':>9}{'worst':>9}{'n':>5}")
    for name, text in (
        ("first_token_own_ms", "first token of the expert itself, ms"),
        ("first_token_later_ms", "later through the graph, ms"),
        ("route_overhead_ms", "route without its generations, ms"),
        ("route_ratio", f"route / generations, where over {LONG_S:g} s"),
    ):
        row: Any = result[name]
        print(f"{text:<44}{row['median']:>9.3f}{row['p95']:>9.3f}{row['worst']:>9.3f}{row['n']:>5}")
    print(f"\nload of the machine: {result['load']}")
    print(f"targets: {FIRST_TOKEN_MS:g} ms and {ROUTE_RATIO:g}: {'met' if good else 'missed'}")
    return 0 if good else 1


def _spread(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and worst of some values."""
    if not values:
        return {"median": 0.0, "p95": 0.0, "worst": 0.0, "n": 0}
    cuts = statistics.quantiles(values, n=20, method="inclusive") if len(values) > 1 else values
    return {
        "median": round(statistics.median(values), 3),
        "p95": round(cuts[-1], 3),
        "worst": round(max(values), 3),
        "n": len(values),
    }


if __name__ == "__main__":
    raise SystemExit(main())
