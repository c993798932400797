"""What a `DriftWatch` begins with: how often experts agree, and are right, where they are well.

    what `der probe` found out ──shares──> DriftWatch

Without a profile the watch learns from the first routes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from der_graph.nodes.reliability.drift import DriftWatch
from der_graph.policies.planning.probing.profile import read_profile
from der_graph.policies.planning.tables import Floats

if TYPE_CHECKING:
    from der_graph.pool import Pool

_LEAST = 20  # questions of a profile from which on it is believed


def watch_for(pool: Pool) -> DriftWatch:
    """The watch over a pool's experts, with what its profile says of them.

    Raises:
        DataError: If the profile cannot be used.
    """
    if pool.settings.profile is None:
        return DriftWatch(pool.names)
    found = read_profile(pool.settings.profile).of(list(pool), pool.settings.profile)
    known = ~np.isnan(found.quality)
    quality = np.where(known, found.quality, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    agreement = _agreement(found.values)
    return DriftWatch(
        pool.names,
        None if agreement is None else agreement.tolist(),
        np.where(known.any(axis=0), quality, 0.5).tolist(),
    )


def _agreement(values: list[list[str | None]]) -> Floats | None:
    """(N, N) share of the questions on which two say the same; None where too few were answered by both."""
    said = np.array(values, dtype=object)
    there = said != None  # noqa: E711 - element by element
    both = there[:, :, None] & there[:, None, :]
    same = both & (said[:, :, None] == said[:, None, :])
    number = both.sum(axis=0)
    if number.min(initial=0) < _LEAST:
        return None
    return np.asarray(same.sum(axis=0) / number, dtype=np.float64)
