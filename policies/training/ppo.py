"""PPO on the routing network: environment, policy and learner, put together.

    answers ──Observer──> RoutingVecEnv ──MaskablePPO with the routing network──> DERAgent

stable-baselines3 builds a policy from a features extractor, an MLP and two heads. Here the features
extractor is the whole network, and the rest passes its two outputs on, so what is trained is exactly what
is served. `text_training.py` does the same with a language model that reads the texts (preset `paper`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from langchain_core.runnables import RunnableLambda, RunnableSequence
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from der_graph.nodes.expert import Expert, counted_size
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.reliability import bare
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent, TrainedAgent
from der_graph.policies.agent.network import RoutingNetwork, Shape, make_network, one_thread
from der_graph.policies.answers import AnswerSource, Outcome
from der_graph.policies.observation import ObservationConfig, Observer, TextEncoder
from der_graph.policies.observation.call_costs import CostScale, expected_costs, fit_call_costs
from der_graph.policies.observation.evidence import answer_tokens
from der_graph.policies.observation.features import PROFILE_FEATURES, ROUTE_FEATURES, FeatureNames
from der_graph.policies.training.config import TrainConfig
from der_graph.policies.training.env import (
    Episodes,
    RequestConfig,
    RoutingVecEnv,
    SituationObserver,
)
from der_graph.policies.training.preflight import Verdict
from der_graph.policies.training.routes.alone import better_alone
from der_graph.policies.training.routes.lesson import RouteLesson, prepare_lesson


@dataclass(frozen=True)
class PPOLearner:
    """What is trained.

    Attributes:
        env: The training environment.
        model: PPO on it.
        agent_now: Makes an agent of the present weights.
        reload: Reads an agent folder of this kind.
        lesson: Routes to learn from before PPO, if it begins with them.
        alone: Experts that are never shown an earlier answer.
    """

    env: RoutingVecEnv
    model: Any
    agent_now: Callable[[], TrainedAgent]
    reload: Callable[[Path], TrainedAgent]
    lesson: RouteLesson | None = None
    alone: tuple[str, ...] = ()


def features_learner(
    config: TrainConfig,
    source: AnswerSource,
    rules: RouteRules,
    first: Sequence[Sequence[Outcome]],
    encoder: TextEncoder,
    metadata: dict[str, Any],
    verdicts: Sequence[Verdict] = (),
    alone: Sequence[str] | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> PPOLearner:
    """The default: a small network over features of the situation.

    Args:
        config: The run's settings.
        source: Training questions and answers.
        rules: What is allowed on a route.
        first: Every expert's first answer to every question.
        encoder: The frozen sentence encoder.
        metadata: Kept in the agent's config file.
        verdicts: Users' scores of single answers, which count as results of their experts.
        alone: Experts that are never shown an earlier answer; None finds out who does better so.
        say: Receives a line about them.
    """
    quality = np.array([[o.quality for o in row] for row in first], dtype=np.float32)
    lengths = np.array(
        [[np.nan if o.answer["error"] else answer_tokens(o.answer) for o in row] for row in first],
        dtype=np.float32,
    )
    costs, call_costs = learnt_costs(source.experts, first)
    observer = Observer.fit(
        _seen(config, first),
        rules.names,
        costs,
        encoder,
        questions=source.questions,
        answers=[o.answer["text"] for row in first for o in row if o.answer["text"]][:20_000],
        qualities=quality,
        lengths=lengths,
        values=[[o.answer["value"] for o in row] for row in first],
        descriptions=[expert.description for expert in source.experts],
        features=_features(config),
        call_costs=call_costs,
        scale=CostScale(sum(costs) or 1.0, len(costs), rules.cost_unit),
    )
    if verdicts:
        observer = observer.with_results(
            [verdict.example.question for verdict in verdicts],
            [verdict.expert for verdict in verdicts],
            [verdict.quality for verdict in verdicts],
        )
    lesson = None
    bounded = not all(map(_free, source.experts))
    if config.warm_start == "routes":
        calls = float(config.route_calls) if bounded else None

        def prepared(source: AnswerSource) -> RouteLesson:
            return prepare_lesson(
                observer,
                source,
                rules,
                first,
                encoder,
                seed=config.seed,
                calls=calls,
                price_range=config.cost_weight_range,
            )

        # What is asked on the way to `alone` counts, and is known to what follows.
        lesson = prepared(source) if bounded or not alone else None
        if alone is None and lesson is not None and config.transfer == "auto":
            found = better_alone(lesson, config.cost_weight_range)
            alone = found.experts
            if alone:
                say(found.line())
        if alone:
            source = source.asking_alone(alone)
            lesson = prepared(source)
        if lesson is not None:
            observer, source = lesson.observer, lesson.source
    env = make_env(config, source, rules, observer, costs)
    shape = Shape(
        len(observer.names),
        observer.context_size,
        observer.expert_size,
        config.hidden * (1 if lesson is None else config.ensemble),
        "profile" if config.any_pool else "fixed",
    )
    size = config.envs * config.rollout
    model = RoutingPPO(
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
    return PPOLearner(
        env,
        model,
        lambda: DERAgent(
            observer,
            policy.network,
            cost_weight=config.cost_weight,
            cost_weight_range=config.cost_weight_range,
            alone=alone or (),
            metadata=dict(metadata),
        ),
        lambda folder: DERAgent.from_pretrained(folder, encoder=encoder),
        lesson,
        tuple(alone or ()),
    )


def _free(expert: Expert) -> bool:
    """Does asking it cost next to nothing: a plain function, or recorded answers?"""
    return isinstance(bare(expert.model), RecordedChat) or _is_function(expert.model)


def _is_function(model: Any) -> bool:
    """Is it a function, or functions one after another? A prompt and a model are not, nor is a graph."""
    model = bare(model)
    if isinstance(model, RunnableSequence):
        return all(map(_is_function, model.steps))
    return isinstance(model, RunnableLambda)


def _features(config: TrainConfig) -> FeatureNames:
    """What the agent sees by name; features of other packages last."""
    own = ROUTE_FEATURES if config.warm_start == "routes" else FeatureNames()
    return (PROFILE_FEATURES if config.any_pool else own).plus(config.features)


def _seen(config: TrainConfig, first: Sequence[Sequence[Outcome]]) -> ObservationConfig:
    """What the agent sees: answers are encoded where most of them have no value to compare."""
    if config.warm_start != "routes":
        return config.observation
    answers = [o.answer for row in first for o in row if o.answer["error"] is None]
    valued = sum(answer["value"] is not None for answer in answers)
    if valued < _COMPARABLE * len(answers):
        return config.observation
    return replace(config.observation, answer_dims=0)


_COMPARABLE = 0.7
"""Share of the answers with a value, from which on answers are compared by it and not encoded."""


def make_env(
    config: TrainConfig,
    source: AnswerSource,
    rules: RouteRules,
    observer: SituationObserver,
    costs: Sequence[float] | None = None,
) -> RoutingVecEnv:
    """The training environment; `costs` are what calls are expected to cost, the rules' where left out."""
    requests = RequestConfig(
        config.cost_weight, config.cost_weight_range, config.budget_share, config.short_share
    )
    episodes = Episodes(len(source.examples), requests, rules.costs, config.seed, rules.max_steps)
    reward = config.reward.for_pool(rules.costs if costs is None else costs)
    return RoutingVecEnv(source, rules, observer, reward, episodes, config.envs)


def learnt_costs(
    experts: Sequence[Expert], first: Sequence[Sequence[Outcome]]
) -> tuple[list[float], dict[str, Any]]:
    """What calls of experts are expected to cost, by their first answers, and what `fit_call_costs` gives."""
    charges = [expert.charge for expert in experts]
    sizes = [
        [counted_size(outcome.answer, charge) for outcome, charge in zip(row, charges, strict=True)]
        for row in first
    ]
    learnt = fit_call_costs(sizes, charges)
    return expected_costs([e.cost for e in experts], charges, learnt.get("call_size")), learnt


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
        return self.start * max(0.0, remaining)  # the last update may end beyond the last step


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
        with one_thread():
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


class RoutingPPO(MaskablePPO):
    """PPO that updates the network in one thread, as experts may need the others."""

    def train(self) -> None:
        """One update."""
        with one_thread():
            super().train()


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
