"""Training of the agent with PPO: the MDP, its reward, the environment, the learner.

`train_agent` runs it all. The MDP (`mdp`) and the reward know no library; `env` and `ppo` know stable-
baselines3. This room knows nothing of baselines' reports or of the graph.
"""

from der_graph.policies.training.config import TrainConfig, preset
from der_graph.policies.training.mdp import run_routes
from der_graph.policies.training.train import split_dev, train_agent

__all__ = ["TrainConfig", "preset", "run_routes", "split_dev", "train_agent"]
