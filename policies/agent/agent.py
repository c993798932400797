"""The DER-Agent at serving time: safetensors and JSON in, decisions out. Needs neither SB3 nor gymnasium.

    situation ──Observer──> observation ──RoutingNetwork──> scores ──mask, softmax──> the most probable choice

Training samples; serving takes the most probable choice (paper, section 3.4). The folder follows the Hub's
conventions: `agent.safetensors` and `config.json`, nothing that could run code when it is loaded.

An agent whose head is `fixed` has an output for each expert of its training. Over another pool, with
experts left out, in another order or at other prices, the missing ones are masked and the order is
translated. Prices are among its inputs and follow the pool, but it has not learnt what another price means.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from der_graph.errors import AgentError, DataError
from der_graph.nodes.decision import Choice, check_known
from der_graph.nodes.reliability.charge import Charge
from der_graph.policies.agent.folder import (
    agent_kind,
    check_experts,
    find_agent_folder,
    kept_metadata,
    known_names,
    part_of,
    read_config,
    read_features,
    read_weights,
    reading,
    same_encoder,
    write_agent,
)
from der_graph.policies.agent.takeover import Takeover
from der_graph.policies.observation import ObservationConfig, Observer, TextEncoder
from der_graph.policies.observation.call_costs import CostScale
from der_graph.policies.observation.features import ROUTE_FEATURES
from der_graph.policies.planning import Planner, load_knowledge, save_knowledge
from der_graph.policies.planning.storage import forget_knowledge
from der_graph.state import Situation

if TYPE_CHECKING:
    from der_graph.policies.agent.bandit import BanditAgent
    from der_graph.policies.agent.network import RoutingNetwork
    from der_graph.policies.agent.text_agent import TextAgent


TrainedAgent: TypeAlias = "DERAgent | TextAgent | BanditAgent"
"""What training makes and an agent folder holds."""

_ABOUT = 0.05  # of quality: no difference worth paying for

_ARRAYS = "observer."
_NETWORK = "network."


class DERAgent:
    """A trained agent.

    Args:
        observer: Turns situations into observations.
        network: Scores the choices.
        cost_weight: The price of cost where a request names none.
        cost_weight_range: Prices that the agent was trained with; requests are clipped to it.
        prices: Prices taken in turn where a request names none, each with its share of the questions; the one
            `cost_weight` where left out.
        takeovers: Policies that decide at some prices in the network's place.
        planner: The planner, where it is one of them.
        alone: Experts that are never shown an earlier answer: with it they did worse in training.
        metadata: Anything else to keep in the config file: training settings, versions, results.
    """

    def __init__(
        self,
        observer: Observer,
        network: RoutingNetwork,
        *,
        cost_weight: float,
        cost_weight_range: tuple[float, float],
        prices: Sequence[tuple[float, float]] = (),
        takeovers: Sequence[Takeover] = (),
        planner: Planner | None = None,
        alone: Sequence[str] = (),
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.observer = observer
        self.network = network.eval()
        self.cost_weight = cost_weight
        self.cost_weight_range = cost_weight_range
        self.prices = tuple(prices)
        self.alone = tuple(alone)
        self.metadata = metadata or {}
        self.take_over(takeovers, planner)

    @property
    def settings(self) -> dict[str, Any]:
        """All but observer and network, as the class takes it."""
        return {
            "cost_weight": self.cost_weight,
            "cost_weight_range": self.cost_weight_range,
            "prices": self.prices,
            "takeovers": self.takeovers,
            "planner": self.planner,
            "alone": self.alone,
            "metadata": self.metadata,
        }

    def take_over(self, takeovers: Sequence[Takeover], planner: Planner | None = None) -> None:
        """Let these policies decide at their prices, and no others."""
        self.takeovers = tuple(takeovers)
        self.planner = planner
        self._served_planner = None if planner is None else _planner_over(planner, self.observer)

    def set_prices(self, prices: Sequence[tuple[float, float]]) -> None:
        """Take these prices where a request names none, each for its share of the questions."""
        self.cost_weight = max(prices, key=lambda pair: pair[1])[0]
        self.prices = tuple(prices) if len(prices) > 1 else ()

    def usual_price(self, question: str) -> float:
        """The price of a question whose request names none; the same one whenever it is asked."""
        digest = hashlib.blake2b(question.encode("utf-8", "replace"), digest_size=6).digest()
        place = int.from_bytes(digest, "big") / 256**6
        for price, share in self.prices[:-1]:
            if place < share:
                return price
            place -= share
        return self.prices[-1][0] if self.prices else self.cost_weight

    def _prices(self, situations: Sequence[Situation]) -> list[float]:
        """The price of each situation: its request's, within the range of training, or the usual one."""
        low, high = self.cost_weight_range
        return [
            self.usual_price(s.question)
            if s.cost_weight is None
            else min(high, max(low, s.cost_weight))
            for s in situations
        ]

    @property
    def names(self) -> list[str]:
        """The experts that the agent knows, in order."""
        return self.observer.names

    @property
    def fallback(self) -> str:
        """Whom to ask where no decision can be made: the cheapest of those that are about as good as any."""
        skill = self.observer.skill
        good = [i for i in range(len(skill)) if skill[i] >= skill.max() - _ABOUT]
        return self.observer.names[min(good, key=lambda i: float(self.observer.costs[i]))]

    @property
    def positional(self) -> bool:
        """Does it tell experts by their position in training, so that no new one can be added?"""
        by_output = self.network.shape.head == "fixed" and not self._knows_routes
        return by_output or self.observer.config.fixed_pool

    @property
    def _knows_routes(self) -> bool:
        """Did it learn from routes: at other prices of the experts too, with a critic to trust?"""
        return self.observer.features.expert == ROUTE_FEATURES.expert

    def check_pool(self, names: Sequence[str]) -> None:
        """Check that the agent knows every expert of a pool; order and number do not matter.

        Raises:
            AgentPoolMismatchError: If it does not.
        """
        way = "Train" if self.positional else "Add an expert with der pool add, or train"
        train = "an agent for this pool: der train --pool FILE --data FILE --out FOLDER"
        check_known(self.names, names, f"{way} {train}")

    def for_pool(
        self,
        names: Sequence[str],
        costs: Sequence[float],
        *,
        charges: Sequence[Charge] = (),
        unit: str = "",
    ) -> DERAgent:
        """The agent for a pool of experts that it knows: some of them, in any order, at present prices.

        Args:
            names: The pool's experts, in order.
            costs: Price of one call of each.
            charges: How calls are charged; those charged by what they use are expected to be of the size that
                they had in training.
            unit: What costs count, where that is known.

        Returns:
            This agent if nothing differs; otherwise another one with the same weights.

        Raises:
            AgentPoolMismatchError: If it does not know one of them.
        """
        self.check_pool(names)
        seen = self.observer
        if seen.scale is not None and unit and seen.scale.unit not in ("", unit):
            seen = seen.with_scale(None)  # nothing that was learnt says what the new unit is worth
        costs = seen.expected_costs(names, costs, charges)
        learnt = [float(seen.costs[seen.names.index(name)]) for name in names]
        if list(names) == self.names and np.allclose(costs, learnt, atol=0.0):
            return self
        if self.network.shape.head == "fixed":
            if not self._knows_routes:
                warn_of_prices(names, learnt, costs)
            if list(names) != seen.names:
                return PartOfPool(self.over(seen), names, costs)
        return self.over(seen.for_pool(names, costs))

    def over(self, observer: Observer) -> DERAgent:
        """The same weights over another observer; one with more experts than outputs has newcomers."""
        if self.network.shape.head == "fixed" and len(observer.names) > self.network.shape.experts:
            from der_graph.policies.agent.new_experts import WithNewcomers

            return WithNewcomers(self, observer)
        return DERAgent(observer, self.network, **self.settings)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation, all in one batch.

        Args:
            situations: Any number, with masks of the pool's length + 1.

        Returns:
            The most probable allowed choice of each, with all probabilities and the critic's value.
        """
        import torch

        from der_graph.policies.agent.network import masked_probabilities

        weights = self._prices(situations)
        observation = torch.from_numpy(self.observer.observe(situations, weights))
        mask = torch.tensor([s.mask for s in situations], dtype=torch.bool)
        with torch.inference_mode():
            scores, values = self.network(observation)
            probabilities = masked_probabilities(scores, mask).tolist()
        # Python's max, not argmax: the first of equals on every machine.
        choices = [
            Choice(max(range(len(row)), key=row.__getitem__), row, value, weight)
            for row, value, weight in zip(probabilities, values.tolist(), weights, strict=True)
        ]
        return self._taken_over(situations, weights, choices) if self.takeovers else choices

    def _taken_over(
        self, situations: Sequence[Situation], weights: Sequence[float], choices: list[Choice]
    ) -> list[Choice]:
        """The choices, with those of other policies at their prices."""
        found = list(choices)
        planned: list[tuple[int, Takeover]] = []
        simple: list[tuple[int, Takeover]] = []
        for i, weight in enumerate(weights):
            takeover = next((each for each in self.takeovers if each.decides(weight)), None)
            if takeover is not None:
                (planned if takeover.planner else simple).append((i, takeover))
        if simple:
            right_now, expected = self.observer.believe(
                [situations[i] for i, _ in simple], [weights[i] for i, _ in simple]
            )
            worth = np.column_stack([expected, right_now])
            for (i, takeover), row in zip(simple, worth, strict=True):
                choice = takeover.choose(situations[i], self.names, row, weights[i])
                # An order is worth what it ends with, and not less than what the network would bring.
                known = [each for each in (choice.value, choices[i].value) if each is not None]
                found[i] = replace(choice, value=max(known, default=None))
        if planned and self._served_planner is not None:
            # The planner counts prices in what its own experts cost together.
            scale = sum(self._served_planner.costs) / max(self.observer.total, 1e-12)
            asked = [replace(situations[i], cost_weight=weights[i] * scale) for i, _ in planned]
            for (i, takeover), plan in zip(
                planned, self._served_planner.decide(asked), strict=True
            ):
                said = plan.explanation or {}
                why = f"{takeover.why}: {said.get('why', '')}"
                found[i] = replace(plan, cost_weight=weights[i], explanation={**said, "why": why})
        return found

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the agent folder: `agent.safetensors` and `config.json`."""
        network = {
            _NETWORK + name: tensor.detach().cpu().numpy().astype(np.float32)
            for name, tensor in self.network.state_dict().items()
        }
        arrays = {_ARRAYS + name: array for name, array in self.observer.arrays.items()}
        shape = self.network.shape
        config = {
            "experts": [
                {"name": name, "cost": float(cost), "index": index}
                for name, cost, index in zip(
                    self.observer.names, self.observer.costs, self.observer.indices, strict=True
                )
            ],
            "network": shape._asdict(),
            "observation": self.observer.describe(),
            "features": {
                name: list(value) for name, value in self.observer.features._asdict().items()
            },
            "cost_scale": None if self.observer.scale is None else self.observer.scale._asdict(),
            "cost_weight": self.cost_weight,
            "cost_weight_range": list(self.cost_weight_range),
            "prices": [list(pair) for pair in self.prices],
            "takeovers": [each.plain() for each in self.takeovers],
            "alone": list(self.alone),
            **self.metadata,
        }
        if self.planner is not None:
            save_knowledge(self.planner.knowledge, folder)
        write_agent(folder, {**network, **arrays}, config)
        if self.planner is None:  # not before: the agent that was there may need it until now
            forget_knowledge(folder)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, encoder: TextEncoder | None = None
    ) -> DERAgent:
        """Read an agent folder.

        Args:
            folder: A local folder, or the id of a repository on the Hugging Face Hub.
            encoder: Replaces the encoder named in the config; it must be the same model.

        Raises:
            AgentError: If it is not an agent folder, or was written by a newer version.
        """
        from der_graph.policies.agent.network import Shape, make_network

        path = find_agent_folder(folder)
        config = read_config(path)
        check_experts(path, config)
        tensors = read_weights(path)
        with reading(path):
            settings = dict(config["observation"])
            encoder_name = settings.pop("encoder")
            if not isinstance(encoder_name, str) or not encoder_name.strip():
                raise ValueError(f"observation.encoder is {encoder_name!r}; it is a model's name")
            features = read_features(path, config)
            observer = Observer(
                ObservationConfig(**settings),
                [expert["name"] for expert in config["experts"]],
                [expert["cost"] for expert in config["experts"]],
                same_encoder(encoder, encoder_name, path),
                {name: tensor.numpy() for name, tensor in part_of(tensors, _ARRAYS).items()},
                features,
                _identity(config, len(features.expert)),
                # Agents from before have none: their prices count in the cost of asking everyone.
                CostScale(**config["cost_scale"]) if config.get("cost_scale") else None,
            )
            network = make_network(Shape(**config["network"]))
            network.load_state_dict(part_of(tensors, _NETWORK))
            low, high = config["cost_weight_range"]
            fixed = network.shape.head == "fixed"
            known = observer.some(network.shape.experts) if fixed else observer
            takeovers = list(map(Takeover.read, config.get("takeovers") or ()))
            agent = cls(
                known,
                network,
                cost_weight=float(config["cost_weight"]),
                cost_weight_range=(float(low), float(high)),
                prices=[
                    (float(price), float(share)) for price, share in config.get("prices") or ()
                ],
                takeovers=takeovers,
                planner=_planner_in(path, known) if any(t.planner for t in takeovers) else None,
                alone=known_names(config, "alone"),
                metadata=kept_metadata(config),
            )
            return agent if known is observer else agent.over(observer)


