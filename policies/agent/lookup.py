"""Who decides: the agent that was given or named, else the pool's own, else the planner.

None | "planner" | "demo" | folder | Hub id | agent ──find_agent──> RoutingAgent
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from langgraph.store.base import BaseStore

from der_graph.errors import AgentError
from der_graph.nodes.decision import RoutingAgent
from der_graph.policies.agent.agent import load_agent
from der_graph.policies.planning import Learner, Planner, planner_for

if TYPE_CHECKING:
    from der_graph.pool import Pool

PLANNER = "planner"
"""Name of the agent that needs no training."""


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
