"""`der learn`: what was learnt in service."""

from __future__ import annotations

import argparse

from der_graph.commands.options import Commands, add_pool, pool_of, say

_ACTIONS = {
    "show": "who is good at what, before and after",
    "freeze": "stop learning, in every server that uses the file",
    "thaw": "let it go on",
    "export": "print the skills as JSON",
    "reset": "forget all routes",
}


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "learn", help="look at, stop or forget what der serve --learn learnt"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    for name, text in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument("file", metavar="FILE", help="the file or database of --learn")
        add_pool(action)
        action.add_argument("--profile", metavar="FILE", help="as given to der serve")
        action.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import json
    from pathlib import Path

    from der_graph.display import table
    from der_graph.errors import DataError
    from der_graph.policies.planning import Learner, planner_for
    from der_graph.policies.planning.learning.route_store import is_database

    in_database = is_database(args.file)
    if not in_database and not Path(args.file).is_file():
        raise DataError(
            f"{args.file}: there is no such file; der serve --learn {args.file} makes one"
        )
    learner = Learner(planner_for(pool_of(args)), args.file)
    place = "the database" if in_database else args.file  # an address may hold a password
    if args.action in ("freeze", "thaw"):
        learner.memory.freeze(args.action == "freeze")
        say(f"{place}: {'frozen' if args.action == 'freeze' else 'learning'}")
        return 0
    if args.action == "reset":
        say(f"{place}: {learner.memory.reset()} routes forgotten")
        return 0
    learner.flush()
    routes = learner.memory.routes()
    if args.action == "export":
        rated = sum(route.score is not None for route in routes)
        print(
            json.dumps(
                {"routes": len(routes), "rated": rated, "skills": learner.skills()}, indent=1
            )
        )
        return 0
    rows = [
        [s["expert"], str(s["kind"]), f"{s['before']:.2f}", f"{s['skill']:.2f}", s["source"]]
        for s in learner.skills()
    ]
    for line in table(["expert", "kind", "before", "now", "source"], rows):
        print(line)
    state = "frozen" if learner.memory.frozen else "learning"
    say(f"{len(routes)} routes, {sum(r.score is not None for r in routes)} rated; {state}")
    return 0
