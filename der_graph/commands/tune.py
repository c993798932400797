"""`der tune`: find the price of cost that meets a budget or a quality."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from der_graph.commands.options import (
    Commands,
    add_cache,
    add_data,
    add_fresh,
    add_pool_and_agent,
    add_trained_metric,
    answer_cache,
    cost,
    examples_of,
    metric_of,
    pool_of,
    quality,
    say,
    seen_warning,
)

_WORTH_SAYING = 0.02  # share of a target


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "tune",
        help="find the price of cost for a budget or a quality",
        description="Route dev questions at many prices of cost, and choose the price whose mean cost or "
        "mean quality meets a target.",
    )
    add_pool_and_agent(parser)
    add_data(parser, "dev questions")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--target-cost", type=cost, metavar="X", help="mean cost of a question not to exceed"
    )
    target.add_argument(
        "--target-quality", type=quality, metavar="Q", help="mean quality to reach, from 0 to 1"
    )
    add_trained_metric(parser)
    parser.add_argument(
        "--points", type=int, default=16, metavar="N", help="prices to try (default: 16)"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="write the agent with the price found as its default"
    )
    add_fresh(parser)
    add_cache(parser)
    parser.add_argument("--json", action="store_true", help="print the whole curve as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.data.saving import check_folder
    from der_graph.errors import AgentError, BudgetError
    from der_graph.nodes.decision import agent_for_pool
    from der_graph.policies.agent import DERAgent, find_agent, learnt_from, trained_metric
    from der_graph.policies.answers import AnswerSource
    from der_graph.policies.evaluation.report_schema import shown_cost
    from der_graph.policies.evaluation.tuning import (
        KnobPoint,
        better_expert,
        choose_prices,
        knob_curve,
        measure_price,
        refine,
    )
    from der_graph.policies.planning import Planner
    from der_graph.policies.training.preflight import usable

    if args.points < 1:
        raise BudgetError(f"--points is {args.points}; it must be at least 1")
    pool = pool_of(args)
    agent = find_agent(args.agent, pool)
    if not isinstance(agent, (DERAgent, Planner)):
        raise AgentError("this agent has no knob: it was trained with one price of cost")
    if args.out and not isinstance(agent, DERAgent):
        raise AgentError(
            "--out writes a trained agent, and the planner is none. Leave it out: the price that is found "
            "goes with each question (--cost-weight, or cost_weight of a request); or train an agent: "
            "der train --pool FILE --data FILE --out FOLDER"
        )
    agent = agent_for_pool(agent, pool.rules)
    unit = pool.settings.cost_unit

    def show(point: KnobPoint) -> None:
        say(
            f"  price {point.cost_weight:7.4f}   quality {point.quality.estimate:.3f} "
            f"[{point.quality.low:.3f}, {point.quality.high:.3f}]   "
            f"{shown_cost(point.cost.estimate, unit)}   {point.calls:.2f} calls"
        )

    metric = metric_of(args, args.metric or trained_metric(agent))
    examples, _, notes = usable(examples_of(args, args.data, args.limit), metric, pool.names, "dev")
    # The dev questions are what a price is meant to be found on.
    trained = learnt_from(agent, examples, chosen_by=False)
    if trained:
        notes.append(seen_warning(len(trained), len(examples), args.data))
    for line in notes:
        say(line)
    if args.out:
        check_folder(args.out)
    with answer_cache(args) as cache:
        source = AnswerSource(
            list(pool),
            examples,
            metric,
            ktp=pool.settings.ktp,
            cache=cache,
        )
        curve = knob_curve(agent, source, pool.rules, points=args.points, on_point=show)
        if args.target_cost is not None:
            curve = refine(
                curve,
                lambda price: measure_price(agent, source, pool.rules, price),
                args.target_cost,
            )
        for repeated in source.ask_again(args.fresh):
            say(repeated.line())
    spent = sorted(point.cost.estimate for point in curve)
    least = shown_cost(spent[0], unit).partition(" ")[0]  # the unit comes once
    say(f"this agent spends {least} to {shown_cost(spent[-1], unit)}")
    is_trained = isinstance(agent, DERAgent)
    tuned = choose_prices(
        curve,
        target_cost=args.target_cost,
        target_quality=args.target_quality,
        is_trained=is_trained,
    )
    if args.out and isinstance(agent, DERAgent):
        agent.set_prices(tuned.prices)
        agent.save_pretrained(args.out)
    if args.json:
        print(json.dumps({"chosen": asdict(tuned), "curve": [asdict(p) for p in curve]}, indent=2))
        return 0
    how = " and ".join(
        f"--cost-weight {price:.4g}" + (f" for {share:.0%} of the questions" if share < 1 else "")
        for price, share in tuned.prices
    )
    print(f"{how}: quality {tuned.quality:.3f} at {shown_cost(tuned.cost, unit)}")
    if len(tuned.prices) > 1 and not args.out and is_trained:
        print("--out FOLDER writes an agent that takes both prices in turn")
    if args.target_cost and tuned.unused > _WORTH_SAYING * args.target_cost:
        print(
            f"{shown_cost(tuned.unused, unit)} of the target stay unused: on these questions more money buys "
            f"no better answers from these experts. Lower the target, or {better_expert(is_trained)}"
        )
    return 0