@overload
def load_agent(name: Literal["demo"] = "demo") -> DERAgent: ...
@overload
def load_agent(name: str | os.PathLike[str]) -> TrainedAgent: ...
def load_agent(name: str | os.PathLike[str] = "demo") -> TrainedAgent:
    """Load an agent: `demo` for the shipped one, an agent folder, or `hf://owner/name` on the Hub.

    What `kind` in its config says decides: `text` is the paper's agent, a fine-tuned language model; `bandit`
    is for runs with tools.

    Raises:
        AgentError: If there is no such agent, or it cannot be read.
    """
    if str(name) == "demo":
        return DERAgent.from_pretrained(Path(str(files("der_graph") / "demo" / "agent")))
    folder = find_agent_folder(name)
    kind = agent_kind(folder)
    if kind == "bandit":
        from der_graph.policies.agent.bandit import BanditAgent

        return BanditAgent.from_pretrained(folder)
    if kind == "text":
        from der_graph.policies.agent.text_agent import TextAgent

        return TextAgent.from_pretrained(folder)
    return DERAgent.from_pretrained(folder)


def _planner_in(folder: Path, observer: Observer) -> Planner:
    """The planner in an agent's folder."""
    try:
        knowledge = load_knowledge(folder).take(observer.names)
    except DataError as error:
        raise AgentError(f"{folder / 'planner.json'} is of another agent: {error}") from error
    return Planner(knowledge, observer.costs.tolist(), encoder=observer.encoder)


