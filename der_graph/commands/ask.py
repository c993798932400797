"""`der ask`: one question, with its route."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from der_graph.commands.options import (
    Commands,
    add_pool_and_agent,
    add_request,
    pool_of,
    request_context,
)


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "ask",
        help="answer one question, showing the route",
        description="Answer one question, showing the route while it is built.",
    )
    parser.add_argument("question", help="the question; - reads it from standard input")
    add_pool_and_agent(parser)
    add_request(parser)
    parser.add_argument(
        "--json", action="store_true", help="print question, answer, cost and route as JSON"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.display import Display, printable
    from der_graph.graph import create_der_graph

    question = sys.stdin.read() if args.question == "-" else args.question
    pool = pool_of(args)
    der = create_der_graph(pool, agent=args.agent).compile(name="der")
    context = request_context(args)
    inputs = {"messages": [("user", question)]}
    if args.json:
        state = der.invoke(inputs, context=context)
        shown = {key: state[key] for key in ("question", "answer", "cost", "route", "knowledge")}
        print(json.dumps(shown, ensure_ascii=False, indent=2))
        return 0
    display = Display(unit=pool.settings.cost_unit)
    final: Any = {}
    parts: Any = der.stream(inputs, context=context, stream_mode=["custom", "values"])
    for mode, part in parts:
        if mode == "custom":
            display.event(part)
        else:
            final = part
    display.line(f"\n{display.styled(printable(final['answer']), 'bold')}")
    display.line(display.styled(f"({display.cost(final['cost'])})", "dim"))
    return 0
