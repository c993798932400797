"""What an agent has to beat: single experts, votes, cascades, one-shot routers, mixtures, rankers.

Each is an agent like the trained one (`decide`), so all are measured by the same code. This room knows
nothing of reports.
"""

from der_graph.policies.baselines.cascades import BestCascades
from der_graph.policies.baselines.mixture import MixtureOfAgents
from der_graph.policies.baselines.rankers import RewardRanker
from der_graph.policies.baselines.routers import PREDICTORS, OneShotRouter
from der_graph.policies.baselines.simple import (
    Baseline,
    FixedOrder,
    Oracle,
    Random,
    Single,
    certain,
)
from der_graph.policies.baselines.voting import Cascade, RunAll, Select

__all__ = [
    "PREDICTORS",
    "Baseline",
    "BestCascades",
    "Cascade",
    "FixedOrder",
    "MixtureOfAgents",
    "OneShotRouter",
    "Oracle",
    "Random",
    "RewardRanker",
    "RunAll",
    "Select",
    "Single",
    "certain",
]
