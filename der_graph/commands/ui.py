"""`der ui`: a page in the browser that shows routes as they are built."""

from __future__ import annotations

import argparse

from der_graph.commands.options import Commands, add_address, add_pool_and_agent, pool_of


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("ui", help="open a page that shows routes as they are built")
    add_pool_and_agent(parser)
    add_address(parser, 7860)
    parser.add_argument(
        "--password-env",
        action="extend",
        nargs="+",
        default=[],
        metavar="VAR",
        help="environment variables that hold USER:PASSWORD (default: DER_UI_PASSWORD if set)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from der_graph.ui import read_logins, serve_page

    logins = read_logins(args.password_env)
    demo = args.pool == "demo" and args.profile is None
    pool = args.pool if demo else pool_of(args)  # by its name the page offers the demo's questions
    serve_page(pool, args.agent, host=args.host, port=args.port, logins=logins)
    return 0
