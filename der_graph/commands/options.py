"""What several commands share: options, how their values are read, and where they report to."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from der_graph.data import Example
    from der_graph.policies.quality import QualityMetric
    from der_graph.pool import Pool
    from der_graph.state import DERContext

Commands = Any
"""What `ArgumentParser.add_subparsers` returns; argparse has no public name for it."""


def add_pool_and_agent(parser: argparse.ArgumentParser) -> None:
    """Add `--pool` and `--agent`."""
    parser.add_argument(
        "--pool", default="demo", metavar="FILE", help="pool file (default: the demo pool)"
    )
    parser.add_argument(
        "--agent",
        metavar="FOLDER",
        help="agent folder, hf://owner/name, or 'planner', which needs no training (default: the "
        "pool file's, else the planner)",
    )
    parser.add_argument(
        "--profile",
        metavar="FILE",
        help="what der probe found out about the experts, for the planner (default: the pool file's)",
    )


def pool_of(args: argparse.Namespace) -> Pool:
    """The pool that `--pool` and `--profile` name."""
    from dataclasses import replace

    from der_graph.pool import load_pool

    pool = load_pool(args.pool)
    if args.profile is None:
        return pool
    return replace(pool, settings=replace(pool.settings, profile=args.profile))


def add_pool(parser: argparse.ArgumentParser) -> None:
    """Add `--pool` where there is no default."""
    parser.add_argument("--pool", required=True, metavar="FILE", help="pool file, or 'demo'")


def add_data(
    parser: argparse.ArgumentParser,
    what: str = "questions",
    instead: tuple[str, str, str] | None = None,
) -> None:
    """Add `--data` and `--limit`.

    Args:
        parser: The command's.
        what: What the questions are for, in words.
        instead: Name, metavar and help of an option that may take the place of `--data`.
    """
    one: Any = parser if instead is None else parser.add_mutually_exclusive_group(required=True)
    one.add_argument(
        "--data",
        required=instead is None,
        metavar="FILE",
        help=f"{what}: JSON Lines, JSON, CSV, TSV, Parquet, a folder of datasets, hf:owner/name, or an "
        "export of LangSmith, promptfoo or inspect_ai",
    )
    if instead is not None:
        one.add_argument(instead[0], metavar=instead[1], help=instead[2])
    add_columns(parser)
    parser.add_argument("--limit", type=int, metavar="N", help=f"only the first N {what}")


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the names of columns."""
    for part, holds in (
        ("question", "question"),
        ("answer", "reference"),
        ("task", "kind of question"),
    ):
        parser.add_argument(
            f"--{part}-column",
            metavar="NAME",
            help=f"column that holds the {holds} (default: {part})",
        )


def examples_of(args: argparse.Namespace, file: str, limit: int | None = None) -> list[Example]:
    """Read a data file with the columns that `add_columns` read, and say which fields nobody reads."""
    from der_graph.data import Columns, load_examples

    columns = Columns(args.question_column, args.answer_column, args.task_column)
    ignored: Counter[str] = Counter()
    examples = load_examples(file, limit=limit, columns=columns, ignored=ignored)
    if ignored:
        say(f"{file}: nobody reads {', '.join(repr(name) for name in sorted(ignored))}")
    return examples


def add_metric_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--metric-setting`."""
    parser.add_argument(
        "--metric-setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="setting of the metric, such as rubric=FILE or base_url=URL of judge:MODEL (may be repeated; "
        "${VARIABLE} stands for an environment variable)",
    )


def metric_of(args: argparse.Namespace, name: str) -> QualityMetric:
    """The metric of a name, with the settings of `add_metric_settings`."""
    from der_graph.errors import MetricError
    from der_graph.policies.quality import get_metric
    from der_graph.pool.file import expand_variables

    settings: dict[str, Any] = {}
    for pair in args.metric_setting:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise MetricError(f"--metric-setting {pair}: give NAME=VALUE")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = expand_variables(value, f"--metric-setting {key}")
    return get_metric(name, **settings)


def add_trained_metric(parser: argparse.ArgumentParser) -> None:
    """Add `--metric` where a trained agent names the default."""
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="what a good answer is (default: the metric that the agent was trained with)",
    )
    add_metric_settings(parser)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`."""
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="random seed (default: 0)")


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    """Add `--host` and `--port`.

    Args:
        parser: The command's.
        port: Where it listens by default.
    """
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=port, help="port, 0 for a free one (default: %(default)s)"
    )


def add_request(parser: argparse.ArgumentParser) -> None:
    """Add the settings of one request."""
    parser.add_argument(
        "--max-cost", type=cost, metavar="X", help="hard budget, in the pool's cost unit"
    )
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="longest route, in calls (default: the pool's)"
    )
    parser.add_argument(
        "--cost-weight",
        type=cost,
        metavar="W",
        help="price of cost: small ones buy quality, large ones are thrifty (default: the agent's)",
    )
    parser.add_argument("--deadline", type=seconds, metavar="S", help="seconds for the whole route")
    parser.add_argument(
        "--allow", action="append", metavar="NAME", help="ask only this expert (may be repeated)"
    )
    parser.add_argument(
        "--forbid", action="append", metavar="NAME", help="do not ask this expert (may be repeated)"
    )


def request_context(args: argparse.Namespace) -> DERContext:
    """The settings of one request, as `add_request` reads them."""
    from der_graph.state import DERContext

    return DERContext(
        max_cost=args.max_cost,
        max_steps=args.max_steps,
        cost_weight=args.cost_weight,
        deadline=args.deadline,
        allowed_experts=args.allow,
        forbidden_experts=args.forbid,
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add `--cache`."""
    parser.add_argument(
        "--cache", metavar="FILE", help="answer cache (default: in the user's cache folder)"
    )


def seen_warning(count: int, of: int, data: str) -> str:
    """What to say of questions that an agent has learnt from."""
    return (
        f"warning: the agent was trained on {count} of the {of} questions of {data}, or chosen by them, so "
        "its figures are better than on new questions; give others"
    )


def say(line: str) -> None:
    """Report on standard error: standard output is for results."""
    print(line, file=sys.stderr, flush=True)


def seconds(text: str) -> float:
    """Read a number above 0."""
    value = cost(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def cost_range(text: str) -> tuple[float, float]:
    """Read two numbers above 0, the lower one first."""
    try:
        low, high = (seconds(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW,HIGH") from None
    if low > high:
        raise argparse.ArgumentTypeError(f"{text!r}: the lower one comes first")
    return low, high


def cost(text: str) -> float:
    """Read a number >= 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number >= 0")
    return value
