"""The ensemble behind an OpenAI-compatible HTTP interface: one module for each concern of it.

    bytes ──protocol──> ChatRequest ──engine──> events of the route ──replies──> JSON or server-sent events
    app: the endpoints · access: keys, limits, log · metrics · failures · process: signals, shutdown

`create_app` gives the ASGI application, `serve` runs it. This room knows HTTP; it decides nothing about
routes.
"""

from der_graph.server.process import in_background
from der_graph.server.server import create_app, read_keys, serve

__all__ = ["create_app", "in_background", "read_keys", "serve"]
