from __future__ import annotations

import sys

import pytest

import der_graph.middleware
from der_graph.errors import MissingDependencyError


def test_without_langchain_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'der-graph\[langchain\]'"):
        der_graph.middleware.DERMiddleware  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Middleware'"):
        der_graph.middleware.Middleware  # noqa: B018


def test_the_top_level_name_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    for name in [n for n in sys.modules if n.startswith("der_graph.middleware.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError, match=r"pip install 'der-graph\[langchain\]'"):
        der_graph.DERMiddleware  # noqa: B018
