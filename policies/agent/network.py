"""The actor and critic of the agent: one score per expert, one for END, one value.

    context (C) ──> h ──┬─ with each expert's features (F) ──> e_1 ... e_N ──> one score each
                        └─ with the mean of e_1 ... e_N ─────> score of END

The head `shared`, in the picture, scores every expert by the same weights from its own features, so the
pool's order and size are not built into the network; `profile`, for agents that take any pool, adds a direct
path. The head `fixed` reads the whole observation at once and has an output for every expert, as in the
paper: it learns more about its pool, in less time, and knows no other. Actor and critic share nothing, as in
the paper; layers are tanh, as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import nn


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch: for small matrices it is faster, and more of them give other last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Shape(NamedTuple):
    """Sizes of a network.

    Attributes:
        experts: Number of experts N in training; the weights do not depend on it.
        context: Context features C.
        expert: Features of one expert F.
        hidden: Width of the hidden layers.
        head: `shared`, `fixed` or `profile`.
    """

    experts: int
    context: int
    expert: int
    hidden: int
    head: Literal["shared", "fixed", "profile"] = "shared"

    @property
    def observation(self) -> int:
        """Length of the flat observation: C + N * F."""
        return self.context + self.experts * self.expert


class Trunk(nn.Module):
    """Context and experts in, one hidden vector per expert and one for the whole pool out.

    Args:
        shape: Sizes of the network.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.context = nn.Linear(shape.context, shape.hidden)
        self.expert = nn.Linear(shape.hidden + shape.expert, shape.hidden)
        self.pool = nn.Linear(2 * shape.hidden, shape.hidden)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read flat observations.

        Args:
            observation: float32, (batch, C + N * F).

        Returns:
            (batch, N, hidden) and (batch, hidden).
        """
        shape = self.shape
        context = torch.tanh(self.context(observation[:, : shape.context]))
        # However many there are: the pool may have changed since training.
        experts = observation[:, shape.context :].reshape(len(observation), -1, shape.expert)
        # The layer reads (context, expert). The context's part is the same for all experts: computed once.
        weight = self.expert.weight
        shared = nn.functional.linear(context, weight[:, : shape.hidden], self.expert.bias)
        alone = nn.functional.linear(experts, weight[:, shape.hidden :])
        each = torch.tanh(shared.unsqueeze(1) + alone)
        # The mean, so that the number of experts does not change the scale.
        pool = torch.tanh(self.pool(torch.cat([context, each.mean(dim=1)], dim=1)))
        return each, pool


class RoutingNetwork(nn.Module):
    """Scores the choices of a situation.

    Args:
        shape: Its sizes.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Score all choices.

        Args:
            observation: float32, (batch, C + N * F).

        Returns:
            Scores (batch, N + 1), END last, before any mask; values (batch,).
        """
        raise NotImplementedError

    def _initialise(self, *outputs: nn.Linear) -> None:
        """Orthogonal weights; the actor's last layers small: the first policy is close to uniform."""
        with one_thread():
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.orthogonal_(layer.weight, gain=2**0.5)
                    nn.init.zeros_(layer.bias)
            for layer in outputs:
                nn.init.orthogonal_(layer.weight, gain=0.01)


class SharedHead(RoutingNetwork):
    """Every expert scored by the same weights; see the picture above."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.actor = Trunk(shape)
        self.critic = Trunk(shape)
        self.score_expert = nn.Linear(shape.hidden, 1)
        self.score_end = nn.Linear(shape.hidden, 1)
        self.value = nn.Linear(shape.hidden, 1)
        self._initialise(self.score_expert, self.score_end)
        with one_thread():
            nn.init.orthogonal_(self.value.weight, gain=1.0)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `RoutingNetwork`; N may differ from the one in training."""
        each, pool = self.actor(observation)
        scores = torch.cat([self.score_expert(each).squeeze(2), self.score_end(pool)], dim=1)
        value = self.value(self.critic(observation)[1]).squeeze(1)
        return scores, value


class ProfileHead(SharedHead):
    """The shared head, and beside it a score that is linear in an expert's features.

    It is learned at once, holds beyond the experts of training, and leaves the layers what is not linear.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.direct = nn.Linear(shape.expert, 1, bias=False)
        nn.init.zeros_(self.direct.weight)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `RoutingNetwork`; N may differ from the one in training."""
        scores, value = super().forward(observation)
        shape = self.shape
        experts = observation[:, shape.context :].reshape(len(observation), -1, shape.expert)
        direct = self.direct(experts).squeeze(2)
        return torch.cat([scores[:, :-1] + direct, scores[:, -1:]], dim=1), value


class FixedHead(RoutingNetwork):
    """An output for every expert, over the whole observation: two hidden layers, as in the paper."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.actor = _layers(shape, shape.experts + 1)
        self.critic = _layers(shape, 1)
        last: nn.Linear = self.actor[-1]  # type: ignore[assignment]
        self._initialise(last)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `RoutingNetwork`."""
        return self.actor(observation), self.critic(observation).squeeze(1)


def make_network(shape: Shape) -> RoutingNetwork:
    """The network of a shape.

    Raises:
        ValueError: If there is no such head.
    """
    if shape.head not in HEADS:
        raise ValueError(f"network head '{shape.head}' is unknown; known: {', '.join(HEADS)}")
    return HEADS[shape.head](shape)


HEADS: dict[str, type[RoutingNetwork]] = {
    "shared": SharedHead,
    "fixed": FixedHead,
    "profile": ProfileHead,
}


def _layers(shape: Shape, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(shape.observation, shape.hidden),
        nn.Tanh(),
        nn.Linear(shape.hidden, shape.hidden),
        nn.Tanh(),
        nn.Linear(shape.hidden, outputs),
    )


def masked_probabilities(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax over the allowed choices only.

    Args:
        scores: (batch, choices).
        mask: bool, (batch, choices); True where allowed, at least one in each row.

    Returns:
        (batch, choices), rows sum to 1, exactly 0 where not allowed.

    Raises:
        ValueError: If a row allows nothing; a softmax would then spread over what is forbidden.
    """
    if not bool(mask.any(dim=1).all()):
        raise ValueError(
            "a situation allows no choice at all; the rules always leave an expert or END"
        )
    return torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=1)
