"""The command line; the commands themselves are in `der_graph.commands`.

A user's mistake, or a file or stream that cannot be used, ends with one clear line on standard error and exit
code 2; Ctrl-C with 130, SIGTERM with 143.
"""

from __future__ import annotations

import argparse
import codecs
import errno
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import der_graph
from der_graph.commands import COMMANDS
from der_graph.commands.options.reporting import add_quiet, quiet
from der_graph.completion import add_completion
from der_graph.config_file import PATHS, with_config
from der_graph.errors import DERError

_EPILOG = """examples:
  der demo                                     the shipped pool on six questions, then a table
  der ask "What is 37 * 4?"                    one question over the shipped pool
  der ask "..." --pool my.yaml --agent runs/a  over your own pool
  der pool check my.yaml                       what is in a pool file, and whether it can be used
  der train --pool my.yaml --data train.jsonl --out runs/a
  der eval --pool my.yaml --agent runs/a --data test.jsonl --out runs/a/report
  der serve --pool my.yaml --agent runs/a      for any OpenAI client, on http://127.0.0.1:8000/v1

der COMMAND --help says more of each.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        Exit code: 0 done, 1 some questions of a file have no answer, 2 a mistake in what was given, 130
        interrupted, 143 terminated.
    """
    _prepare_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(words)
    _quiet_libraries()
    with _terminated_as_by_ctrl_c() as terminated:
        return _run(args, words, terminated)


def _run(args: argparse.Namespace, words: list[str], terminated: list[int]) -> int:
    try:
        # Options of the program itself have no values, so the first such word is the command.
        args = with_config(args, words[words.index(args.command) + 1 :])
        quiet.set(args.quiet)
        _mask_traces()
        code: int = args.run(args)
        sys.stdout.flush()  # here an error can still be told
    except DERError as error:
        print(f"der: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nder: interrupted", file=sys.stderr)
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
    except BrokenPipeError:  # | head
        _drop_output()
        return 0
    except OSError as error:
        if error.filename is None and error.errno not in _OF_FILES:
            raise  # of a connection, say: no path is to blame
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"der: {where}{error.strerror or error}; check the paths that were given, their permissions and "
            "the room on their disks",
            file=sys.stderr,
        )
        _drop_output()
        return 2
    return code


@contextmanager
def _terminated_as_by_ctrl_c() -> Iterator[list[int]]:
    """Let SIGTERM end a command as Ctrl-C does: what it has is kept, and it says how to go on.

    A second one ends it at once. Servers have handlers of their own.

    Yields:
        Gets the signal when it comes.
    """
    came: list[int] = []

    def stop(number: int, _: object) -> None:
        came.append(number)
        signal.signal(number, signal.SIG_DFL)
        # Ctrl-C is ignored in the background of a script.
        if not callable(signal.getsignal(signal.SIGINT)):
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield came
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


_OF_FILES = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EBADF, errno.EMFILE, errno.ENFILE,
)  # fmt: skip


def _prepare_streams() -> None:
    """Streams that are there, as a service may be started without, and whose output takes any text."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        codecs.register_error("der_escape", _escaped)
        sys.stdout.reconfigure(errors="der_escape")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""Characters that an output cannot show, as \uXXXX: so JSON writes them too."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _drop_output() -> None:
    """Let go of output that cannot be written, which Python would try to do once more as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Command(argparse.ArgumentParser):
    """A command's parser.

    It names unknown options itself, which argparse would leave to the program's, and knows the home folder in
    `--out=~/a`, which shells leave as it is.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [name for name in self._option_string_actions if name.startswith("--")]
            near = get_close_matches(unknown[0].partition("=")[0], options, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        for action in self._actions:
            given = getattr(found, action.dest, None)
            if action.metavar in PATHS and isinstance(given, str):
                setattr(found, action.dest, os.path.expanduser(given))
            elif action.metavar in PATHS and isinstance(given, list):
                setattr(found, action.dest, [os.path.expanduser(each) for each in given])
        return found, unknown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="der",
        description="Dynamic Ensemble Reasoning: a trained agent routes a question over LLM experts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"der-graph {der_graph.__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command", parser_class=_Command
    )

    for name in COMMANDS:
        import_module(f"der_graph.commands.{name}").add(commands)
    add_completion(commands, parser)
    add_quiet(parser)
    return parser


def _quiet_libraries() -> None:
    """Keep libraries' progress bars and advice off the terminal; their errors stay."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("transformers", "huggingface_hub", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _mask_traces() -> None:
    """Where LangSmith traces, send it no secrets: an expert's own graph or tool may quote some."""
    names = (
        "LANGSMITH_TRACING",
        "LANGSMITH_TRACING_V2",
        "LANGCHAIN_TRACING",
        "LANGCHAIN_TRACING_V2",
    )
    if any(os.environ.get(name) == "true" for name in names):
        from langsmith import run_trees

        from der_graph.observability.tracing import tracing_client

        run_trees.configure(client=tracing_client())


if __name__ == "__main__":
    sys.exit(main())
