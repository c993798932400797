"""The ensemble behind an OpenAI-compatible HTTP interface: one module for each concern of it.

    bytes ──protocol──> ChatRequest ──engine──> events of the route ──replies──> JSON or server-sent events
    app: the endpoints · access: keys, limits, log · metrics · failures · running: signals, shutdown

`der_graph.server` is the way in.
"""
