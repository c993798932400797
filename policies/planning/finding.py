"""Who decides: the agent that was given or named, else the pool's own, else the planner.

    None | "planner" | "demo" | folder | Hub id | agent ──find_agent──> RoutingAgent

The planner is made of what is known of the experts: their sizes or prices, what their owner says, and what
`der probe` found out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langgraph.store.base import BaseStore

from der_graph.errors import AgentError
from der_graph.nodes.decision import RoutingAgent
from der_graph.policies.agent import load_agent
from der_graph.policies.observation import SentenceEncoder, TextEncoder
from der_graph.policies.planning.learning.learner import Learner
from der_graph.policies.planning.planner import Planner
from der_graph.policies.planning.probing.profile import read_profile
from der_graph.policies.planning.probing.sizes import sizes_of

if TYPE_CHECKING:
    from der_graph.pool import Pool

PLANNER = "planner"
"""Name of the agent that needs no training."""

_CALL = 0.02  # quality given up for a call of the pool's mean price
_MOST = 0.2  # quality given up for the cost of asking everyone


def find_agent(
    agent: RoutingAgent | str | os.PathLike[str] | None,
    pool: Pool,
    *,
    learn: BaseStore | str | os.PathLike[str] | None = None,
    explore: float = 0.0,
    shadow: bool = False,
) -> RoutingAgent:
    """The agent that is meant.

    Args:
        agent: An agent; `planner`, `demo`, an agent's folder or Hub id; None for what the pool says, which is
            the planner where it says nothing.
        pool: The experts.
        learn: Where to keep what is learnt from routes; None for not learning.
        explore: See `Learner`.
        shadow: Let the planner learn and say what it would do, but decide nothing; so it is with every agent
            that is no planner.

    Raises:
        AgentError: If there is no such agent.
        DataError: If the pool's profile, or what it says of its experts, cannot be used.
    """
    if agent is None:
        agent = pool.settings.agent or PLANNER
    if isinstance(agent, (str, os.PathLike)):
        agent = planner_for(pool) if str(agent) == PLANNER else load_agent(agent)
    if not hasattr(agent, "decide") or not hasattr(agent, "check_pool"):
        raise AgentError(
            f"agent is {agent!r}; give an agent, 'planner', 'demo', an agent's folder, or nothing"
        )
    if learn is None or isinstance(agent, Learner):
        return agent
    if isinstance(agent, Planner) and not shadow:
        return Learner(agent, learn, explore=explore)
    return Learner(planner_for(pool), learn, acting=agent)


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
    by_kind = any(isinstance(hint, Mapping) for hint in hints)
    encoder = encoder or (SentenceEncoder() if by_kind else None)
    return Planner.from_prior(pool.names, costs, encoder=encoder, **known, **settings)
