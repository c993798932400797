"""The command line: parsing only. Every command calls one function of the package.

A user's mistake ends with one clear line on standard error and exit code 2; Ctrl-C with 130.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import der_graph
from der_graph.errors import DERError

_EPILOG = """examples:
  der demo                                     the shipped pool on six questions, then a table
  der ask "What is 37 * 4?"                    one question over the shipped pool
  der ask "..." --pool my.yaml --agent runs/a  over your own pool
  der train --pool my.yaml --data train.jsonl --out runs/a
  der pool check my.yaml                       what is in a pool file, and whether it can be used
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        Exit code: 0 done, 2 a mistake in what was given, 130 interrupted.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    _quiet_libraries()
    try:
        code: int = args.run(args)
    except DERError as error:
        print(f"der: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nder: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="der",
        description="Dynamic Ensemble Reasoning: a trained agent routes a question over LLM experts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"der-graph {der_graph.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    ask = commands.add_parser("ask", help="answer one question, showing the route")
    ask.add_argument("question", help="the question; - reads it from standard input")
    _pool_and_agent(ask)
    ask.add_argument(
        "--max-cost", type=_cost, metavar="X", help="hard budget, in the pool's cost unit"
    )
    ask.add_argument("--max-steps", type=int, metavar="N", help="longest route, in calls")
    ask.add_argument(
        "--cost-weight",
        type=_cost,
        metavar="W",
        help="price of cost: 0 buys quality, larger is thriftier",
    )
    ask.add_argument(
        "--json", action="store_true", help="print the final state's route as JSON instead"
    )
    ask.set_defaults(run=_ask)

    train = commands.add_parser("train", help="train an agent for a pool")
    train.add_argument("--pool", required=True, metavar="FILE", help="pool file, or 'demo'")
    train.add_argument(
        "--data", required=True, metavar="FILE", help="training questions (JSON Lines)"
    )
    train.add_argument(
        "--dev",
        metavar="FILE",
        help="questions for choosing the best agent (default: a tenth of --data)",
    )
    train.add_argument("--limit", type=int, metavar="N", help="only the first N training questions")
    train.add_argument("--out", required=True, metavar="FOLDER", help="folder of the agent")
    train.add_argument(
        "--preset", default="default", choices=["default", "paper"], help="settings (default)"
    )
    train.add_argument(
        "--steps", type=int, metavar="N", help="decisions to train on (default 300,000)"
    )
    train.add_argument("--seed", type=int, default=0, metavar="S", help="random seed (0)")
    train.add_argument(
        "--metric", default="match", metavar="NAME", help="what a good answer is (match)"
    )
    train.add_argument(
        "--cost-weight", type=_cost, metavar="W", help="default price of cost of the agent"
    )
    train.add_argument(
        "--question-dims", type=int, metavar="K", help="dimensions of the question (16)"
    )
    train.add_argument(
        "--cache", metavar="FILE", help="answer cache (default: in the user's cache folder)"
    )
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    train.set_defaults(run=_train)

    pool = commands.add_parser("pool", help="look at pool files")
    actions = pool.add_subparsers(dest="action", required=True, metavar="action")
    check = actions.add_parser("check", help="check a pool file, without loading any model")
    check.add_argument("pool", metavar="FILE", help="pool file, or 'demo'")
    check.set_defaults(run=_pool_check)

    cache = commands.add_parser("cache", help="look at or clear the answer cache")
    cache.add_argument("action", choices=["info", "clear"])
    cache.add_argument("--cache", metavar="FILE", help="default: in the user's cache folder")
    cache.add_argument("--expert", metavar="NAME", help="clear only this expert's answers")
    cache.set_defaults(run=_cache)

    demo = commands.add_parser("demo", help="the shipped pool on real questions")
    demo.add_argument("--full", action="store_true", help="evaluate all held-out questions")
    demo.add_argument(
        "--seconds", type=float, default=40.0, metavar="S", help="time for the closing table (40)"
    )
    demo.set_defaults(run=_demo)
    return parser


def _pool_and_agent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pool", default="demo", metavar="FILE", help="pool file (default: the demo pool)"
    )
    parser.add_argument(
        "--agent", default="demo", metavar="FOLDER", help="agent folder (default: demo)"
    )


def _cost(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number >= 0")
    return value


def _ask(args: argparse.Namespace) -> int:
    from der_graph.display import Display, printable
    from der_graph.graph import create_der_graph
    from der_graph.policies.agent import load_agent
    from der_graph.pool import load_pool
    from der_graph.state import DERContext

    question = sys.stdin.read() if args.question == "-" else args.question
    pool, agent = load_pool(args.pool), load_agent(args.agent)
    der = create_der_graph(pool, agent=agent).compile(name="der")
    context = DERContext(
        max_cost=args.max_cost, max_steps=args.max_steps, cost_weight=args.cost_weight
    )
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


def _train(args: argparse.Namespace) -> int:
    from der_graph.data import load_examples
    from der_graph.errors import DataError
    from der_graph.policies.cache import open_cache
    from der_graph.policies.observation import ObservationConfig
    from der_graph.policies.train import split_dev, train_agent
    from der_graph.policies.train_config import preset
    from der_graph.pool import load_pool

    pool = load_pool(args.pool)
    examples = load_examples(args.data, limit=args.limit)
    if args.dev:
        dev = load_examples(args.dev)
    else:
        examples, dev = split_dev(examples, seed=args.seed)
    if not dev:
        raise DataError(f"{args.data} has too few questions to set some aside; give --dev FILE")
    changes = {
        "steps": args.steps,
        "cost_weight": args.cost_weight,
        "observation": (
            None
            if args.question_dims is None
            else ObservationConfig(question_dims=args.question_dims)
        ),
    }
    config = preset(
        args.preset,
        seed=args.seed,
        **{key: value for key, value in changes.items() if value is not None},
    )
    with open_cache(args.cache) as cache:
        train_agent(
            list(pool),
            examples,
            dev,
            args.out,
            config,
            rules=pool.rules,
            ktp=pool.settings.ktp,
            metric=args.metric,
            cache=cache,
            resume=args.resume,
            say=lambda line: print(line, file=sys.stderr),
        )
    return 0


def _pool_check(args: argparse.Namespace) -> int:
    from der_graph.pool import check_pool

    for line in check_pool(args.pool):
        print(line)
    return 0


def _cache(args: argparse.Namespace) -> int:
    from der_graph.policies.cache import open_cache

    with open_cache(args.cache) as cache:
        if args.action == "clear":
            print(f"{cache.clear(args.expert)} answers removed")
        else:
            print(cache.stats())
    return 0


def _demo(args: argparse.Namespace) -> int:
    from der_graph.showcase import run_demo

    run_demo(full=args.full, seconds=args.seconds)
    return 0


def _quiet_libraries() -> None:
    """Keep libraries' progress bars and advice off the terminal; their errors stay."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("transformers", "huggingface_hub", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
