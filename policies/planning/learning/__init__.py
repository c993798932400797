"""Learning in service: routes are kept in a store, and the planner's skills follow them.

`Learner` is the planner that learns. This room knows nothing of graphs and servers.
"""

from der_graph.policies.planning.learning.learner import Learner

__all__ = ["Learner"]
