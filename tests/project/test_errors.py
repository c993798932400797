from __future__ import annotations

from pathlib import Path

import pytest

from der_graph import errors
from der_graph.errors import DERError, MissingDependencyError, require


def test_every_error_is_one_family() -> None:
    own = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(own) > 5
    for error in own:
        assert issubclass(error, DERError)
        assert error.__doc__


def test_the_drawing_in_the_module_names_every_error() -> None:
    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, DERError):
            assert name in drawn


def test_a_users_mistake_is_also_a_value_error() -> None:
    # So that callers who know nothing of this package catch it as they are used to.
    for error in (errors.PoolError, errors.AgentError, errors.DataError, errors.QuestionError):
        assert issubclass(error, ValueError)
    assert issubclass(MissingDependencyError, ImportError)


def test_require_returns_the_module() -> None:
    assert require("json", extra="train", why="nothing").loads("1") == 1


def test_require_says_the_exact_command() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        require("no_such_module_at_all", extra="train", why="training an agent")
    assert str(caught.value) == (
        "'no_such_module_at_all' is needed for training an agent and is not installed. "
        "Install it with: pip install 'der-graph[train]'"
    )


def test_require_of_a_submodule_of_a_missing_package_says_it_too() -> None:
    with pytest.raises(MissingDependencyError, match=r"no_such_module_at_all\.part"):
        require("no_such_module_at_all.part", extra="train", why="nothing")


def test_require_does_not_blame_a_module_for_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path
    (folder / "half_installed.py").write_text("import its_own_missing_dependency\n")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ModuleNotFoundError, match="its_own_missing_dependency") as caught:
        require("half_installed", extra="train", why="nothing")
    assert not isinstance(caught.value, MissingDependencyError)
