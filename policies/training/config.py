"""The settings of a training run, each with its meaning, its unit and where its default is from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from der_graph.errors import AgentError
from der_graph.policies.observation import ObservationConfig
from der_graph.policies.observation.price_of_cost import PRICE, PRICE_RANGE
from der_graph.policies.training.reward import PRESETS, RewardConfig


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; `preset("default")` or `preset("paper")` make one."""

    preset: str = "default"
    """`default`, or `paper` for the reward and the PPO settings of the authors' code."""
    steps: int = 60_000
    """Environment steps: decisions taken over all routes."""
    seed: int = 0
    """Of the weights, the order of the questions, the requests and the sampling."""
    envs: int = 256
    """Routes in lockstep. More make larger batches for the experts."""
    rollout: int = 8
    """Steps of each route between two updates; `envs * rollout` decisions make one update."""
    batch: int | None = None
    """Decisions in one minibatch; None takes a quarter of an update."""
    epochs: int = 4
    """Passes over the decisions of an update."""
    learning_rate: float = 1e-4
    """Of Adam at the beginning; falls linearly to zero."""
    weight_decay: float = 0.0
    """Of the weights (AdamW). Larger values keep the policy closer to one for all questions."""
    gamma: float = 1.0
    """Discount. 1 because the default reward telescopes to the final quality minus the cost."""
    gae_lambda: float = 0.95
    """Of the advantage estimate; 1 trusts the sampled route alone, 0 the critic alone."""
    clip: float = 0.2
    """How far one update may move a probability ratio."""
    entropy: float = 0.002
    """Weight of the entropy bonus at first; falls linearly to a tenth. Larger values explore longer."""
    hidden: int = 96
    """Width of the hidden layers; of each network of an ensemble."""
    any_pool: bool = False
    """Know experts by their profiles and score all by the same weights, so that experts can be added later;
    or learn this pool, with an output for each, as in the paper: what follows whom, chains and copies."""
    warm_start: Literal["none", "routes", "cascades"] = "routes"
    """What PPO begins with: `routes`, what a tree of routes over the training questions shows
    (`training/routes/`, for agents of one pool); `cascades`, the best agreement cascades
    (`policies/baselines/cascades.py`), for experts whose answers can be compared and do not depend on earlier
    ones; or random weights."""
    route_calls: int = 12
    """New answers of chat models that a question may take beyond every expert's first one, on average, while
    routes are tried before PPO; what was not asked is imputed. More find better chains of experts and cost
    more. Plain functions and recorded answers are free, and all their routes are tried."""
    transfer: Literal["auto", "always"] = "auto"
    """Who is shown the answer before: `auto`, whoever does not do better without it, as routes over the
    training questions tell; `always`, everyone, as in the paper."""
    ensemble: int = 3
    """Networks that learn from routes, each from a beginning of its own; the agent is their mean."""
    cost_weight: float = PRICE
    """The price of cost where a request names none: quality given up for the cost of asking everyone."""
    cost_weight_range: tuple[float, float] = PRICE_RANGE
    """Prices drawn in training, log-uniformly; one agent serves all of them."""
    budget_share: float = 0.1
    """Share of the training routes with a hard budget."""
    short_share: float = 0.2
    """Share of the training routes with a smaller `max_steps`, so that a request may ask for one."""
    evaluations: int = 15
    """How often the agent is evaluated on the dev questions."""
    keep: Literal["best", "last"] = "best"
    """Which agent is kept: the best on the dev questions, or the last one. With few dev questions the best is
    the luckiest, and the last one, at the end of the learning rate's decay, the better choice."""
    patience: int | None = None
    """Stop after so many evaluations without a better agent; None trains all steps."""
    text_encoder: str | None = None
    """Hub id or folder of a causal language model that reads the texts, fine-tuned end to end, in place of
    the network over features; None for the latter."""
    text_tokens: int = 512
    """Longest text that the language model reads."""
    critic_learning_rate: float = 1e-6
    """Of the critic's own language model and head; `learning_rate` is then the actor's. Both constant."""
    observation: ObservationConfig = field(
        default_factory=lambda: ObservationConfig(question_dims=8)
    )
    """What the agent sees."""
    features: tuple[str, ...] = ()
    """Features of other packages that the agent sees too; see `der_graph.policies.observation.Feature`."""
    reward: RewardConfig = field(default_factory=lambda: PRESETS["default"])
    """What it is paid for."""

    def __post_init__(self) -> None:
        for name in ("steps", "envs", "rollout", "epochs", "hidden", "ensemble"):
            if getattr(self, name) < 1:
                raise AgentError(
                    f"training: {name} is {getattr(self, name)}; it must be at least 1"
                )
        if self.route_calls < 0:
            raise AgentError(
                f"training: route_calls is {self.route_calls}; it must not be negative"
            )
        for name in ("budget_share", "short_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise AgentError(
                    f"training: {name} is {getattr(self, name)}; it is a share, from 0 to 1"
                )
        if self.any_pool and self.observation.fixed_pool:
            raise AgentError(
                "training: any_pool is for experts that come and go, observation.fixed_pool gives each an "
                "index; choose one of the two"
            )
        if self.patience is not None and self.patience < 1:
            raise AgentError(f"training: patience is {self.patience}; it must be at least 1")
        if self.warm_start not in ("none", "routes", "cascades"):
            raise AgentError(
                f"training: warm_start is '{self.warm_start}'; choose one of: none, routes, cascades"
            )
        if self.transfer not in ("auto", "always"):
            raise AgentError(
                f"training: transfer is '{self.transfer}'; choose one of: auto, always"
            )
        if self.warm_start == "routes" and self.any_pool:
            raise AgentError(
                "training: warm_start 'routes' learns one pool, any_pool is for experts that come and go; "
                "choose one of the two, or warm_start 'none' or 'cascades' with any_pool"
            )
        if self.text_encoder is not None:
            self._check_text()
        dims = self.observation
        for name in ("question_dims", "answer_dims"):
            if getattr(dims, name) < 0:
                raise AgentError(
                    f"training: {name} is {getattr(dims, name)}; it must not be negative"
                )
        low, high = self.cost_weight_range
        # Drawn log-uniformly, so from above 0; a price outside would be served but never trained.
        if not low <= self.cost_weight <= high or (low <= 0 and low != high):
            raise AgentError(
                f"training: the price of cost is {self.cost_weight:g}, but the agent would be trained "
                f"with prices from {low:g} to {high:g}, which must be above 0; give one among them"
            )

    def _check_text(self) -> None:
        low, high = self.cost_weight_range
        if low != high or self.budget_share or self.short_share:
            raise AgentError(
                "training: a text encoder reads question and answer and nothing else, so it cannot know "
                "the price of a request or its bounds; train it with one price and without bounds: "
                "preset('paper', text_encoder=...)"
            )
        if self.warm_start != "none":
            raise AgentError(
                "training: a warm start needs the price of a request, which a text encoder does not see; "
                "leave warm_start at 'none'"
            )
        if self.text_tokens < 8:
            raise AgentError(f"training: text_tokens is {self.text_tokens}; it must be at least 8")

    def plain(self) -> dict[str, Any]:
        """As plain data, for a config file."""
        return asdict(self)


