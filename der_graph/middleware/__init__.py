"""Experts in LangChain's `create_agent`: a middleware that chooses who acts, call by call.

Needs the extra `langchain`; importing this module alone does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from der_graph.errors import require

if TYPE_CHECKING:
    from der_graph.middleware.middleware import DERMiddleware
    from der_graph.middleware.outcomes import outcome_of
    from der_graph.middleware.run import DERAgentState

_HOME = {
    "DERAgentState": "der_graph.middleware.run",
    "DERMiddleware": "der_graph.middleware.middleware",
    "outcome_of": "der_graph.middleware.outcomes",
}

__all__ = ["DERAgentState", "DERMiddleware", "outcome_of"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'der_graph.middleware' has no attribute {name!r}")
    require("langchain.agents.middleware", extra="langchain", why=name)
    return getattr(importlib.import_module(_HOME[name]), name)
