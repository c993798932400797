"""The planner of a pool: made of all that is known of its experts.

sizes or prices, what their owner says, what `der probe` found out ──planner_for──> Planner
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from der_graph.policies.observation import SentenceEncoder, TextEncoder
from der_graph.policies.planning.planner import Planner
from der_graph.policies.planning.probing.profile import read_profile
from der_graph.policies.planning.probing.sizes import sizes_of

if TYPE_CHECKING:
    from der_graph.pool import Pool

_CALL = 0.02  # quality given up for a call of the pool's mean price
_MOST = 0.2  # quality given up for the cost of asking everyone


def planner_for(pool: Pool, *, encoder: TextEncoder | None = None, **settings: Any) -> Planner:
    """The planner for a pool, with all that is known of its experts.

    Args:
        pool: The experts.
        encoder: Tells the kind of a question. Where left out, MiniLM does if a skill is given by kind;
            otherwise all questions are of one kind.
        settings: `price` and `depth` as for `Planner`; where no price is given, a call of the pool's mean
            price is worth two points of quality, and asking everyone 20 at most.

    Raises:
        DataError: If a skill is no probability.
    """
    experts = list(pool)
    sizes = sizes_of(experts, pool.settings.cost_unit)
    hints = [expert.skill for expert in experts]
    known: dict[str, Any] = {
        "sizes": sizes if all(sizes) else None,
        "hints": hints if any(hint is not None for hint in hints) else None,
        "seconds": [expert.seconds for expert in experts],
    }
    costs = [expert.cost for expert in experts]
    settings.setdefault("price", min(_MOST, _CALL * len(experts)))
    by_kind = any(isinstance(hint, Mapping) for hint in hints)
    encoder = encoder or (SentenceEncoder() if by_kind else None)
    if pool.settings.profile is not None:
        found = read_profile(pool.settings.profile).of(experts, pool.settings.profile)
        return Planner.fit(
            pool.names,
            costs,
            [example.question for example in found.examples],
            found.quality,
            found.values,
            texts=found.texts,
            encoder=encoder,
            **known,
            **settings,
        )
    return Planner.from_prior(pool.names, costs, encoder=encoder, **known, **settings)
