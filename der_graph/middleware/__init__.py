"""Experts in LangChain's `create_agent`: a middleware that chooses who acts, call by call.

Needs the extra `langchain`; importing this module alone does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from der_graph.errors import require

if TYPE_CHECKING:
    from der_graph.middleware.middleware import DERMiddleware
    from der_graph.middleware.run import DERAgentState

__all__ = ["DERAgentState", "DERMiddleware"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'der_graph.middleware' has no attribute {name!r}")
    require("langchain.agents.middleware", extra="langchain", why=name)
    from der_graph.middleware import middleware

    return getattr(middleware, name)
