"""The DER-Agent at serving time: an observation in, a choice out.

`find_agent` says who decides, `load_agent` reads an agent's folder. Serving needs neither stable-baselines3
nor gymnasium, and never
unpickles. This room knows nothing of training.
"""

from der_graph.policies.agent.agent import DERAgent, TrainedAgent, load_agent
from der_graph.policies.agent.folder import find_agent_folder, learnt_from, trained_metric
from der_graph.policies.agent.lookup import find_agent

__all__ = [
    "DERAgent",
    "TrainedAgent",
    "find_agent",
    "find_agent_folder",
    "learnt_from",
    "load_agent",
    "trained_metric",
]
