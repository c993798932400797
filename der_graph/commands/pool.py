"""`der pool`: check pool files, and add an expert to a trained agent."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from der_graph.commands.options import (
    Commands,
    add_allow_python,
    add_cache,
    add_columns,
    add_seed,
    add_trained_metric,
    answer_cache,
    examples_of,
    metric_of,
    pool_of,
    say,
)

if TYPE_CHECKING:
    from der_graph.data import Example
    from der_graph.policies.quality import QualityMetric


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("pool", help="check pool files; add an expert to an agent")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    check = actions.add_parser("check", help="check a pool file, without loading any model")
    check.add_argument("pool", metavar="FILE", help="pool file, or 'demo'")
    check.add_argument("--device", metavar="DEVICE", help="plan the memory of a GPU, such as cuda")
    check.add_argument(
        "--memory", type=float, metavar="GB", help="size of a GPU that is not in this machine"
    )
    add_allow_python(check)
    check.set_defaults(run=run)

    again = actions.add_parser(
        "refresh",
        help="ask an expert that an agent knows some probe questions again, and know it by the results",
        description="For an expert that has changed behind its name: asks it some probe questions, drops "
        "what it said before from the cache, and writes an agent that knows it by what it says now. der eval "
        "--fresh finds such experts.",
    )
    again.add_argument("name", metavar="NAME", help="the expert")
    new = actions.add_parser(
        "add",
        help="let a trained agent use new experts, after some probe questions and no training",
        description="Asks every expert of the pool file that the agent does not know some probe questions, "
        "and writes an agent that knows it by the results. Not for agents trained with --preset paper, or "
        "with --warm-start none or cascades and without --any-pool.",
    )
    for each, does in ((new, run_add), (again, run_refresh)):
        each.add_argument("--pool", required=True, metavar="FILE", help="pool file with the expert")
        add_allow_python(each)
        each.add_argument(
            "--agent", required=True, metavar="FOLDER", help="agent folder of der train"
        )
        each.add_argument(
            "--data",
            required=True,
            metavar="FILE",
            help="questions with answers to draw probes from",
        )
        add_columns(each)
        each.add_argument("--out", required=True, metavar="FOLDER", help="folder of the new agent")
        each.add_argument(
            "--probes", type=int, default=30, metavar="K", help="probe questions (default: 30)"
        )
        add_trained_metric(each)
        add_seed(each)
        add_cache(each)
        each.set_defaults(run=does)


def run(args: argparse.Namespace) -> int:
    """Check a pool file."""
    from der_graph.errors import PoolError
    from der_graph.pool import check_pool

    if args.memory is not None and args.device is None:
        raise PoolError("--memory is the size of a GPU; say which with --device cuda")
    if args.memory is not None and args.memory <= 0:
        raise PoolError(f"--memory is {args.memory:g}; it must be above 0 GB")
    lines = check_pool(
        args.pool, device=args.device, memory_gb=args.memory, allow_python=args.allow_python
    )
    for line in lines:
        print(line)
    return 0


def run_add(args: argparse.Namespace) -> int:
    """Add what is new in a pool file to an agent."""
    from der_graph.data.saving import check_folder
    from der_graph.errors import AgentError, PoolError
    from der_graph.policies.agent import DERAgent, load_agent, trained_metric
    from der_graph.policies.training.new_experts import probe_expert

    if args.probes < 1:
        raise PoolError(f"--probes is {args.probes}; it must be at least 1")
    agent = load_agent(args.agent)
    if not isinstance(agent, DERAgent):
        raise AgentError(
            "this agent cannot take new experts: it was made with --encoder or --agent-task; train it anew"
        )
    pool = pool_of(args)
    new = [expert for expert in pool if expert.name not in agent.names]
    if not new:
        raise PoolError(
            f"{args.pool}: the agent knows all its experts already; nothing to add. der pool refresh NAME "
            "asks a known one again"
        )
    metric = metric_of(args, args.metric or trained_metric(agent))
    examples = _probe_questions(args, metric, pool.names)
    check_folder(args.out)
    with answer_cache(args) as cache:
        for expert in new:
            asked = min(args.probes, len(examples))
            say(f"{expert.name}: asking {asked} probe questions")
            agent, quality = probe_expert(
                agent,
                expert,
                examples,
                count=args.probes,
                metric=metric,
                cache=cache,
                seed=args.seed,
            )
            everywhere = agent.observer.skill[-1]
            print(
                f"{expert.name}: quality {quality:.3f} on {asked} questions that tell experts apart; "
                f"about {everywhere:.3f} on all"
            )
    agent.save_pretrained(args.out)
    print(f"{args.out}: an agent for {', '.join(pool.names)}")
    return 0


def run_refresh(args: argparse.Namespace) -> int:
    """Know an expert by what it says now."""
    from der_graph.data.saving import check_folder
    from der_graph.errors import AgentError, PoolError
    from der_graph.nodes.decision import agent_for_pool
    from der_graph.policies.agent import DERAgent, load_agent, trained_metric
    from der_graph.policies.answers import MEMORY, open_cache
    from der_graph.policies.training.new_experts import refresh_expert

    if args.probes < 1:
        raise PoolError(f"--probes is {args.probes}; it must be at least 1")
    agent, pool = load_agent(args.agent), pool_of(args)
    if not isinstance(agent, DERAgent):
        raise AgentError(
            "this agent knows no results of experts, as it was made with --encoder or --agent-task; train it "
            "anew"
        )
    expert = pool[args.name]
    metric = metric_of(args, args.metric or trained_metric(agent))
    examples = _probe_questions(args, metric, pool.names)
    agent = agent_for_pool(agent, pool.rules)
    before = float(agent.observer.skill[agent.observer.names.index(args.name)])
    check_folder(args.out)
    with open_cache(args.cache) as cache:
        old = cache.stats().experts.get(args.name, 0)
        say(f"{args.name}: asking {min(args.probes, len(examples))} probe questions")
        try:
            agent, quality = refresh_expert(
                agent,
                expert,
                examples,
                count=args.probes,
                metric=metric,
                cache=cache,
                seed=args.seed,
            )
        except KeyboardInterrupt:
            if args.cache != MEMORY:
                say(
                    f"stopped; the answer cache has what {args.name} answered, beside its old answers; the "
                    "same command asks all again"
                )
            raise
        say(f"{args.name}: {old} cached answers dropped")
    after = float(agent.observer.skill[agent.observer.names.index(args.name)])
    print(
        f"{args.name}: quality {quality:.3f} on questions that tell experts apart; about {after:.3f} on all, "
        f"was {before:.3f}"
    )
    agent.save_pretrained(args.out)
    print(f"{args.out}: an agent for {', '.join(pool.names)}")
    return 0


def _probe_questions(
    args: argparse.Namespace, metric: QualityMetric, names: Sequence[str]
) -> list[Example]:
    """The questions that a metric can judge answers to; says which are left out."""
    from der_graph.policies.training.preflight import usable

    examples, _, notes = usable(examples_of(args, args.data), metric, names, "probe")
    for line in notes:
        say(line)
    return examples
