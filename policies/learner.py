"""What is trained: an environment, PPO on it, and how an agent is made of the weights.

    answers ──Observer──> RoutingVecEnv ──MaskablePPO with the routing network──> DERAgent

`text_training.py` makes the same of a language model that reads the texts (preset `paper`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO

from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent, TrainedAgent
from der_graph.policies.answers import AnswerSource, Outcome
from der_graph.policies.encoder import TextEncoder
from der_graph.policies.env import RoutingVecEnv, SituationObserver
from der_graph.policies.episodes import Episodes, RequestConfig
from der_graph.policies.evidence import answer_tokens
from der_graph.policies.features import PROFILE_FEATURES
from der_graph.policies.network import Shape
from der_graph.policies.observation import Observer
from der_graph.policies.sb3_policy import NetworkExtractor, RoutingPolicy
from der_graph.policies.train_config import TrainConfig


@dataclass(frozen=True)
class Learner:
    """What is trained.

    Attributes:
        env: The training environment.
        model: PPO on it.
        agent_now: Makes an agent of the present weights.
        reload: Reads an agent folder of this kind.
    """

    env: RoutingVecEnv
    model: Any
    agent_now: Callable[[], TrainedAgent]
    reload: Callable[[Path], TrainedAgent]


def features_learner(
    config: TrainConfig,
    source: AnswerSource,
    rules: RouteRules,
    first: Sequence[Sequence[Outcome]],
    encoder: TextEncoder,
    metadata: dict[str, Any],
) -> Learner:
    """The default: a small network over features of the situation.

    Args:
        config: The run's settings.
        source: Training questions and answers.
        rules: What is allowed on a route.
        first: Every expert's first answer to every question.
        encoder: The frozen sentence encoder.
        metadata: Kept in the agent's config file.
    """
    quality = np.array([[o.quality for o in row] for row in first], dtype=np.float32)
    lengths = np.array(
        [[np.nan if o.answer["error"] else answer_tokens(o.answer) for o in row] for row in first],
        dtype=np.float32,
    )
    observer = Observer.fit(
        config.observation,
        rules.names,
        rules.costs,
        encoder,
        questions=source.questions,
        answers=[o.answer["text"] for row in first for o in row if o.answer["text"]][:20_000],
        qualities=quality,
        lengths=lengths,
        values=[[o.answer["value"] for o in row] for row in first],
        descriptions=[expert.description for expert in source.experts],
        features=PROFILE_FEATURES if config.any_pool else None,
    )
    env = make_env(config, source, rules, observer)
    shape = Shape(
        len(observer.names),
        observer.context_size,
        observer.expert_size,
        config.hidden,
        "profile" if config.any_pool else "fixed",
    )
    size = config.envs * config.rollout
    model = MaskablePPO(
        RoutingPolicy,
        env,
        learning_rate=_Linear(config.learning_rate),
        batch_size=batch_size(size, config.batch or size // 4),
        device="cpu",  # a small MLP is faster there, and the experts may fill the GPU
        policy_kwargs={
            "features_extractor_class": NetworkExtractor,
            "features_extractor_kwargs": {"shape": shape},
            "optimizer_class": torch.optim.AdamW,
            "optimizer_kwargs": {"weight_decay": config.weight_decay, "eps": 1e-5},
        },
        **ppo_settings(config),
    )
    policy: Any = model.policy
    return Learner(
        env,
        model,
        lambda: DERAgent(
            observer,
            policy.network,
            cost_weight=config.cost_weight,
            cost_weight_range=config.cost_weight_range,
            metadata=dict(metadata),
        ),
        lambda folder: DERAgent.from_pretrained(folder, encoder=encoder),
    )


def make_env(
    config: TrainConfig, source: AnswerSource, rules: RouteRules, observer: SituationObserver
) -> RoutingVecEnv:
    """The training environment."""
    requests = RequestConfig(
        config.cost_weight, config.cost_weight_range, config.budget_share, config.short_share
    )
    episodes = Episodes(len(source.examples), requests, rules.costs, config.seed, rules.max_steps)
    return RoutingVecEnv(source, rules, observer, config.reward, episodes, config.envs)


def ppo_settings(config: TrainConfig) -> dict[str, Any]:
    """Arguments of `MaskablePPO` that do not depend on the network."""
    return {
        "n_steps": config.rollout,
        "n_epochs": config.epochs,
        "gamma": config.gamma,
        "gae_lambda": config.gae_lambda,
        "clip_range": config.clip,
        "ent_coef": config.entropy,
        "seed": config.seed,
    }


def batch_size(size: int, wanted: int) -> int:
    """The largest divisor of an update up to what is wanted: SB3 warns of a truncated last minibatch."""
    return next(b for b in range(max(1, min(wanted, size)), 0, -1) if size % b == 0)


class _Linear:
    """A learning rate that falls linearly from `start` to zero."""

    def __init__(self, start: float) -> None:
        self.start = start

    def __call__(self, remaining: float) -> float:
        return self.start * remaining
