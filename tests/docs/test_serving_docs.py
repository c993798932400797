"""What docs/serving.md and the example say is what the server does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fakes import ScriptedAgent, scripted_expert

from der_graph.commands.serve import add
from der_graph.pool import pool_from
from der_graph.server.metrics import Metrics
from der_graph.state import DERContext

for _name in ("fastapi", "uvicorn", "prometheus_client", "openai"):
    pytest.importorskip(_name, reason="needs the extras serve and test")

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def small_app() -> Any:
    from der_graph.server import create_app

    first, _ = scripted_expert("first", "a draft", cost=0.1)
    second, _ = scripted_expert("second", "1776", cost=0.1)
    return create_app(pool_from([first, second]), ScriptedAgent("first", "second"))


def page(root: Path) -> str:
    return (root / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs(repo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from der_graph.server.server import in_background

    asking, embedding = BLOCK.findall(page(repo_root))
    scope: dict[str, Any] = {}
    with in_background(small_app()) as address:
        exec(asking.replace("http://127.0.0.1:8000", address), scope)
        scope["client"].close()
    assert capsys.readouterr().out == "1776\n['first', 'second'] 0.2\n"
    exec(embedding, scope)
    assert callable(scope["app"])


def test_the_page_names_what_there_is(repo_root: Path) -> None:
    import argparse

    text = page(repo_root)
    commands = argparse.ArgumentParser().add_subparsers()
    add(commands)
    options = commands.choices["serve"].format_help()
    found = set(re.findall(r"(?<![\w-])--[a-z-]+", options)) - {"--help"}
    assert set(re.findall(r"`(--[a-z-]+)", text)) == found
    for name in re.search(r"fields of `DERContext`: (.*?) \.\.\.", text)[1].split(", "):  # type: ignore[index]
        assert name.strip("`") in DERContext.__dataclass_fields__
    assert b"der_route_length" in Metrics().page()[0]


def load(root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"example_{name}", root / "examples" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example(repo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from der_graph.server.server import in_background

    with in_background(small_app()) as address:
        load(repo_root, "openai_client").main(address)
    assert capsys.readouterr().out.splitlines() == [
        "models: der, first, second",
        "1776   (first > second, 0.2)",
        "a draft   (first, 0.1), one call at most",
        "agent: first",
        "first: a draft",
        "agent: second",
        "second: 1776",
        "agent: END",
        "answer: 1776",
    ]
