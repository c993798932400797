"""`der serve`: the ensemble behind an OpenAI-compatible HTTP interface."""

from __future__ import annotations

import argparse
import logging
import sys

from der_graph.commands.options import Commands, add_address, add_pool_and_agent


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("serve", help="serve an OpenAI-compatible HTTP interface")
    add_pool_and_agent(parser)
    add_address(parser, 8000)
    parser.add_argument(
        "--api-key-env",
        action="extend",
        nargs="+",
        default=[],
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
        "--max-concurrent",
        type=int,
        default=256,
        metavar="N",
        help="most requests at a time, others get 429 (default: %(default)s)",
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
    parser.add_argument("--quiet", action="store_true", help="do not log a line for every request")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.server import read_keys, serve

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("der_graph.server")
    log.addHandler(handler)
    log.setLevel(logging.WARNING if args.quiet else logging.INFO)
    log.propagate = False
    try:
        serve(
            args.pool,
            args.agent,
            host=args.host,
            port=args.port,
            grace=args.grace,
            keys=read_keys(args.api_key_env),
            cache=args.cache,
            cors_origins=args.cors_origin,
            max_concurrent=args.max_concurrent,
        )
    finally:
        log.removeHandler(handler)
    return 0
