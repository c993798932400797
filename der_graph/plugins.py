"""Extensions: classes of other packages, found by their entry points and listed by `der plugins`.

    [project.entry-points."der_graph.metrics"]        # in the pyproject.toml of a package
    politeness = "my_package:Politeness"

`docs/extending.md` has an example of each kind. Names that der-graph brings itself always mean its own.
Another package is imported only when one of its names is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from der_graph.errors import PluginError

KINDS: Mapping[str, str] = {
    "backends": "der_graph.pool.Backend",
    "metrics": "der_graph.policies.quality.QualityMetric",
    "baselines": "der_graph.policies.baselines.Baseline",
    "encoders": "der_graph.policies.observation.TextEncoder",
    "ktp_templates": "der_graph.nodes.ktp.KTPTemplate",
    "features": "der_graph.policies.observation.Feature",
}
"""The kinds, with what each has to be; the entry points of a kind are in the group `der_graph.<kind>`."""


def plugins(kind: str) -> dict[str, EntryPoint]:
    """What other packages bring of one kind, by name.

    Args:
        kind: One of `KINDS`.

    Raises:
        PluginError: If two packages bring the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"der_graph.{kind}"):
        known = found.setdefault(point.name, point)
        if known.value != point.value:
            raise PluginError(
                f"two packages bring {kind} '{point.name}': {known.value} and {point.value}; uninstall one"
            )
    return dict(sorted(found.items()))


def find_plugin(kind: str, name: str) -> Any | None:
    """Import what another package brings under a name.

    Args:
        kind: One of `KINDS`.
        name: As in the entry point.

    Returns:
        The object that the entry point names; None if there is none of this name.

    Raises:
        PluginError: If it cannot be imported.
    """
    point = plugins(kind).get(name)
    if point is None:
        return None
    try:
        return point.load()
    except Exception as error:  # anything may go wrong while another package is imported
        raise PluginError(
            f"{kind} '{name}' ({point.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error


def import_object(name: str) -> Any:
    """Import what `module:attribute` names.

    Raises:
        PluginError: If it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise PluginError(f"{name!r}: write module:name, such as my_module:answer")
    try:
        found = import_module(module)
    except Exception as error:  # anything may go wrong while somebody's code is imported
        raise PluginError(
            f"'{name}' cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(found, attribute)
    except AttributeError:
        where = getattr(found, "__file__", None) or "built in"
        raise PluginError(
            f"'{name}': the module '{module}' ({where}) has no '{attribute}'"
        ) from None


def known_names(kind: str, own: Mapping[str, Any] | list[str] | tuple[str, ...]) -> str:
    """The names that may be given, for an error message: der-graph's own, then those of other packages."""
    return ", ".join([*own, *plugins(kind)])
