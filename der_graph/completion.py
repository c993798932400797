"""`der completion`: what a shell needs to complete the commands, options and files of `der`.

    the parser of the whole program ──shtab──> a script for bash or zsh

The script names everything itself, so completing starts no Python.
"""

from __future__ import annotations

import argparse
from functools import partial

from der_graph.commands.options import Commands
from der_graph.errors import require

_PATHS = {"FILE": "file", "FOLDER": "directory"}
"""By its placeholder in `--help`: what an option's value is completed with."""


def add_completion(commands: Commands, program: argparse.ArgumentParser) -> None:
    """Describe the command.

    Args:
        commands: Where it is added.
        program: The parser of the whole program, with all commands.
    """
    parser = commands.add_parser(
        "completion",
        help="let the Tab key complete commands, options and files",
        description="Prints a script that lets the Tab key complete der's commands, options and files. "
        'For bash add this line to ~/.bashrc: eval "$(der completion bash)"; for zsh to ~/.zshrc, after '
        "compinit: eval \"$(der completion zsh)\". Needs the extra 'completion'.",
    )
    parser.add_argument("shell", choices=["bash", "zsh"], help="the shell that reads the script")
    parser.set_defaults(run=partial(_run, program))


def _run(program: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    shtab = require("shtab", extra="completion", why="the completion of a shell")
    _prepare(program, shtab.CHOICE_FUNCTIONS)
    print(shtab.complete(program, args.shell))
    return 0


def _prepare(parser: argparse.ArgumentParser, completers: dict[str, dict[str, str]]) -> None:
    """Say which arguments are files and folders, and what commands are in one line, as shtab reads it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            short = {each.dest: each.help for each in action._choices_actions}
            for name, each in action.choices.items():
                each.description = short.get(name)  # zsh's menu has no room for more
                _prepare(each, completers)
        elif action.metavar in _PATHS:
            action.complete = completers[_PATHS[action.metavar]]  # type: ignore[attr-defined]
