"""`der ask`: one question, with its route; or a file of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

from der_graph.commands.options import (
    Commands,
    add_cache,
    add_columns,
    add_pool_and_agent,
    add_request,
    cost,
    examples_of,
    pool_of,
    request_context,
    say,
)

if TYPE_CHECKING:
    from der_graph.pool import Pool
    from der_graph.state import Decision


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "ask",
        help="answer a question, showing the route; or a file of questions",
        description="Answers one question, showing the route while it is built; or with --file many, several "
        "at a time, into --out: every answer is written at once, and after Ctrl-C the same command goes on. "
        "Answers of experts are kept in the answer cache then.",
    )
    parser.add_argument("question", nargs="?", help="the question; - reads it from standard input")
    add_pool_and_agent(parser)
    add_request(parser)
    parser.add_argument(
        "--json", action="store_true", help="print question, answer, cost and route as JSON"
    )
    parser.add_argument(
        "--route-only",
        action="store_true",
        help="say who would be asked first, and with what probability, and ask nobody",
    )
    many = parser.add_argument_group("many questions")
    many.add_argument("--file", metavar="FILE", help="data file of questions, in any layout")
    many.add_argument(
        "--out", metavar="FILE", help="answers to write or to go on with (JSON Lines)"
    )
    many.add_argument(
        "--budget",
        type=cost,
        metavar="X",
        help="hard bound of what the whole file may cost, earlier runs included, in the pool's cost unit",
    )
    many.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="questions at a time (default: 8)"
    )
    many.add_argument("--limit", type=int, metavar="N", help="only the first N questions")
    add_columns(many)
    add_cache(many)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.errors import DataError

    if (args.question is None) == (args.file is None):
        raise DataError("give one question, or --file with many")
    if args.file is None and (args.out is not None or args.budget is not None):
        raise DataError("--out and --budget are for many questions: give --file")
    pool = pool_of(args)
    if args.file is None:
        question = _text(args.question)
        return _route_of(args, pool, question) if args.route_only else _answer(args, pool, question)
    if args.route_only:
        return _routes_of_file(args, pool)
    if args.out is None:
        raise DataError("--file needs --out, where the answers go")
    return _answer_file(args, pool)


def _text(given: str) -> str:
    """The question as text: UTF-8 also where the locale knows ASCII alone."""
    from der_graph.errors import QuestionError

    try:
        return os.fsencode(sys.stdin.read() if given == "-" else given).decode("utf-8")
    except UnicodeError as error:
        raise QuestionError(f"the question is not UTF-8 text ({error})") from None


def _answer(args: argparse.Namespace, pool: Pool, question: str) -> int:
    from der_graph.display import Display, printable
    from der_graph.graph import create_der_graph
    from der_graph.nodes.answer import finished
    from der_graph.policies.agent import find_agent
    from der_graph.pool.pool import load_encoder

    agent = find_agent(args.agent, pool)
    load_encoder(agent, say)
    der = create_der_graph(pool, agent=agent).compile(name="der")
    context = request_context(args)
    inputs = {"messages": [("user", question)]}
    if args.json or args.quiet:
        state = finished(der.invoke(inputs, context=context))
        shown = {key: state[key] for key in ("question", "answer", "cost", "route", "knowledge")}
        shown["cost_unit"] = pool.settings.cost_unit
        print(
            json.dumps(shown, ensure_ascii=False, indent=2)
            if args.json
            else printable(state["answer"])
        )
        return 0
    display = Display(unit=pool.settings.cost_unit)
    final: Any = {}
    source: Any = der.stream(inputs, context=context, stream_mode=["custom", "values"])
    with closing(source) as parts:  # left open after an error, its threads would keep the process
        for mode, part in parts:
            if mode == "custom":
                display.event(part)
            else:
                final = part
    finished(final)
    display.line(f"\n{display.styled(printable(final['answer']), 'bold')}")
    display.line(display.styled(f"({display.cost(final['cost'])})", "dim"))
    return 0


def _answer_file(args: argparse.Namespace, pool: Pool) -> int:
    from der_graph.batch import answer_file
    from der_graph.display import Display
    from der_graph.errors import DataError
    from der_graph.policies.answers import open_cache

    if os.path.realpath(args.out) == os.path.realpath(args.file):
        raise DataError(
            f"--out {args.out} is the file of questions; give another one for the answers"
        )
    examples = examples_of(args, args.file, args.limit)
    with open_cache(args.cache) as cache:
        try:
            done = answer_file(
                pool,
                args.agent,
                examples,
                args.out,
                context=request_context(args),
                budget=args.budget,
                concurrency=args.concurrency,
                cache=cache,
                progress=not args.quiet,
                say=say,
            )
        except KeyboardInterrupt:
            say(
                f"stopped; {args.out} has what was answered, and the same command goes on from there"
            )
            raise
    if done.failed:
        say(
            f"warning: {done.failed:,} questions failed, and are asked again by the same command (first: "
            f"{done.error})"
        )
    if done.left:
        left = Display(unit=pool.settings.cost_unit).cost(max(0.0, args.budget - done.cost))
        say(
            f"warning: the budget is used up, as {left} are left and another call may cost more (`cost` in "
            f"the pool file); {done.left:,} questions were not asked"
        )
    if args.json:
        print(json.dumps(vars(done)))
    else:
        spent = Display(unit=pool.settings.cost_unit).cost(done.cost)
        print(f"{args.out}: {done.answered:,} of {len(examples):,} questions answered, for {spent}")
    return 0 if done.answered == len(examples) else 1


def _route_of(args: argparse.Namespace, pool: Pool, question: str) -> int:
    from der_graph.batch import first_decisions
    from der_graph.data import Example
    from der_graph.display import Display
    from der_graph.errors import QuestionError

    if not question.strip():
        raise QuestionError("the question is empty; ask something")
    example = Example("1", question.strip(), "")
    (decision,) = first_decisions(pool, args.agent, [example], request_context(args))
    if args.json:
        print(json.dumps(_row(example.question, decision), ensure_ascii=False, indent=2))
    else:
        Display(unit=pool.settings.cost_unit).event({"type": "der.decision", **decision})
    return 0


def _routes_of_file(args: argparse.Namespace, pool: Pool) -> int:
    from der_graph.batch import first_decisions
    from der_graph.data.saving import save_text
    from der_graph.display import table

    examples = examples_of(args, args.file, args.limit)
    decisions = first_decisions(pool, args.agent, examples, request_context(args))
    rows = [
        {"id": example.id, **_row(example.question, decision)}
        for example, decision in zip(examples, decisions, strict=True)
    ]
    if args.out is not None:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        save_text(args.out, "".join(lines))
    count = Counter(decision["choice"] for decision in decisions)
    if args.json:
        print(json.dumps(count))
        return 0
    shares = [[name, f"{n:,}", f"{n / len(rows):.0%}"] for name, n in count.most_common()]
    for line in table(["asked first", "questions", "share"], shares):
        print(line)
    return 0


def _row(question: str, decision: Decision) -> dict[str, Any]:
    why = (decision.get("explanation") or {}).get("why")
    return {
        "question": question,
        "choice": decision["choice"],
        "probabilities": decision["probabilities"],
    } | ({} if why is None else {"why": why})
