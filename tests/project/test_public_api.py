from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import der_graph


def test_all_is_sorted_and_whole() -> None:
    assert der_graph.__all__ == sorted(der_graph.__all__)
    assert set(der_graph.__all__) == set(der_graph._HOME)


@pytest.mark.parametrize("name", der_graph.__all__)
def test_every_name_can_be_imported_and_is_described(name: str) -> None:
    thing = getattr(der_graph, name)
    assert thing.__doc__
    assert thing.__name__ == name
    assert thing.__module__ == der_graph._HOME[name]
    assert name in dir(der_graph)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'der_graph' has no attribute 'create_graph'"):
        der_graph.create_graph  # noqa: B018


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", der_graph.__version__)


def _modules() -> list[str]:
    found = pkgutil.walk_packages(der_graph.__path__, "der_graph.")
    return sorted(module.name for module in found if not module.name.endswith("__main__"))


@pytest.mark.parametrize("name", _modules())
def test_every_module_imports_says_what_it_is_and_lists_what_is_there(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what it is"
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.__all__ names {public}"
