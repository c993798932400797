"""What several commands share: options, how their values are read, and where they report to."""

from __future__ import annotations

from typing import Any

from der_graph.commands.options.common import (
    add_address,
    add_cache,
    add_fresh,
    add_seed,
    answer_cache,
)
from der_graph.commands.options.experts import (
    add_allow_python,
    add_pool,
    add_pool_and_agent,
    pool_of,
)
from der_graph.commands.options.metrics import add_metric_settings, add_trained_metric, metric_of
from der_graph.commands.options.questions import (
    add_columns,
    add_data,
    columns_of,
    examples_of,
    seen_warning,
)
from der_graph.commands.options.reporting import say
from der_graph.commands.options.requests import add_request, request_context
from der_graph.commands.options.values import cost, cost_range, quality, seconds, variable

Commands = Any
"""What `ArgumentParser.add_subparsers` returns; argparse has no public name for it."""

__all__ = [
    "Commands",
    "add_address",
    "add_allow_python",
    "add_cache",
    "add_columns",
    "add_data",
    "add_fresh",
    "add_metric_settings",
    "add_pool",
    "add_pool_and_agent",
    "add_request",
    "add_seed",
    "add_trained_metric",
    "answer_cache",
    "columns_of",
    "cost",
    "cost_range",
    "examples_of",
    "metric_of",
    "pool_of",
    "quality",
    "request_context",
    "say",
    "seconds",
    "seen_warning",
    "variable",
]