def _planner_over(planner: Planner, observer: Observer) -> Planner | None:
    """The planner over an observer's experts, at their prices; none where it does not know one of them."""
    if not set(observer.names) <= set(planner.names):
        return None
    return planner.for_pool(observer.names, observer.costs.tolist())


def _identity(config: dict[str, Any], features: int) -> npt.NDArray[np.float32]:
    """What tells the experts apart: a one-hot of the index they had in training, or nothing."""
    experts = config["experts"]
    identity = np.zeros((len(experts), config["network"]["expert"] - features), dtype=np.float32)
    for i, expert in enumerate(experts if identity.shape[1] else []):
        identity[i, expert.get("index", i)] = 1.0
    return identity


_ALIKE = 1e-3
"""Shares of the whole cost that differ by less are rounding."""


def warn_of_prices(names: Sequence[str], learnt: Sequence[float], now: Sequence[float]) -> None:
    """Warn where a pool's prices are not in the proportions that an agent learnt with.

    Another unit for all of them changes nothing: agents see shares.

    Args:
        names: The experts at hand.
        learnt: Price of one call of each in training.
        now: The pool's.
    """
    before, after = (np.asarray(costs) / max(sum(costs), 1e-12) for costs in (learnt, now))
    if np.allclose(before, after, rtol=0.0, atol=_ALIKE):
        return
    changes = [abs(new - old) / max(new, old, 1e-12) for old, new in zip(learnt, now, strict=True)]
    moved = changes.index(max(changes))
    warnings.warn(
        f"the agent was trained with '{names[moved]}' at {learnt[moved]:g}, the pool says "
        f"{now[moved]:g}: budgets and masks use the pool's prices, but whom to ask was learnt with the "
        "others. Train it anew; with the defaults of der train, or --any-pool, prices may change",
        stacklevel=4,  # who adapts the agent: create_der_graph, a command
    )


