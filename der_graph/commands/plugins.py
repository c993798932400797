"""`der plugins`: what other packages add to der-graph."""

from __future__ import annotations

import argparse

from der_graph.commands.options import Commands


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "plugins",
        help="list the extensions of other packages",
        description="Lists backends, metrics, baselines, encoders, KTP templates and features: those of "
        "der-graph, then those of other packages. docs/extending.md says how to write one.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command: import every extension and say whether that worked."""
    from der_graph.errors import PluginError
    from der_graph.nodes.ktp import TEMPLATES
    from der_graph.plugins import KINDS, find_plugin, plugins
    from der_graph.policies.evaluation.methods import BASELINES
    from der_graph.policies.observation.encoder import DEFAULT_ENCODER
    from der_graph.policies.observation.features import STATE_FEATURES
    from der_graph.policies.quality import metric_names
    from der_graph.pool.backends import BACKENDS

    own = {
        "backends": BACKENDS,
        "metrics": metric_names(),
        "baselines": BASELINES,
        "encoders": [DEFAULT_ENCODER],
        "ktp_templates": list(TEMPLATES),
        "features": STATE_FEATURES,
    }
    broken = 0
    for kind, protocol in KINDS.items():
        print(f"{kind} ({protocol})")
        print(f"  der-graph: {', '.join(own[kind])}")
        for name, point in plugins(kind).items():
            brings = f" (package {point.dist.name} {point.dist.version})" if point.dist else ""
            try:
                find_plugin(kind, name)
                print(f"  {name}: {point.value}{brings}")
            except PluginError as error:
                broken += 1
                print(f"  {name}: CANNOT BE USED: {error}")
    return 2 if broken else 0