_FROM_RANDOM: dict[str, Any] = {
    "steps": 300_000,
    "learning_rate": 1e-3,
    "entropy": 0.03,
    "hidden": 64,
    "observation": ObservationConfig(),
}
"""Settings that fit a beginning with random weights."""


def preset(name: str, **changes: Any) -> TrainConfig:
    """Make the settings of a preset, with changes.

    Args:
        name: `default`; or `paper`: with `text_encoder` the authors' agent, without it their reward and
            PPO settings for the small network.
        **changes: Fields of `TrainConfig`.

    Raises:
        AgentError: If there is no such preset, or a setting cannot be used.
    """
    if changes.get("warm_start") == "cascades":
        # Gently: what it has learnt is good, and much exploring would make it forget.
        rate, entropy = (1e-3, 0.01) if changes.get("any_pool") else (5e-4, 0.005)
        changes = {**_FROM_RANDOM, "learning_rate": rate, "entropy": entropy, **changes}
    if name == "default":
        if changes.get("any_pool"):
            changes = {"warm_start": "none", **_FROM_RANDOM, **changes}
        elif changes.get("warm_start") == "none":
            changes = {**_FROM_RANDOM, **changes}
        if "cost_weight" in changes and "cost_weight_range" not in changes:
            # A price outside of the usual range is trained for, with all between.
            low, high = TrainConfig.cost_weight_range
            price = changes["cost_weight"]
            changes["cost_weight_range"] = (min(low, price) or low, max(high, price))
        return replace(TrainConfig(), **changes)
    if name == "paper":
        # Authors' code at commit 67fc87a: gamma 0.95, clip 0.3, one price of cost (in the reward).
        paper: dict[str, Any] = {
            **_FROM_RANDOM,
            "preset": "paper",
            "gamma": 0.95,
            "clip": 0.3,
            "reward": PRESETS["paper"],
            "cost_weight": 1.0,
            "cost_weight_range": (1.0, 1.0),
            "any_pool": False,
            "warm_start": "none",
            "transfer": "always",
            "observation": ObservationConfig(),
            "budget_share": 0.0,
            "short_share": 0.0,
        }
        if changes.get("text_encoder") is not None:
            # Their learning rates, and 16 updates of 8 routes on 32 questions at a time: with the longest
            # route of 5, 4 passes over 160 decisions in 4 parts. Without a language model the small network
            # would not move at such rates, so it keeps its own (D7).
            paper |= {
                "steps": 20_000, "envs": 32, "rollout": 5, "batch": 40, "epochs": 4,
                "learning_rate": 1e-5, "critic_learning_rate": 1e-6, "hidden": 256,
            }  # fmt: skip
        if "cost_weight" in changes:  # one price: the one that is asked for
            price = changes["cost_weight"]
            changes = {"cost_weight_range": (price, price), **changes}
        return TrainConfig(**{**paper, **changes})
    raise AgentError(f"preset '{name}' is unknown; choose one of: default, paper")
