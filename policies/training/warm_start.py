"""A good beginning for training: the policy first learns to do what the best cascades do.

    env ──situations──> teacher ──its choices──> policy (cross-entropy), critic (the teacher's returns)

PPO from random weights needs many routes to find out that asking a second small expert and comparing is worth
it, at every price. Behaviour cloning gives it that in seconds, and PPO goes on from there: it stops earlier
where the evidence allows, and leaves the teacher where it is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from der_graph.nodes.decision import Choice
from der_graph.policies.training.env import RoutingVecEnv
from der_graph.state import Situation

ROUNDS = 40
"""Times that the teacher's choices are collected and learnt."""
STEPS = 8
"""Decisions per route and round."""
EPOCHS = 4
BATCH = 512
LEARNING_RATE = 1e-3


class Teacher(Protocol):
    """Whom the policy imitates: any agent that decides."""

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation."""


class _Shown(NamedTuple):
    """What the teacher did; arrays of (steps, envs, ...)."""

    observations: npt.NDArray[np.float32]
    masks: npt.NDArray[np.bool_]
    choices: npt.NDArray[np.int64]
    rewards: npt.NDArray[np.float32]
    ended: npt.NDArray[np.bool_]


def imitate(
    policy: Any, env: RoutingVecEnv, teacher: Teacher, *, gamma: float = 1.0, rounds: int = ROUNDS
) -> float:
    """Teach a policy what a teacher does.

    Args:
        policy: Of `MaskablePPO`, on this environment; changed in place.
        env: The training environment, with the questions, prices and budgets of training.
        teacher: Whom to imitate.
        gamma: Discount of the returns that the critic learns.
        rounds: Rounds of collecting and learning.

    Returns:
        Share of the teacher's choices in the last round that the policy, as it was before that round, would
        have made.
    """
    optimizer = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE)
    observation = env.reset()
    agreement = 0.0
    policy.set_training_mode(True)
    for turn in range(rounds):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - turn / rounds)
        shown, observation = _watch(env, teacher, observation)
        returns, known = _returns(shown, gamma)
        flat = [torch.as_tensor(part.reshape(-1, *part.shape[2:])) for part in shown[:3]]
        observations, masks, choices = flat
        wanted, counts = torch.as_tensor(returns.ravel()), torch.as_tensor(known.ravel())
        with torch.no_grad():
            scores = policy.get_distribution(observations, action_masks=masks).distribution.logits
        agreement = float((scores.argmax(1) == choices).float().mean())
        for _ in range(EPOCHS):
            for some in torch.split(torch.randperm(len(choices)), BATCH):
                values, log_prob, _ = policy.evaluate_actions(
                    observations[some], choices[some], action_masks=masks[some]
                )
                error = (values.flatten() - wanted[some]) ** 2 * counts[some]
                loss = -log_prob.mean() + 0.5 * error.mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
                optimizer.step()
    return agreement


def _watch(
    env: RoutingVecEnv, teacher: Teacher, observation: npt.NDArray[Any]
) -> tuple[_Shown, npt.NDArray[Any]]:
    """Let the teacher route for some steps; also the observation after them."""
    steps = []
    for _ in range(STEPS):
        situations = [env.lockstep.situation(position) for position in range(env.num_envs)]
        masks = env.masks()
        choices = np.array([choice.index for choice in teacher.decide(situations)], dtype=np.int64)
        env.step_async(choices)
        after, rewards, ended, _ = env.step_wait()
        steps.append((observation, masks, choices, rewards, ended))
        observation = after
    return _Shown(*(np.stack(part) for part in zip(*steps, strict=True))), observation


def _returns(
    shown: _Shown, gamma: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(steps, envs): discounted rewards to the end of the route; and 1 where that end was seen, else 0."""
    returns = np.zeros_like(shown.rewards)
    known = np.zeros_like(shown.rewards)
    rest = np.zeros_like(shown.rewards[0])
    seen = np.zeros_like(shown.rewards[0])
    for t in reversed(range(len(shown.rewards))):
        ended = shown.ended[t]
        rest = shown.rewards[t] + gamma * np.where(ended, 0.0, rest)
        seen = np.where(ended, 1.0, seen)
        returns[t], known[t] = rest, seen
    return returns, known
