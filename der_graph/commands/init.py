"""`der init`: from models to a pool file."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from der_graph.commands.options import Commands, say


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "init",
        help="write a pool file for models, or for those of a server",
        description="Asks each model one question, looks up prices and features, and writes a commented pool "
        "file. Keys are read from the environment and never written.",
    )
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="such as openai:gpt-4o-mini; with --base-url, names of the server (default: all that it lists)",
    )
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="an OpenAI-compatible server, such as http://127.0.0.1:8000/v1",
    )
    parser.add_argument(
        "--api-key-env",
        metavar="VAR",
        help="environment variable with the server's key (default: no key)",
    )
    parser.add_argument("--out", default="pool.yaml", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--no-ask", action="store_true", help="do not ask the models anything")
    parser.add_argument("--yes", action="store_true", help="ask nothing, and replace the file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from pathlib import Path

    from der_graph.data.saving import replacing
    from der_graph.display import printable
    from der_graph.errors import PoolError
    from der_graph.pool import check_pool
    from der_graph.pool.draft import chosen, look, models_of, names_of, pool_text

    settings: dict[str, Any] = {}
    secrets: dict[str, Any] = {}
    models = list(args.models)
    if args.base_url:
        key = None
        if args.api_key_env:
            key = os.environ.get(args.api_key_env)
            if not key:
                raise PoolError(
                    f"--api-key-env: the environment variable {args.api_key_env} is not set"
                )
        models = chosen(models_of(args.base_url, key), models, args.base_url)
        settings = {"base_url": args.base_url, "api_key": "none"}
        if key:
            settings["api_key"], secrets = f"${{{args.api_key_env}}}", {"api_key": key}
    if not models:
        raise PoolError("name at least one model, such as openai:gpt-4o-mini, or give --base-url")
    if len(set(models)) < len(models):
        raise PoolError("a model is named twice")
    target = Path(args.out)
    if not args.yes:
        _confirm(models, target, ask=not args.no_ask)
    found = []
    strings = [f"openai:{model}" if args.base_url else model for model in models]
    for model, string, name in zip(models, strings, names_of(strings), strict=True):
        each = look(
            string,
            name,
            settings,
            secrets=secrets,
            ask=not args.no_ask,
        )
        known = (
            [f"${each.prices[0]:g} / ${each.prices[1]:g} per million tokens"] if each.prices else []
        )
        known += [f"{each.size:g} B"] if each.size else []
        known += [f"{each.seconds:.2f} s"] if each.seconds and not each.error else []
        say(
            printable(
                f"{model}: left out, {each.error}"
                if each.error
                else f"{model}: {', '.join([*known, each.about or 'features unknown'])}"
            )
        )
        found.append(each)
    text = pool_text(found)
    with replacing(target) as part:
        part.write_text(text, encoding="utf-8")
        check_pool(part)
    usable = [each for each in found if not each.error]
    if len({each.prices is None for each in usable}) == 2:
        unknown = ", ".join(each.model for each in usable if each.prices is None)
        say(
            f"no price is known of {unknown}, so all calls count alike; write prices where you know them"
        )
    print(f'{target}: {len(usable)} experts. Try: der ask "What is 17 * 6?" --pool {target}')
    return 0


def _confirm(models: list[str], target: Any, *, ask: bool) -> None:
    """Let a person agree.

    Raises:
        PoolError: If nobody is there, or does not agree.
    """
    from der_graph.errors import PoolError

    todo = (f"ask {len(models)} models one question each, and " if ask else "") + f"write {target}"
    if target.exists():
        todo += ", which is there already"
    if not sys.stdin.isatty():
        raise PoolError(f"this would {todo}; give --yes, as nobody can be asked here")
    if input(f"{todo[0].upper()}{todo[1:]}? [y/N] ").strip().lower() not in ("y", "yes"):
        raise PoolError("nothing was written")
