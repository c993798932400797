"""Dynamic Ensemble Reasoning (DER) as a LangGraph graph.

Names are imported when they are first used, so `import der_graph` loads neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from der_graph.chat_model import ChatDER
    from der_graph.errors import DERError
    from der_graph.graph import create_der_graph
    from der_graph.middleware import DERMiddleware
    from der_graph.nodes.expert import Expert
    from der_graph.nodes.ktp import KTPTemplate
    from der_graph.policies.agent import DERAgent, load_agent
    from der_graph.pool import Pool, load_pool
    from der_graph.state import DERContext, DERState

__version__ = "0.1.0"

_HOME = {
    "ChatDER": "der_graph.chat_model.chat_model",
    "DERAgent": "der_graph.policies.agent.agent",
    "DERContext": "der_graph.state",
    "DERError": "der_graph.errors",
    "DERMiddleware": "der_graph.middleware.middleware",
    "DERState": "der_graph.state",
    "Expert": "der_graph.nodes.expert.expert",
    "KTPTemplate": "der_graph.nodes.ktp",
    "Pool": "der_graph.pool.pool",
    "create_der_graph": "der_graph.graph",
    "load_agent": "der_graph.policies.agent.agent",
    "load_pool": "der_graph.pool.pool",
}

__all__ = [
    "ChatDER",
    "DERAgent",
    "DERContext",
    "DERError",
    "DERMiddleware",
    "DERState",
    "Expert",
    "KTPTemplate",
    "Pool",
    "create_der_graph",
    "load_agent",
    "load_pool",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        # The middleware's room says what to install where LangChain is missing.
        home = "der_graph.middleware" if name == "DERMiddleware" else _HOME[name]
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'der_graph' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
