"""Reviewers of small functions: programs that stand for a linter, a small model, a test run, a large model.

A review is one of `VERDICTS`. The functions that are looked at are in the questions, with an example each.
"""

from __future__ import annotations

import ast
import doctest
import re
import threading
import zlib

_RUNNING = (
    threading.Lock()
)  # doctest puts its own stdout in place, and experts are asked in threads
VERDICTS = ("approve", "mutable default", "bare except", "unused variable", "wrong result")


def code_of(question: str) -> str:
    """The code between the fences."""
    found = re.search(r"```python\n(.*?)```", question, re.DOTALL)
    return found[1] if found else ""


def seen(code: str) -> str:
    """What can be seen without running it."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(default, (ast.List, ast.Dict, ast.Set)) for default in node.args.defaults
        ):
            return "mutable default"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            return "bare except"
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    read = {node.id for node in names if isinstance(node.ctx, ast.Load)}
    written = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    return "unused variable" if written - read else "approve"


def wrong(code: str) -> bool:
    """Does an example in a docstring not come out as it says?"""
    scope: dict[str, object] = {}
    exec(compile(code, "review", "exec"), scope)  # the recipe's own questions, and nothing else
    runner = doctest.DocTestRunner(verbose=False)
    with _RUNNING:
        for test in doctest.DocTestFinder().find(scope["reviewed"], "reviewed", globs=scope):
            runner.run(test, out=lambda text: None)
    return runner.failures > 0


def lint(question: str) -> str:
    """Sees, and runs nothing."""
    return seen(code_of(question))


def draft(question: str) -> str:
    """Guesses: right seven times in ten, whatever the fault."""
    code = code_of(question)
    right = "wrong result" if wrong(code) else seen(code)
    luck = zlib.crc32(code.encode()) % 10
    return right if luck < 7 else VERDICTS[luck % len(VERDICTS)]


def check(question: str) -> str:
    """Runs the examples: what fails is wrong; what passes is as an earlier reviewer has found."""
    if wrong(code_of(question)):
        return "wrong result"
    earlier = question.rpartition("```")[2]
    found = next((verdict for verdict in VERDICTS if verdict in earlier), "approve")
    return "approve" if found == "wrong result" else found


def senior(question: str) -> str:
    """Sees and runs, and is mistaken on one in thirty."""
    code = code_of(question)
    if zlib.crc32(code.encode()) % 30 == 7:
        return "approve"
    return "wrong result" if wrong(code) else seen(code)
