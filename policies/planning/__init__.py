"""Planning: whom to ask next, worked out under a model of who is right.

`Planner` is an agent that needs no training: `from_prior` knows nothing but sizes or prices, `fit` learns
from questions. Its knowledge of a pool is `Knowledge`; `Tree` is the plan. This room knows nothing of the
graph, of networks or of training.
"""

from der_graph.policies.planning.for_pool import planner_for
from der_graph.policies.planning.knowledge import Knowledge
from der_graph.policies.planning.learning.learner import Learner
from der_graph.policies.planning.planner import Planner
from der_graph.policies.planning.storage import load_knowledge, save_knowledge

__all__ = [
    "Knowledge",
    "Learner",
    "Planner",
    "load_knowledge",
    "planner_for",
    "save_knowledge",
]
