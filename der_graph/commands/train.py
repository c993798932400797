"""`der train`: an agent for a pool."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from der_graph.commands.options import (
    Commands,
    add_cache,
    add_data,
    add_fresh,
    add_metric_settings,
    add_pool,
    add_seed,
    answer_cache,
    cost,
    cost_range,
    examples_of,
    metric_of,
    pool_of,
    say,
)

if TYPE_CHECKING:
    from der_graph.pool import Pool

METRICS = (
    "match, numeric, exact, choice, token_f1, agreement, rouge_l, math, bertscore, bartscore, bleurt, "
    "judge:MODEL, MODULE:FUNCTION, recorded:SCORE"
).split(", ")
"""Named here too, so that `--help` needs no import of them; a test compares."""


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "train",
        help="train an agent for a pool",
        description="Train an agent for the experts of a pool file. The experts answer every question once, "
        "into the answer cache; Ctrl-C loses little, --resume goes on. Needs the extra 'train'; "
        "docs/training.md explains the rest.",
    )
    add_pool(parser)
    runs = "runs of an agent with tools: who opened them, and what became of them; see docs/middleware.md"
    add_data(parser, "training questions", ("--agent-task", "FILE", runs))
    parser.add_argument(
        "--dev",
        metavar="FILE",
        help="questions for choosing the best agent (default: a tenth of --data)",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the agent")
    parser.add_argument(
        "--preset",
        default="default",
        choices=["default", "paper"],
        help="settings; paper: those of Hu et al. (default)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="decisions to train on (default: the preset's, 60,000; 300,000 where nothing is learnt before)",
    )
    add_seed(parser)
    parser.add_argument(
        "--metric",
        default="match",
        metavar="NAME",
        help=f"what a good answer is: {', '.join(METRICS)} (default: match)",
    )
    add_metric_settings(parser)
    parser.add_argument(
        "--cost-weight",
        type=cost,
        metavar="W",
        help="price of cost where a request names none (default: the preset's)",
    )
    parser.add_argument(
        "--cost-weight-range",
        type=cost_range,
        metavar="LOW,HIGH",
        help="prices of cost that one agent is trained for (default: 0.02,2, and higher where calls are "
        "charged by tokens and only such prices keep to the cheapest expert)",
    )
    parser.add_argument(
        "--question-dims",
        type=int,
        metavar="K",
        help="numbers that it sees of a question (default: 8)",
    )
    parser.add_argument(
        "--any-pool",
        action=argparse.BooleanOptionalAction,
        help="one scorer for all experts, which knows them by their results, in place of one that learns "
        "this pool (default: this pool)",
    )
    parser.add_argument(
        "--warm-start",
        choices=["none", "routes", "cascades"],
        help="routes: begin with what all routes over the training questions show; cascades: with the best "
        "orders of asking until two agree; none: with random weights (default: routes; with --any-pool or "
        "--preset paper: none)",
    )
    parser.add_argument(
        "--transfer",
        choices=["auto", "always"],
        help="who is shown the answer before: auto, whoever does not do better without it; always, everyone "
        "(default: auto; with --preset paper: always)",
    )
    parser.add_argument(
        "--encoder",
        metavar="MODEL",
        help="fine-tune a causal language model on the texts, as in the paper: a hub id such as "
        "facebook/opt-125m, or a folder (with --preset paper)",
    )
    parser.add_argument(
        "--route-calls",
        type=int,
        metavar="N",
        help="new answers a question may take, on average, while routes are tried (default: 12; plain "
        "functions and recorded answers are free)",
    )
    parser.add_argument(
        "--embeddings",
        metavar="NAME",
        help="sentence encoder: a hub id or folder of sentence-transformers, or LangChain's "
        "provider:model such as openai:text-embedding-3-small (default: all-MiniLM-L6-v2, English)",
    )
    parser.add_argument(
        "--feature",
        action="append",
        metavar="NAME",
        help="a feature of another package that it sees too (may be repeated; der plugins lists them)",
    )
    parser.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="stop after N evaluations without a better agent (default: train all steps)",
    )
    parser.add_argument(
        "--tensorboard",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="write the curve for TensorBoard too (default folder: tensorboard in --out)",
    )
    add_fresh(parser)
    add_cache(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in --out to the end of its run; more --steps extend it",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from pathlib import Path

    from der_graph.data.saving import sole_folder
    from der_graph.errors import DataError
    from der_graph.policies.observation import ObservationConfig
    from der_graph.policies.training import preset, split_dev, train_agent
    from der_graph.policies.training.agreement import agreed_examples

    pool = pool_of(args)
    if args.agent_task:
        return _train_on_runs(args, pool)
    examples = examples_of(args, args.data, args.limit)
    if args.dev:
        dev = examples_of(args, args.dev)
    else:
        examples, dev = split_dev(examples, seed=args.seed)
    if not dev:
        raise DataError(f"{args.data} has too few questions to set some aside; give --dev FILE")
    steps = args.steps
    if args.resume and steps is None:
        from der_graph.policies.training.checkpoint import newest_checkpoint, planned_steps

        steps = planned_steps(newest_checkpoint(Path(args.out)))
    changes = {
        "steps": steps,
        "cost_weight": args.cost_weight,
        "cost_weight_range": args.cost_weight_range,
        "text_encoder": args.encoder,
        "features": None if args.feature is None else tuple(args.feature),
        "patience": args.patience,
        "any_pool": args.any_pool,
        "warm_start": args.warm_start,
        "route_calls": args.route_calls,
        "transfer": args.transfer,
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
    with answer_cache(args) as cache, sole_folder(args.out):
        if args.metric == "agreement":
            examples, dev = (
                agreed_examples(
                    list(pool),
                    part,
                    ktp=pool.settings.ktp,
                    cache=cache,
                    cost_unit=pool.settings.cost_unit,
                    say=say,
                )
                for part in (examples, dev)
            )
        train_agent(
            list(pool),
            examples,
            dev,
            args.out,
            config,
            rules=pool.rules,
            ktp=pool.settings.ktp,
            metric=metric_of(args, args.metric),
            cache=cache,
            encoder=args.embeddings,
            resume=args.resume,
            fresh=args.fresh,
            progress=not args.quiet,
            tensorboard=(
                Path(args.out) / "tensorboard" if args.tensorboard == "" else args.tensorboard
            ),
            say=say,
        )
    return 0


def _train_on_runs(args: argparse.Namespace, pool: Pool) -> int:
    """Learn who should open a run of an agent with tools."""
    from der_graph.policies.observation.price_of_cost import PRICE
    from der_graph.policies.training.bandit import load_outcomes, train_bandit

    runs = load_outcomes(args.agent_task, [expert.name for expert in pool])
    train_bandit(
        list(pool),
        runs[: args.limit],
        args.out,
        encoder=args.embeddings,
        cost_weight=PRICE if args.cost_weight is None else args.cost_weight,
        **({} if args.question_dims is None else {"dims": args.question_dims}),
        say=say,
    )
    return 0
