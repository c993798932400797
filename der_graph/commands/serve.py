"""`der serve`: the ensemble behind an OpenAI-compatible HTTP interface."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable

from der_graph.commands.options import (
    Commands,
    add_address,
    add_pool_and_agent,
    cost,
    pool_of,
    variable,
)
from der_graph.config_file import add_config

_LIMITS: tuple[tuple[str, Callable[[str], float], str, str], ...] = (
    (
        "--deadline",
        float,
        "S",
        "seconds that a request may take: its default, and the most it may ask for",
    ),
    ("--max-cost", float, "X", "cost of a request, likewise"),
    ("--max-steps", int, "N", "calls of experts of a request, likewise"),
    (
        "--requests-per-minute",
        int,
        "N",
        "most requests of each key in a minute; without keys, of all",
    ),
    ("--cost-per-day", float, "X", "most cost of each key in a day of UTC, likewise"),
)


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("serve", help="serve an OpenAI-compatible HTTP interface")
    add_config(parser, "max-cost = 0.5")
    add_pool_and_agent(parser)
    add_address(parser, 8000)
    parser.add_argument(
        "--api-key-env",
        action="extend",
        nargs="+",
        default=[],
        type=variable,
        metavar="VAR",
        help="environment variables that hold the accepted API keys (default: DER_API_KEY if set)",
    )
    parser.add_argument(
        "--cors-origin",
        action="extend",
        nargs="+",
        default=[],
        metavar="URL",
        help="origins whose web pages may call (default: none)",
    )
    parser.add_argument(
        "--allowed-host",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names by which the server is reached, if it has no key (default: localhost, addresses)",
    )
    parser.add_argument(
        "--root-path",
        default="",
        metavar="PREFIX",
        help="path below which a proxy shows the server, such as /der, whether the proxy takes it off or "
        "not (default: none)",
    )
    for name, kind, unit, help_text in _LIMITS:
        parser.add_argument(name, type=kind, metavar=unit, help=f"{help_text} (default: no bound)")
    parser.add_argument(
        "--max-concurrent",
        type=int,
        default=256,
        metavar="N",
        help="most requests at a time, others get 429 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-body",
        type=int,
        metavar="BYTES",
        help="largest request, others get 413 (default: 1 MiB, or 8 MiB where an expert reads images, audio "
        "or files)",
    )
    parser.add_argument(
        "--health-interval",
        type=float,
        metavar="S",
        help="every S seconds, ask experts that failed whether they answer again, one short question after "
        "each cooldown (default: the next request finds out)",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds that requests may take after SIGTERM (default: %(default)s)",
    )
    parser.add_argument(
        "--cache", metavar="FILE", help="answer cache to look into and to fill (default: none)"
    )
    parser.add_argument(
        "--learn",
        metavar="FILE",
        help="let the planner learn from routes and from feedback (POST /v1/feedback), kept in this SQLite "
        "file, or in the PostgreSQL database of an address postgresql://...; several servers may share it "
        "(default: what DER_LEARN holds, else do not learn)",
    )
    parser.add_argument(
        "--explore",
        type=cost,
        default=0.0,
        metavar="X",
        help="with --learn: share of all cost for asking experts of whom little is known (default: 0)",
    )
    parser.add_argument(
        "--shadow",
        action="store_true",
        help="with --learn: the planner learns and notes what it would do, but decides nothing",
    )
    parser.add_argument("--quiet", action="store_true", help="do not log a line for every request")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.server import read_keys, serve

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger()  # of all: cache, learning and the HTTP server warn too
    log.addHandler(handler)
    logging.getLogger("der_graph.server").setLevel(logging.WARNING if args.quiet else logging.INFO)
    try:
        serve(
            pool_of(args),
            args.agent,
            learn=args.learn or os.environ.get("DER_LEARN") or None,
            explore=args.explore,
            shadow=args.shadow,
            host=args.host,
            port=args.port,
            grace=args.grace,
            keys=read_keys(args.api_key_env),
            cache=args.cache,
            cors_origins=args.cors_origin,
            allowed_hosts=args.allowed_host,
            root_path=args.root_path,
            max_concurrent=args.max_concurrent,
            max_body=args.max_body,
            health_interval=args.health_interval,
            deadline=args.deadline,
            max_cost=args.max_cost,
            max_steps=args.max_steps,
            requests_per_minute=args.requests_per_minute,
            cost_per_day=args.cost_per_day,
        )
    finally:
        log.removeHandler(handler)
    return 0
