"""The MDP for stable-baselines3: many routes in lockstep as one vectorised environment.

An episode is a route: the reset draws a question, the price of cost and now and then a bound; an action is
an expert or END. Reaching the longest route is `terminated`, not `truncated`, because it is part of the
task and no value must be bootstrapped past it. Environments that chose the same expert share one batched
generation, and all observations are encoded in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from der_graph.errors import DataError
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.observation.price_of_cost import PRICE, PRICE_RANGE
from der_graph.policies.training.mdp import Lockstep, Route
from der_graph.policies.training.reward import RewardConfig, step_reward
from der_graph.state import DERContext, Situation, good_answers

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[Any]
"""Observations: float32 features, or int32 token ids."""


class SituationObserver(Protocol):
    """What an environment needs of an observer: `Observer`, or `TextObserver` for a language model."""

    @property
    def size(self) -> int:
        """Length of an observation."""

    def observe(self, situations: Sequence[Situation], cost_weights: Sequence[float]) -> Rows:
        """Observe situations: (n, size)."""


class RoutingVecEnv(VecEnv):
    """Vectorised environment of routes in lockstep.

    Args:
        source: Answers and their qualities.
        rules: What is allowed on a route.
        observer: Turns situations into observations.
        reward: The reward.
        episodes: Draws questions and requests.
        num_envs: Routes at once.
    """

    def __init__(
        self,
        source: AnswerSource,
        rules: RouteRules,
        observer: SituationObserver,
        reward: RewardConfig,
        episodes: Episodes,
        num_envs: int,
    ) -> None:
        if not source.examples:
            raise DataError("there are no questions to train on")
        self.lockstep = Lockstep(source, rules, num_envs)
        self.observer = observer
        self.reward = reward.for_pool(rules.costs)
        self.episodes = episodes
        self._actions: npt.NDArray[np.int64] = np.zeros(num_envs, dtype=np.int64)
        self._returns = np.zeros(num_envs, dtype=np.float64)
        space = _space(observer)
        super().__init__(num_envs, space, spaces.Discrete(len(rules.names) + 1))

    def reset(self) -> Rows:
        """Begin a new route everywhere."""
        for position in range(self.num_envs):
            self.lockstep.start(position, *self.episodes.draw())
        self._returns[:] = 0.0
        return self.observe()

    def observe(self) -> Rows:
        """The observations of all routes as they stand: (num_envs, size)."""
        situations = [self.lockstep.situation(p) for p in range(self.num_envs)]
        return self.observer.observe(
            situations, [_weight(s, self.episodes.requests) for s in situations]
        )

    def masks(self) -> npt.NDArray[np.bool_]:
        """Which choices are allowed: bool, (num_envs, N + 1)."""
        return np.array([self.lockstep.mask(p) for p in range(self.num_envs)], dtype=np.bool_)

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Remember the actions."""
        self._actions = np.asarray(actions, dtype=np.int64)

    def step_wait(self) -> tuple[Rows, Floats, npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Take the step: observations, rewards, dones, infos.

        Where a route ended, the observation is that of the next route, as stable-baselines3 wants it. The
        terminal one is not made: it would only be read for truncated episodes, and there are none.
        """
        rewards, ended, infos = self.take(self._actions)
        for position in np.flatnonzero(ended).tolist():
            self.lockstep.start(position, *self.episodes.draw())
        return self.observe(), rewards, ended, infos

    def take(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Floats, npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Take a step everywhere and leave ended routes as they ended: rewards, ended, infos."""
        routes = list(self.lockstep.routes)
        step = self.lockstep.advance(actions.tolist())
        contexts = [route.context for route in routes]
        default = self.episodes.requests.cost_weight
        weights = np.array(
            [default if c.cost_weight is None else c.cost_weight for c in contexts],
            dtype=np.float32,
        )
        rewards = step_reward(
            self.reward,
            quality=step.quality,
            previous_quality=step.previous,
            cost=step.cost,
            is_first=step.first,
            ends=step.chose_end,
            reached_max_steps=np.array([self._at_the_limit(route) for route in routes])
            & ~step.chose_end,
            cost_weight=weights,
        )
        self._returns += rewards
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for position in np.flatnonzero(step.ended).tolist():
            route = routes[position]
            infos[position] = {
                "episode": {"r": float(self._returns[position]), "l": len(route.choices), "t": 0.0},
                "quality": route.quality,
                "cost": route.spent,
                "experts": [c for c in route.choices if c < len(self.lockstep.rules.names)],
                "TimeLimit.truncated": False,
            }
            self._returns[position] = 0.0
        return rewards, step.ended, infos

    def _at_the_limit(self, route: Route) -> bool:
        # Not merely ended: a budget may end a route before the longest is reached.
        return len(good_answers(route.answers)) >= self.lockstep.rules.steps(
            route.context.max_steps
        )

    def state(self) -> dict[str, Any]:
        """Everything needed to go on from here, as plain data; answers are asked for again."""
        routes = [
            {
                "example": route.example,
                "choices": list(route.choices),
                "context": asdict(route.context),
            }
            for route in self.lockstep.routes
        ]
        return {
            "episodes": self.episodes.state(),
            "routes": routes,
            "returns": self._returns.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> Rows:
        """Go on from a saved state, by taking the saved routes' steps again."""
        self.episodes.restore(state["episodes"])
        self._returns[:] = state["returns"]
        saved = state["routes"]
        for position, route in enumerate(saved):
            self.lockstep.start(position, route["example"], DERContext(**route["context"]))
        for t in range(max(len(route["choices"]) for route in saved)):
            going = [p for p, route in enumerate(saved) if len(route["choices"]) > t]
            self.lockstep.advance([saved[p]["choices"][t] for p in going], going)
        return self.observe()

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Attributes that SB3 asks for; there are no separate environments that could have others."""
        if attr_name == "render_mode":
            return [None] * self.num_envs
        if attr_name == "action_masks":  # how sb3-contrib finds out that masks are supported
            return [self.masks] * self.num_envs
        raise AttributeError(f"RoutingVecEnv has no attribute {attr_name!r} per environment")

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not supported: there are no separate environments."""
        raise AttributeError(f"RoutingVecEnv has no attribute {attr_name!r} per environment")

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        """The one method that is asked of environments: `action_masks`."""
        if method_name == "action_masks":
            return list(self.masks())
        raise AttributeError(f"RoutingVecEnv has no method {method_name!r} per environment")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Never wrapped."""
        return [False] * self.num_envs


class RoutingEnv(gym.Env[Rows, int]):
    """One route at a time, for everything that speaks Gymnasium. Training uses `RoutingVecEnv`.

    The last observation of an episode is that of the ended route; `reset` draws the next question.

    An action that is not allowed (see `action_masks`) ends the episode with a reward of -1, for algorithms
    that know no masks.

    Args:
        source: Answers and their qualities.
        rules: What is allowed on a route.
        observer: Turns situations into observations.
        reward: The reward.
        requests: What requests look like.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        source: AnswerSource,
        rules: RouteRules,
        observer: SituationObserver,
        reward: RewardConfig,
        requests: RequestConfig | None = None,
    ) -> None:
        def make(seed: int) -> RoutingVecEnv:
            drawn = requests or RequestConfig()
            episodes = Episodes(len(source.examples), drawn, rules.costs, seed, rules.max_steps)
            return RoutingVecEnv(source, rules, observer, reward, episodes, 1)

        self._make = make
        self._env = make(0)
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Rows, dict[str, Any]]:
        """Begin a new route; a seed fixes this and all later questions."""
        super().reset(seed=seed)
        if seed is not None:
            self._env = self._make(seed)
        return self._env.reset()[0], {}

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which choices are allowed now: bool, (N + 1,)."""
        mask: npt.NDArray[np.bool_] = self._env.masks()[0]
        return mask

    def step(self, action: int) -> tuple[Rows, float, bool, bool, dict[str, Any]]:
        """Ask an expert, or end."""
        if not self.action_masks()[int(action)]:
            return self._env.observe()[0], -1.0, True, False, {"forbidden": True}
        rewards, ended, infos = self._env.take(np.array([int(action)]))
        return self._env.observe()[0], float(rewards[0]), bool(ended[0]), False, infos[0]


def _space(observer: SituationObserver) -> spaces.Box:
    tokens = getattr(observer, "vocabulary", None)
    if tokens is None:
        return spaces.Box(-np.inf, np.inf, (observer.size,), np.float32)
    # Token ids; -1 is padding.
    return spaces.Box(-1, tokens - 1, (observer.size,), np.int32)


def _weight(situation: Situation, requests: RequestConfig) -> float:
    return requests.cost_weight if situation.cost_weight is None else situation.cost_weight


@dataclass(frozen=True)
class RequestConfig:
    """What the requests of training look like, so that one agent serves every price and budget.

    Attributes:
        cost_weight: The price of cost, in quality for the cost of asking everyone once, where it is fixed.
        cost_weight_range: Prices are drawn log-uniformly from it; (w, w) fixes them.
        budget_share: Share of the episodes that have a hard budget, drawn log-uniformly between the
            cheapest call and everyone's.
        short_share: Share of the episodes with a `max_steps` of their own, drawn evenly from those below the
            longest route.
    """

    cost_weight: float = PRICE
    cost_weight_range: tuple[float, float] = PRICE_RANGE
    budget_share: float = 0.1
    short_share: float = 0.2


class Episodes:
    """Draws what each new episode is about: every question once per pass, in a new order each pass.

    Args:
        examples: Number of questions.
        requests: What requests look like.
        costs: Price of one call of each expert.
        seed: Of the order and of the requests.
        max_steps: Longest route.
    """

    def __init__(
        self,
        examples: int,
        requests: RequestConfig,
        costs: Sequence[float],
        seed: int,
        max_steps: int,
    ) -> None:
        self.requests = requests
        self._examples = examples
        self._max_steps = max_steps
        self._cheapest = max(min(costs), 1e-9)
        self._total = max(sum(costs), self._cheapest)
        self.rng = np.random.default_rng(seed)
        self._order: list[int] = []

    def draw(self) -> tuple[int, DERContext]:
        """The next question and its request."""
        if not self._order:
            self._order = self.rng.permutation(self._examples).tolist()
        low, high = self.requests.cost_weight_range
        weight = float(np.exp(self.rng.uniform(np.log(low), np.log(high)))) if low < high else low
        budget = None
        if self.rng.random() < self.requests.budget_share:
            budget = float(np.exp(self.rng.uniform(np.log(self._cheapest), np.log(self._total))))
        steps = None
        if self._max_steps > 1 and self.rng.random() < self.requests.short_share:
            steps = int(self.rng.integers(1, self._max_steps))
        context = DERContext(max_cost=budget, cost_weight=weight, max_steps=steps)
        return self._order.pop(), context

    def state(self) -> dict[str, Any]:
        """Everything needed to go on from here, as plain data."""
        return {"rng": self.rng.bit_generator.state, "order": list(self._order)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.rng.bit_generator.state = state["rng"]
        self._order = list(state["order"])
