"""Traces: what hides texts in them, and a LangSmith client that does so, or that sends to OpenTelemetry.

    runs of a route ──redact──> the same runs with numbers and names, without texts ──> a tracer

The graph needs nothing of this to be traced: LangChain's tracers see every decision as a run `der_decision`
and every expert as a run of its own (docs/tracing.md). Nothing is sent unless tracing is on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from der_graph.errors import DERError, require
from der_graph.nodes.providers.secrets import held_secrets, mask_secrets

if TYPE_CHECKING:
    from langsmith import Client

Hide = Callable[[str], str]
"""Gives what is shown in place of a text."""

PLAIN_KEYS = frozenset(
    "batch_size choice der_experts expert experts finish_reason kind lc lc_versions model model_name "
    "node provider reason role run_id runtime tags task_id thread_id trace_id type version".split()
)
"""Keys whose texts are names that the program gave, and are kept."""

PLAIN_PREFIXES = (
    "checkpoint",
    "der_",
    "graph_",
    "langgraph_",
    "lc_",
    "ls_",
    "LANGSMITH_",
    "langsmith",
)
"""Prefixes of such keys: metadata of LangGraph, LangSmith and this package."""

_LANGCHAIN_ID = ("langchain", "langchain_core", "langgraph")
_ERROR_NAME = re.compile(r"[A-Za-z_][\w.]*(?=\()")


class TracingError(DERError, ValueError):
    """A setting of traces that cannot be used."""


def hidden(text: str) -> str:
    """What stands for a text: how long it was."""
    return f"[hidden: {len(text)} characters]"


def redact(data: Any, hide: Hide = hidden) -> Any:
    """Hide the texts of a run's inputs, outputs, metadata or error.

    Numbers, truth values, keys and the names that programs give (experts, choices, reasons, models) stay, so
    that a trace still says why an expert was asked. Every other text is hidden, whatever its key.

    Args:
        data: What JSON can hold.
        hide: Gives what is shown in place of a text.

    Returns:
        A copy without the texts.

    Examples:
        >>> redact({"question": "Who am I?", "probabilities": {"small": 0.9}, "choice": "small"})
        {'question': '[hidden: 9 characters]', 'probabilities': {'small': 0.9}, 'choice': 'small'}
    """
    if isinstance(data, Mapping):
        return {key: _value(key, value, hide) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [redact(each, hide) for each in data]
    if isinstance(data, str):
        return hide(data) if data else data
    if data is None or isinstance(data, bool | int | float):
        return data
    return hide(str(data))


def without_secrets(data: Any) -> Any:
    """Mask what looks like a secret in the texts of a run, and what secret environment variables hold.

    Args:
        data: What JSON can hold.

    Returns:
        A copy without secrets.

    Examples:
        >>> without_secrets({"error": "Incorrect API key provided: sk-proj-0123456789"})
        {'error': 'Incorrect API key provided: ***'}
    """
    return _without(data, held_secrets())


def _without(data: Any, secrets: Sequence[str]) -> Any:
    if isinstance(data, Mapping):
        return {key: _without(value, secrets) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without(each, secrets) for each in data]
    return mask_secrets(data, secrets) if isinstance(data, str) else data


def tracing_client(
    *, redact: bool | Hide = False, tracer_provider: Any = None, **settings: Any
) -> Client:
    """Make a LangSmith client for traces of routes.

    Args:
        redact: Hide texts, and not only what looks like a key or a password: True, or what is shown in place
            of a text. Holds for inputs, outputs, errors and metadata of all runs that this client sends,
            those of the app around the graph included.
        tracer_provider: An OpenTelemetry `TracerProvider`. Runs become its spans, with `gen_ai.*` attributes,
            and nothing is sent to LangSmith.
        settings: Those of `langsmith.Client`, such as `api_url` and `api_key`.

    Raises:
        TracingError: If settings contradict each other.
        MissingDependencyError: If OpenTelemetry is wanted and not installed.

    Examples:
        ```python
        from langsmith import tracing_context

        client = tracing_client(redact=True)
        with tracing_context(enabled=True, client=client, project_name="der"):
            der.invoke({"messages": [("user", "What is 37 * 48?")]})
        client.flush()
        ```
    """
    from langsmith import Client

    if redact and "anonymizer" in settings:
        raise TracingError("give redact or anonymizer, not both: redact is an anonymizer")
    if redact:
        hide = hidden if redact is True else redact
        settings["anonymizer"] = lambda data: _redact(data, hide)
    settings.setdefault("anonymizer", without_secrets)
    if tracer_provider is not None:
        require("opentelemetry.sdk", extra="tracing", why="traces by OpenTelemetry")
        settings |= {"otel_tracer_provider": tracer_provider, "tracing_mode": "otel"}
    return Client(**settings)


_redact = redact  # the name is an argument above


def _value(key: Any, value: Any, hide: Hide) -> Any:
    name = str(key)
    if name == "error" and isinstance(value, str):
        found = _ERROR_NAME.match(value)
        return f"{found[0]}: {hide(value)}" if found else redact(value, hide)
    if name == "id" and isinstance(value, list) and value and value[0] in _LANGCHAIN_ID:
        return value  # the class of a serialized message
    if name in PLAIN_KEYS or name.startswith(PLAIN_PREFIXES):
        if isinstance(value, str):
            return value
        if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
            return list(value)
    return redact(value, hide)
