"""`backend: python`: a function named in a pool file, which runs only where the user allows it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_runs import run
from langchain_core.messages import HumanMessage

from der_graph.errors import PluginError, PoolError
from der_graph.pool import load_pool


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool file, and the module that it names beside it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_clerks", raising=False)
    (tmp_path / "my_clerks.py").write_text(
        "import pathlib\n"
        "pathlib.Path(__file__).with_name('ran').touch()\n"
        "def clerk(question):\n    return 'by hand: ' + question\n"
    )
    path = tmp_path / "pool.yaml"
    path.write_text(
        "experts: [{name: clerk, backend: python, model: 'my_clerks:clerk', cost: 1}]\n"
    )
    return path


def test_nothing_runs_unless_it_is_allowed(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        PoolError, match=r"expert 'clerk': .*off unless you allow it.*--allow-python"
    ) as told:
        load_pool(pool)
    assert "DER_ALLOW_PYTHON=1" in str(told.value)
    assert run("pool", "check", pool) == 2
    assert "--allow-python" in capsys.readouterr().err
    assert not pool.with_name("ran").exists()


@pytest.mark.parametrize("value", ["0", "", "no"])
def test_other_values_of_the_variable_allow_nothing(
    pool: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DER_ALLOW_PYTHON", value)
    with pytest.raises(PoolError, match="off unless you allow it"):
        load_pool(pool)


def test_a_function_answers_by_argument_flag_or_variable(
    pool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expert = load_pool(pool, allow_python=True)["clerk"]
    assert expert.model.invoke([HumanMessage("2 + 3?")]).content == "by hand: 2 + 3?"
    assert expert.fingerprint  # its code: answers may be kept
    assert run("pool", "check", pool, "--allow-python") == 0
    assert capsys.readouterr().out.split()[:4] == ["clerk", "python", "function", "clerk,"]
    monkeypatch.setenv("DER_ALLOW_PYTHON", "1")
    assert run("ask", "2 + 3?", "--pool", pool, "--quiet") == 0
    assert "by hand: 2 + 3?" in capsys.readouterr().out


def test_an_installed_module_comes_before_one_beside_the_pool_file(pool: Path) -> None:
    pool.with_name("textwrap.py").write_text("raise SystemExit('taken')")
    pool.write_text("experts: [{name: a, backend: python, model: 'textwrap:dedent', cost: 1}]")
    assert load_pool(pool, allow_python=True).names == ("a",)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("my_clerks:nobody", r"the module 'my_clerks' \(.*my_clerks.py\) has no 'nobody'"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("my_clerks", "write module:name"),
    ],
)
def test_what_cannot_be_imported_is_said(pool: Path, model: str, says: str) -> None:
    pool.write_text(f"experts: [{{name: clerk, backend: python, model: '{model}', cost: 1}}]")
    with pytest.raises(PluginError, match=f"expert 'clerk': .*{says}"):
        load_pool(pool, allow_python=True)
