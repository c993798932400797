"""Training of the paper's agent: a causal language model, fine-tuned end to end by PPO.

    token ids ──TextExtractor (actor's own)──> 2 tanh layers ──> N + 1 scores
              └─TextExtractor (critic's own)─> 2 tanh layers ──> value

Both language models are features extractors of stable-baselines3, so the gradients of PPO reach all their
weights. Actor and critic have learning rates of their own, constant as in the authors' code. Dropout is off:
PPO compares probabilities before and after an update, and noise between the two is no change of the policy.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from der_graph.errors import AgentError, DERError
from der_graph.nodes.huggingface.loading import no_progress_bars
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent.text_agent import TextAgent, TextObserver, last_token
from der_graph.policies.answers import AnswerSource
from der_graph.policies.training.config import TrainConfig
from der_graph.policies.training.ppo import PPOLearner, batch_size, make_env, ppo_settings

_NOISE = ("dropout", "attention_dropout", "activation_dropout", "layerdrop")


class TextExtractor(BaseFeaturesExtractor):
    """A causal language model behind SB3's interface: token ids in, its last hidden state out.

    Args:
        observation_space: Token ids.
        model: Hub id or folder of the language model.
    """

    def __init__(self, observation_space: spaces.Box, model: str) -> None:
        encoder = _load_encoder(model)
        super().__init__(observation_space, features_dim=int(encoder.config.hidden_size))
        self.encoder = encoder

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) -> (batch, hidden). SB3 hands ids on as floats, which hold them exactly."""
        return last_token(self.encoder, observation)


class TextPolicy(MaskableActorCriticPolicy):
    """Actor and critic, each with a language model and a head of its own and its own learning rate.

    Args:
        *args: See SB3.
        critic_learning_rate: The critic's; the schedule's is the actor's.
        **kwargs: See SB3.
    """

    def __init__(self, *args: Any, critic_learning_rate: float, **kwargs: Any) -> None:
        self._critic_learning_rate = critic_learning_rate
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        actor = (self.pi_features_extractor, self.mlp_extractor.policy_net, self.action_net)
        critic = (self.vf_features_extractor, self.mlp_extractor.value_net, self.value_net)
        make: Any = self.optimizer_class
        self.optimizer = make(
            [
                {"params": _parameters(*actor), "lr": lr_schedule(1)},
                {"params": _parameters(*critic), "lr": self._critic_learning_rate},
            ],
            **self.optimizer_kwargs,
        )


class _TwoRatesPPO(MaskablePPO):
    """PPO that leaves the optimizer's learning rates as they are, each group its own."""

    def _update_learning_rate(self, optimizers: Any) -> None:
        self.logger.record("train/learning_rate", self.lr_schedule(1.0))


def text_learner(
    config: TrainConfig, source: AnswerSource, rules: RouteRules, metadata: dict[str, Any]
) -> PPOLearner:
    """The paper's agent.

    Args:
        config: The run's settings, with `text_encoder`.
        source: Training questions and answers.
        rules: What is allowed on a route.
        metadata: Kept in the agent's config file.

    Raises:
        AgentError: If the language model cannot be loaded, or reads shorter texts than wanted.
    """
    where, tokenizer, longest = _find(str(config.text_encoder))
    observer = TextObserver(tokenizer, min(config.text_tokens, longest))
    env = make_env(config, source, rules, observer)
    size = config.envs * config.rollout
    model = _TwoRatesPPO(
        TextPolicy,
        env,
        learning_rate=config.learning_rate,
        batch_size=batch_size(size, config.batch or size // 4),
        device="auto",
        policy_kwargs={
            "features_extractor_class": TextExtractor,
            "features_extractor_kwargs": {"model": where},
            "share_features_extractor": False,
            "net_arch": {"pi": [config.hidden] * 2, "vf": [config.hidden] * 2},
            "activation_fn": nn.Tanh,
            "ortho_init": False,  # it would overwrite the language models' weights as well
            "normalize_images": False,
            "critic_learning_rate": config.critic_learning_rate,
            "optimizer_class": torch.optim.AdamW,
            "optimizer_kwargs": {"weight_decay": config.weight_decay, "eps": 1e-5},
        },
        **ppo_settings(config),
    )
    policy: Any = model.policy
    with torch.no_grad():  # the first policy is close to uniform, as PPO wants it
        policy.action_net.weight.mul_(0.01)
        policy.action_net.bias.zero_()
    head = nn.Sequential(*policy.mlp_extractor.policy_net, policy.action_net)

    def agent_now() -> TextAgent:
        return TextAgent(
            observer,
            policy.pi_features_extractor.encoder,
            head,
            experts=list(zip(rules.names, rules.costs, strict=True)),
            cost_weight=config.cost_weight,
            metadata=dict(metadata),
        )

    return PPOLearner(env, model, agent_now, TextAgent.from_pretrained)


def _parameters(*modules: nn.Module) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]


def _find(model: str) -> tuple[str, Any, int]:
    """Where a language model is, its tokenizer, and the longest text that it reads."""
    from transformers import AutoConfig, AutoTokenizer

    from der_graph.nodes.huggingface import find_weights, weights_folder

    try:
        weights = find_weights(model)
        # From the hub transformers takes it itself: some old models have no safetensors beside them.
        where = model if weights.kind == "hub" else str(weights_folder(weights))
        tokenizer = AutoTokenizer.from_pretrained(where)
        config = AutoConfig.from_pretrained(where)
    except DERError as error:
        raise AgentError(f"text encoder '{model}': {error}") from error
    except (OSError, ValueError, KeyError) as error:
        raise AgentError(_not_loaded(model, error)) from error
    longest = getattr(config, "max_position_embeddings", None) or 10**6
    return where, tokenizer, min(int(longest), int(tokenizer.model_max_length))


def _load_encoder(model: str) -> Any:
    from transformers import AutoModel

    try:
        with no_progress_bars():  # ours is the bar of this run
            encoder: Any = AutoModel.from_pretrained(model, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise AgentError(_not_loaded(model, error)) from error
    for module in encoder.modules():  # some keep the number, some a layer
        for name in _NOISE:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


def _not_loaded(model: str, error: Exception) -> str:
    cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"text encoder '{model}' cannot be loaded ({cause}); give the hub id or the folder of a causal "
        "language model of transformers, such as facebook/opt-125m"
    )
