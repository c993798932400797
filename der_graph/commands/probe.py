"""`der probe`: who is good at what."""

from __future__ import annotations

import argparse

from der_graph.commands.options import (
    Commands,
    add_cache,
    add_columns,
    add_pool,
    answer_cache,
    cost,
    examples_of,
    pool_of,
    say,
)


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "probe",
        help="find out who is good at what, for the planner",
        description="Asks every expert questions with answers that can be checked, of each kind the most "
        "telling one next, and writes a profile. The planner reads it: --profile, or 'profile:' under "
        "'settings:' in the pool file.",
    )
    add_pool(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="profile to write (JSON)")
    parser.add_argument(
        "--questions", type=int, default=110, metavar="N", help="for each expert (default: 110)"
    )
    parser.add_argument(
        "--max-cost", type=cost, metavar="X", help="for all calls together, in the pool's cost unit"
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="questions of your own, with answers (default: the shipped ones)",
    )
    add_columns(parser)
    parser.add_argument(
        "--metric", default="match", metavar="NAME", help="what a good answer is (default: match)"
    )
    add_cache(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.data.saving import check_file
    from der_graph.display import table
    from der_graph.errors import BudgetError
    from der_graph.policies.planning.probing.asking import probe, shipped_probes, summary
    from der_graph.policies.quality import get_metric

    if args.questions < 1:
        raise BudgetError(f"--questions is {args.questions}; it must be at least 1")
    pool = pool_of(args)
    examples = examples_of(args, args.data) if args.data else shipped_probes()
    check_file(args.out)
    with answer_cache(args) as cache:
        found = probe(
            list(pool),
            examples,
            get_metric(args.metric),
            count=args.questions,
            max_cost=args.max_cost,
            cost_unit=pool.settings.cost_unit,
            cache=cache,
            say=say,
        )
    found.write(args.out)
    rows, by_kind = summary(list(pool), found)
    header = ["expert", "skill", "95 %", "questions", "seconds", "best at", "worst at"]
    for line in table(header, rows):
        print(line)
    print()
    for line in table(["share right", *found.names], by_kind):
        print(line)
    say(f"written to {args.out}; use it with --profile {args.out}")
    return 0
