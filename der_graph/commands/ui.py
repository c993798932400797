"""`der ui`: a page in the browser that shows routes as they are built."""

from __future__ import annotations

import argparse

from der_graph.commands.options import Commands, add_pool_and_agent


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("ui", help="open a page that shows routes as they are built")
    add_pool_and_agent(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=7860, help="port, 0 for a free one (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.ui import serve_page

    serve_page(args.pool, args.agent, host=args.host, port=args.port)
    return 0