class PartOfPool(DERAgent):
    """A trained agent over some of the experts that it was trained with, in any order.

    Saved, it is the whole agent again.

    Args:
        agent: The agent, over its whole pool.
        names: The experts at hand.
        costs: Price of one call of each.
    """

    def __init__(self, agent: DERAgent, names: Sequence[str], costs: Sequence[float]) -> None:
        super().__init__(_at_prices(agent.observer, names, costs), agent.network, **agent.settings)
        self._whole = agent.over(self.observer)
        known = agent.observer.names
        self._names = list(names)
        self._at = [*(known.index(name) for name in names), len(known)]  # END last

    @property
    def names(self) -> list[str]:
        """The experts at hand."""
        return self._names

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """See `DERAgent.decide`."""
        whole = []
        for situation in situations:
            mask = [False] * (len(self.observer.names) + 1)
            for position, allowed in zip(self._at, situation.mask, strict=True):
                mask[position] = allowed
            whole.append(replace(situation, mask=mask))
        return [
            replace(
                choice,
                index=self._at.index(choice.index),
                probabilities=[choice.probabilities[position] for position in self._at],
            )
            for choice in self._whole.decide(whole)
        ]


def _at_prices(observer: Observer, names: Sequence[str], costs: Sequence[float]) -> Observer:
    """The observer of the whole pool at the prices of a part of it.

    The others' move along where a price of cost counts in the cost of asking everyone.
    """
    at = [observer.names.index(name) for name in names]
    if np.allclose(costs, observer.costs[at], atol=0.0):
        return observer
    scale = 1.0 if observer.scale else sum(costs) / max(float(observer.costs[at].sum()), 1e-12)
    whole = observer.costs * scale
    whole[at] = costs
    return observer.for_pool(observer.names, whole.tolist())
