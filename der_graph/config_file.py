"""A file with the options of a command: the same names as its flags, and flags win.

    der.toml ──tomllib──> names and values ──checked as the flags are──> what the command line left out

Every option of the command may be in the file, without its `--`; paths are relative to the file. Secrets have
no place in it: `api-key-env` names the environment variables that hold them. Knows nothing of what the
options mean.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from der_graph.errors import ConfigError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATHS = ("FILE", "FOLDER")
"""What options that take a path call it."""
_NO_PATHS = ("demo", "planner")  # words that stand where a file or folder is named
_SECRET = re.compile(r"(^|[-_])(key|token|secret|password)s?$")


def add_config(parser: argparse.ArgumentParser, example: str) -> None:
    """Add `--config`.

    Args:
        parser: The command's.
        example: A line that a file may hold.
    """
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML file with these options by the same names, such as {example}; flags win "
        "(default: none)",
    )
    parser.set_defaults(parser=parser)


def with_config(args: argparse.Namespace, words: Sequence[str]) -> argparse.Namespace:
    """What a command was given, filled up from the file that `--config` names.

    Args:
        args: As parsed from the command line.
        words: The command line after the command's name.

    Raises:
        ConfigError: If the file cannot be read, or holds what is no option of the command or no value
            for it.
    """
    file = getattr(args, "config", None)
    if file is None:
        return args
    parser: argparse.ArgumentParser = args.parser
    options = {
        string.removeprefix("--"): action
        for string, action in parser._option_string_actions.items()
        if string.startswith("--") and string not in ("--help", "--config")
    }
    # Parsed once more with nothing in place of every default: what is there then was said.
    nothing = argparse.Namespace(**{action.dest: None for action in options.values()})
    said = parser.parse_args(list(words), nothing)
    found = argparse.Namespace(**vars(args))
    for name, value in _read(Path(file)).items():
        if name not in options:
            raise ConfigError(f"{file}: unknown option '{name}'; {_hint(name, options)}")
        action = options[name]
        checked = _checked(action, value, f"{file}: {name}", Path(file).parent)
        if getattr(said, action.dest) is None:
            setattr(found, action.dest, checked)
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))  # as Windows writes it
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file; give --config a TOML file") from None
    except (OSError, ValueError) as error:  # bytes that are no text, and text that is no TOML
        raise ConfigError(f"{file}: it cannot be read as TOML: {error}") from None


def _hint(name: str, options: Mapping[str, Any]) -> str:
    if _SECRET.search(name) and "api-key-env" in options:
        return (
            "secrets are not read from this file: put them into environment variables, and name those "
            "with 'api-key-env'"
        )
    hint = did_you_mean(name.replace("_", "-"), options)
    return f"{hint}allowed: {', '.join(sorted(options))}"


def _checked(action: argparse.Action, value: Any, where: str, folder: Path) -> Any:
    """A value as its flag would have it."""
    if action.nargs == 0:  # a switch
        if not isinstance(value, bool):
            raise ConfigError(f"{where} is {value!r}; it must be true or false")
        return value
    if action.nargs == "+":
        several = value if isinstance(value, list) else [value]
        return [_one(action, each, where, folder) for each in several]
    return _one(action, value, where, folder)


def _one(action: argparse.Action, value: Any, where: str, folder: Path) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(f"{where} is {value!r}; it must be a text or a number")
    kind: Any = action.type or str
    try:
        found = kind(str(value))
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"{where}: {error}") from None
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}.get(kind, "another value")
        raise ConfigError(f"{where} is {value!r}; it must be {wanted}") from None
    if action.metavar in PATHS and found not in _NO_PATHS and "://" not in found:
        return str(folder / os.path.expanduser(found))
    return found
