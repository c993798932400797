"""What a good answer is."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from der_graph.policies.quality import QualityMetric


def add_metric_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--metric-setting`."""
    parser.add_argument(
        "--metric-setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="setting of the metric, such as rubric=FILE or base_url=URL of judge:MODEL (may be repeated; "
        "${VARIABLE} stands for an environment variable)",
    )


def metric_of(args: argparse.Namespace, name: str) -> QualityMetric:
    """The metric of a name, with the settings of `add_metric_settings`."""
    from der_graph.errors import MetricError
    from der_graph.policies.quality import get_metric
    from der_graph.pool.backends import expand_variables

    settings: dict[str, Any] = {}
    for pair in args.metric_setting:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise MetricError(f"--metric-setting {pair}: give NAME=VALUE")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = expand_variables(value, f"--metric-setting {key}")
    return get_metric(name, **settings)


def add_trained_metric(parser: argparse.ArgumentParser) -> None:
    """Add `--metric` where a trained agent names the default."""
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="what a good answer is (default: the metric that the agent was trained with)",
    )
    add_metric_settings(parser)
