"""A sample of mutants: how many small faults in what pays, masks, quotes and breaks the tests notice.

    python benchmarks/mutation_sample.py [--size 60] [--seed 0] [--out mutants.json]

A mutant is a module with one change: another comparison, arithmetic or boolean operator, another number,
True for False, a `not` left out, None returned. It lies in a copy of the package, where the module's own
tests run until the first failure: then the mutant is killed. Those that survive are listed with their line;
one that nobody could notice (an equivalent mutant) survives rightly. The exit code is 1 if less than 85 % are
killed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = 0.85
_CPU_S = 60  # that tests may take, a hang of theirs; what only waits is ended by pytest
TESTS = {
    "policies/training/reward.py": ["tests/policies/training/test_reward.py"],
    "nodes/rules.py": ["tests/nodes/test_rules.py"],
    "nodes/ktp.py": ["tests/nodes/test_ktp.py"],
    "nodes/reliability/breaker.py": ["tests/nodes/reliability/test_breaker.py"],
}
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def changes(node: Any) -> Iterator[tuple[str, Any]]:
    """What can be changed in a node: a field, and what it becomes."""
    if isinstance(node, ast.Compare):
        for i, one in enumerate(node.ops):
            yield "ops", [*node.ops[:i], SWAPPED[type(one)](), *node.ops[i + 1 :]]
    elif isinstance(node, (ast.BoolOp, ast.BinOp, ast.AugAssign)) and type(node.op) in SWAPPED:
        yield "op", SWAPPED[type(node.op)]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "operand", ast.UnaryOp(ast.Not(), node.operand)  # twice is not at all
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield "value", not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.Return) and ast.unparse(node) not in ("return", "return None"):
        yield "value", ast.Constant(None)


def mutations(tree: ast.AST) -> list[tuple[Any, str, Any]]:
    """All changes to a module: node, field, new value. Types are left alone."""
    types = {
        id(inner)
        for node in ast.walk(tree)
        for given in (getattr(node, "annotation", None), getattr(node, "returns", None))
        for inner in (ast.walk(given) if given else ())
    }
    nodes = [node for node in ast.walk(tree) if id(node) not in types]
    return [(node, *change) for node in nodes for change in changes(node)]


def mutant(source: str, number: int) -> tuple[str, str]:
    """The text of a mutant, and what is changed in it."""
    tree = ast.parse(source)
    node, field, value = mutations(tree)[number]
    before = ast.unparse(node)
    setattr(node, field, value)
    return ast.unparse(
        ast.fix_missing_locations(tree)
    ), f"{node.lineno}: {before}  ->  {ast.unparse(node)}"


def run_tests(scratch: Path, tests: list[str]) -> None:
    """Run tests in a copy of the package; the process ends with pytest's exit code."""
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))  # however busy the machine is
    os.chdir(scratch)
    sys.path[:0] = [str(scratch)]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    late = "-Wignore::pytest.PytestAssertRewriteWarning"  # as libraries are imported already
    os._exit(pytest.main(["-x", "-q", "-pno:cacheprovider", late, *tests]))


def fails(scratch: Path, tests: list[str]) -> bool:
    """Do tests fail, or hang? In a process of their own, which has not imported the package yet."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(scratch, tests))
    process.start()
    process.join()
    return process.exitcode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=60, help="mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write what became of each as JSON")
    args = parser.parse_args()
    sys.dont_write_bytecode = True  # two mutants of one second and one size would look the same
    for library in ("hypothesis", "langgraph.graph", "numpy"):
        importlib.import_module(library)  # once for all processes
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="der-mutants-") as name:
        scratch, drawn = Path(name) / "copy", []
        left_out = shutil.ignore_patterns(".*", "__pycache__", "shared", "runs", "site", "docs")
        shutil.copytree(ROOT, scratch, symlinks=True, ignore=left_out)
        for module, tests in TESTS.items():
            if fails(scratch, tests):
                sys.exit(f"{module}: its tests fail without any mutant")
            drawn += [
                (module, i) for i in range(len(mutations(ast.parse((ROOT / module).read_text()))))
            ]
        everything = len(drawn)
        for module, number in random.Random(args.seed).sample(drawn, args.size):
            source = (ROOT / module).read_text()
            text, change = mutant(source, number)
            (scratch / module).write_text(text)
            killed = fails(scratch, TESTS[module])
            (scratch / module).write_text(source)
            found.append({"module": module, "mutant": change, "killed": killed})
            print(f"{'killed  ' if killed else 'SURVIVED'} {module}:{change}", flush=True)
    share = sum(each["killed"] for each in found) / len(found)
    print(
        f"{share:.0%} of {len(found)} mutants killed, drawn from {everything}; target: {TARGET:.0%}"
    )
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if share >= TARGET else 1)


if __name__ == "__main__":
    main()
