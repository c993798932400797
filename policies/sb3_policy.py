"""The routing network as a stable-baselines3 policy. Training only; serving uses the network bare.

SB3 builds a policy from a features extractor, an MLP and two heads. Here the features extractor is the whole
network and the rest passes its two outputs on, so that what is trained is exactly what is served.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from der_graph.policies.network import RoutingNetwork, Shape, make_network


class NetworkExtractor(BaseFeaturesExtractor):
    """The routing network behind SB3's interface: scores, then the value, as one row.

    Args:
        observation_space: Flat observations.
        shape: Sizes of the network.
    """

    def __init__(self, observation_space: spaces.Box, shape: Shape) -> None:
        super().__init__(observation_space, features_dim=shape.experts + 2)
        self.network = make_network(shape)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """(batch, size) -> (batch, N + 2)."""
        scores, value = self.network(observation)
        return torch.cat([scores, value.unsqueeze(1)], dim=1)


class _Split(nn.Module):
    """Hands the actor its scores and the critic its value."""

    def __init__(self, choices: int) -> None:
        super().__init__()
        self.latent_dim_pi = choices
        self.latent_dim_vf = 1

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, :-1]

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, -1:]


class RoutingPolicy(MaskableActorCriticPolicy):
    """Actor-critic policy with the routing network inside; see `NetworkExtractor`."""

    def _build(self, lr_schedule: Any) -> None:
        choices = int(self.action_space.n)  # type: ignore[attr-defined]
        self.mlp_extractor = _Split(choices)  # type: ignore[assignment]
        self.action_net = nn.Identity()
        self.value_net = nn.Identity()  # type: ignore[assignment]
        make: Any = self.optimizer_class
        self.optimizer = make(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    @property
    def network(self) -> RoutingNetwork:
        """The network itself."""
        extractor: NetworkExtractor = self.features_extractor  # type: ignore[assignment]
        return extractor.network
