"""`der eval`: DER beside everything that it is compared with, as a report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from der_graph.commands.options import (
    Commands,
    add_cache,
    add_data,
    add_fresh,
    add_pool_and_agent,
    add_seed,
    add_trained_metric,
    answer_cache,
    cost,
    examples_of,
    metric_of,
    pool_of,
    say,
    seen_warning,
)

if TYPE_CHECKING:
    from der_graph.data import Example
    from der_graph.policies.evaluation.report_schema import WallClock
    from der_graph.pool import Pool


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "eval",
        help="compare an agent with every baseline, and write a report",
        description="Compares an agent with every baseline on the same questions. "
        "Writes report.json, report.md, report.html, plots and episodes.jsonl.gz to --out. "
        "Answers are kept in the answer cache: an interrupted run goes on where it stopped.",
    )
    add_pool_and_agent(parser)
    dataset = "questions of a LangSmith dataset"
    add_data(parser, instead=("--langsmith-dataset", "NAME", dataset))
    parser.add_argument(
        "--langsmith-experiment",
        metavar="PREFIX",
        help="upload the results as LangSmith experiments on --langsmith-dataset, one a method, named "
        "PREFIX-METHOD (default: nothing is uploaded)",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the report")
    add_trained_metric(parser)
    parser.add_argument(
        "--train",
        metavar="FILE",
        help="questions that trained routers learn from (default: no routers)",
    )
    parser.add_argument("--train-limit", type=int, metavar="N", help="only the first N of --train")
    parser.add_argument(
        "--baselines",
        metavar="A,B",
        help="single, random, fixed_order, cascade, run_all, mixture, router, planner, oracle, single "
        "methods such as run_all:vote, or none (default: all)",
    )
    parser.add_argument(
        "--cost-weights",
        metavar="W,W",
        help="prices of cost to sweep (default: nine over the agent's range)",
    )
    parser.add_argument(
        "--fixed-order",
        action="append",
        metavar="E1,E2",
        help="experts that are asked in this order for every question; may be given several times "
        "(default: the pool's order)",
    )
    parser.add_argument(
        "--ranker",
        metavar="MODEL",
        help="reward model that selects among all answers (Hub id, folder)",
    )
    parser.add_argument(
        "--time-sample",
        type=int,
        default=20,
        metavar="N",
        help="questions whose wall clock is split, uncached, one at a time (default: 20; 0 for none)",
    )
    add_fresh(parser)
    add_seed(parser)
    add_cache(parser)
    parser.add_argument("--json", action="store_true", help="print report.json to standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.data.saving import sole_folder

    with sole_folder(args.out):
        return _evaluate(args)


def _evaluate(args: argparse.Namespace) -> int:
    from der_graph.data.leaks import shared_questions
    from der_graph.nodes.decision import agent_for_pool
    from der_graph.policies.agent import find_agent, learnt_from, trained_metric
    from der_graph.policies.baselines import RewardRanker
    from der_graph.policies.evaluation import BASELINES, evaluate, write_report
    from der_graph.policies.evaluation.provenance import agent_info, data_info, pool_info, run_info
    from der_graph.policies.evaluation.summary import is_live, summarize
    from der_graph.policies.training.preflight import usable

    pool = pool_of(args)
    agent = agent_for_pool(find_agent(args.agent, pool), pool.rules)
    examples = _questions(args)
    source = str(args.data or f"langsmith:{args.langsmith_dataset}")
    train = examples_of(args, args.train, args.train_limit) if args.train else []
    metric = metric_of(args, args.metric or trained_metric(agent))
    examples, _, notes = usable(examples, metric, pool.names, "evaluation")
    seen = learnt_from(agent, examples)
    if seen:
        notes.append(seen_warning(len(seen), len(examples), source))
    both = shared_questions(examples, train)
    if both:
        notes.append(
            f"warning: {len(both)} of {len(examples)} questions are in --train as well: routers that learn "
            "from them have seen the answers, so the comparison is spoilt"
        )
    for line in notes:
        say(line)
    wanted = BASELINES if args.baselines is None else _words(args.baselines)
    with answer_cache(args) as cache:
        found = evaluate(
            list(pool),
            agent,
            examples,
            metric,
            rules=pool.rules,
            ktp=pool.settings.ktp,
            train=train,
            baselines=() if wanted == ["none"] else wanted,
            cost_weights=None if args.cost_weights is None else _prices(args.cost_weights),
            fixed_orders=[_words(order) for order in args.fixed_order or ()],
            ranker=RewardRanker(args.ranker) if args.ranker else None,
            cache=cache,
            seed=args.seed,
            fresh=args.fresh,
            progress=not args.quiet,
            say=say,
        )
    live = is_live(found)
    clock = _wall_clock(pool, agent, examples, args.time_sample, args.seed, live=live)
    report = summarize(
        found,
        run=run_info(args.seed, found),
        pool=pool_info(pool, str(args.pool), live=live),
        agent=agent_info(agent, str(args.agent or pool.settings.agent or "planner")),
        data=data_info(examples, source, metric.name, train, args.train, len(seen)),
        wall_clock=clock,
    )
    files = write_report(report, found, args.out, say=say)
    if args.langsmith_experiment:
        from langsmith import Client

        from der_graph.observability.experiments import upload_experiment

        names = upload_experiment(
            Client(),
            args.langsmith_dataset,
            found,
            prefix=args.langsmith_experiment,
            dollars=pool.settings.cost_unit == "usd",
        )
        say(f"in LangSmith: {', '.join(names)}")
    (say if args.json else print)(report.headline)
    say(f"written to {args.out}: {', '.join(files)}")
    if args.json:
        print(report.model_dump_json(indent=2))
    return 0


def _questions(args: argparse.Namespace) -> list[Example]:
    from der_graph.errors import DataError

    if args.langsmith_experiment and not args.langsmith_dataset:
        raise DataError("--langsmith-experiment needs --langsmith-dataset")
    if not args.langsmith_dataset:
        return examples_of(args, args.data, args.limit)
    from langsmith import Client

    from der_graph.observability.experiments import langsmith_examples

    return langsmith_examples(Client(), args.langsmith_dataset, limit=args.limit)


def _wall_clock(
    pool: Pool, agent: Any, examples: Sequence[Example], sample: int, seed: int, *, live: bool
) -> WallClock | None:
    """Split the wall clock of some questions, drawn evenly from all."""
    import numpy as np
    from langchain_core.messages import HumanMessage

    from der_graph.graph import create_der_graph
    from der_graph.nodes.conversation import messages_of
    from der_graph.policies.evaluation.timing import measure_wall_clock

    if sample < 1 or not live:
        return None
    say(f"wall clock through the graph, {min(sample, len(examples))} questions, nothing cached ...")
    pool.preload(say)
    order = np.random.default_rng(seed).permutation(len(examples))[:sample].tolist()
    asked = [examples[i] for i in order]
    return measure_wall_clock(
        lambda mine: create_der_graph(pool, agent=mine).compile(name="der"),
        agent,
        [[*messages_of(e.history), HumanMessage(e.question)] for e in asked],
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _prices(text: str) -> list[float]:
    from der_graph.errors import DataError

    try:
        return [cost(word) for word in _words(text)]
    except argparse.ArgumentTypeError as error:
        raise DataError(f"--cost-weights {text}: {error}") from None
