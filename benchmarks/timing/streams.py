"""What streaming through the graph costs: time to the first token, and the whole route."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from typing import Any

from langchain_core.messages import AIMessageChunk, HumanMessage

from der_graph import DERContext, create_der_graph, load_agent, load_pool
from der_graph.nodes.ktp import TEMPLATES
from timing.measuring import Spread, seconds_of, show, verdict

LONG_S = 0.5
OPEN_QUESTIONS = [
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


def streaming(args: argparse.Namespace) -> int:
    """What streaming through the graph costs: time to the first token, and the whole route.

    For each question the route is run once, to know it and to load the models. Then, in turn, `repeats`
    times: the expert that speaks first is asked by `expert.model.stream` with the very prompt that the graph
    gives it, until its first token; the graph streams `messages` until its first token, with every expert's
    tokens and with those of the final answer alone; the graph runs the whole route, whose time is compared
    with the sum of its experts' own calls. Targets, for medians: the first token comes at most 100 ms later
    than the expert's own, and a route takes at most 1.05 times its generations where those take over 0.5 s.
    """
    pool = load_pool(args.pool)
    pool.preload()
    der = create_der_graph(pool, agent=load_agent(args.agent)).compile()
    template = pool.settings.ktp or TEMPLATES["default"]
    final = DERContext(stream_tokens="final", max_steps=1)
    own: list[float] = []
    later: list[float] = []
    overheads: list[float] = []
    ratios: list[float] = []
    for question in OPEN_QUESTIONS[: args.questions]:
        inputs: Any = {"messages": [HumanMessage(question)]}
        expert = pool[der.invoke(inputs)["route"][0]["choice"]]
        prompt = expert.prompt([], question, [], template)
        for _ in range(args.repeats):
            direct = first_token(expert.model.stream(prompt))
            if direct is not None:
                own.append(direct * 1000)
                for context in (DERContext(), final):
                    through = first_token(
                        der.stream(inputs, context=context, stream_mode="messages")
                    )
                    if through is not None:
                        later.append((through - direct) * 1000)
            taken, state = seconds_of(lambda i=inputs: der.invoke(i))  # type: ignore[misc]
            generating = sum(step["answer"]["seconds"] for step in state["route"] if step["answer"])
            overheads.append((taken - generating) * 1000)
            if generating > LONG_S:
                ratios.append(taken / generating)
    rows = {
        "first token of the expert itself, ms": Spread.of(own),
        "later through the graph, ms": Spread.of(later),
        "route without its generations, ms": Spread.of(overheads),
        f"route / generations, where over {LONG_S:g} s": Spread.of(ratios),
    }
    if args.json:
        print(json.dumps({name: row._asdict() for name, row in rows.items()}))
        return 0
    show(rows, "")
    late, ratio = (rows[name].median for name in list(rows)[1::2])
    return verdict("100 ms and 1.05", late <= 100.0 and ratio <= 1.05)
