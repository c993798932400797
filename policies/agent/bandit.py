"""An agent for runs with tools: who should act, told by the task alone.

    task ──encoder──> a few numbers ──one linear model per expert──> success, cost ──> the best of them

A contextual bandit; `policies/training/bandit.py` learns what becomes of a run that an expert opens. The
expert that opened a run goes on with it. Where another is needed (a tool failed, a budget shrank), the
same estimates choose among those that are left. Knows nothing of LangChain.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from der_graph.nodes.decision import Choice, check_known
from der_graph.policies.agent.folder import (
    check_experts,
    find_agent_folder,
    kept_metadata,
    read_config,
    read_weights,
    reading,
    same_encoder,
    write_agent,
)
from der_graph.policies.agent.pools import KnowsExperts
from der_graph.policies.observation import TextEncoder
from der_graph.state import Situation, good_answers

KIND = "bandit"
"""What `kind` in `config.json` says of such an agent."""
ARRAYS = ("mean", "axes", "success", "cost")
# Of the probabilities: a difference of so much quality makes one e times as likely.
_TEMPERATURE = 0.05

Array = npt.NDArray[np.float32]


class BanditAgent(KnowsExperts):
    """Chooses the expert whose runs of such tasks are worth most: success, less the price of its cost.

    Args:
        experts: Names and prices of one call, in order.
        encoder: Of tasks.
        arrays: `mean` (d,) and `axes` (d, k) project an embedding to k numbers; `success` and `cost`, both
            (experts, k + 1), are linear in those, the constant last: expected success of a run, in [0, 1],
            and its cost in units of `cost_scale`.
        cost_scale: Cost that is worth a success at a price of 1, in the pool's unit.
        cost_weight: The price of cost where a request names none.
        metadata: Anything else to keep in the config file.
    """

    def __init__(
        self,
        experts: Sequence[tuple[str, float]],
        encoder: TextEncoder,
        arrays: Mapping[str, Array],
        *,
        cost_scale: float,
        cost_weight: float,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(experts)
        self.encoder = encoder
        self.arrays = {name: arrays[name] for name in ARRAYS}
        self.cost_scale = cost_scale
        self.cost_weight = cost_weight
        self.metadata = metadata or {}

    def check_pool(self, names: Sequence[str]) -> None:
        """Check that it knows every expert of a pool; order and number do not matter.

        Raises:
            AgentPoolMismatchError: If it does not.
        """
        cure = "Train one for this pool: der train --agent-task FILE --pool FILE --out FOLDER"
        check_known(self.names, names, cure)

    def for_pool(self, names: Sequence[str], costs: Sequence[float]) -> BanditAgent:
        """The agent for some of its experts, in any order. What runs cost was learnt, and stays."""
        self.check_pool(names)
        at = [self.names.index(name) for name in names]
        arrays = {**self.arrays, **{key: self.arrays[key][at] for key in ("success", "cost")}}
        return BanditAgent(
            list(zip(names, costs, strict=True)),
            self.encoder,
            arrays,
            cost_scale=self.cost_scale,
            cost_weight=self.cost_weight,
            metadata=self.metadata,
        )

    def expected(self, tasks: Sequence[str]) -> tuple[Array, Array]:
        """Expected success, in [0, 1], and cost, in units of `cost_scale`, >= 0: both (tasks, experts)."""
        features = project(self.encoder.encode(list(tasks)), self.arrays)
        success = np.clip(features @ self.arrays["success"].T, 0.0, 1.0)
        cost = np.maximum(features @ self.arrays["cost"].T, 0.0)
        return success.astype(np.float32), cost.astype(np.float32)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation; a good answer ends its route, where that is allowed."""
        success, cost = self.expected([seen.question for seen in situations])
        return [
            self._choose(seen, *row) for seen, *row in zip(situations, success, cost, strict=True)
        ]

    def _choose(self, seen: Situation, success: Array, cost: Array) -> Choice:
        weight = self.cost_weight if seen.cost_weight is None else seen.cost_weight
        end = len(self.experts)
        if seen.mask[end] and good_answers(seen.answers):
            return Choice(end, [float(i == end) for i in range(end + 1)], cost_weight=weight)
        worth = np.where(seen.mask[:end], success - weight * cost, -np.inf).astype(np.float64)
        if not np.isfinite(worth).any():
            return Choice(end, [float(i == end) for i in range(end + 1)], cost_weight=weight)
        odds = np.exp((worth - worth.max()) / _TEMPERATURE)
        loop = seen.loop
        if loop and loop.phase == "executing" and loop.last_expert in self.names:
            last = self.names.index(loop.last_expert)
            if seen.mask[last]:
                odds = (np.arange(end) == last).astype(np.float64)
        chances = [*(odds / odds.sum()).tolist(), 0.0]
        best = max(range(end), key=chances.__getitem__)
        return Choice(best, chances, value=float(success[best]), cost_weight=weight)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the agent folder: `agent.safetensors` and `config.json`."""
        config = {
            "kind": KIND,
            "experts": [{"name": name, "cost": cost} for name, cost in self.experts],
            "encoder": self.encoder.name,
            "cost_scale": self.cost_scale,
            "cost_weight": self.cost_weight,
            **self.metadata,
        }
        write_agent(folder, self.arrays, config)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, encoder: TextEncoder | None = None
    ) -> BanditAgent:
        """Read an agent folder.

        Args:
            folder: A local folder, or a Hub id.
            encoder: Replaces the encoder named in the config; it must be the same model.

        Raises:
            AgentError: If it is not the folder of such an agent, or the encoder is another.
        """
        path = find_agent_folder(folder)
        config = read_config(path, KIND)
        check_experts(path, config)
        tensors = read_weights(path)
        with reading(path):
            return cls(
                [(expert["name"], expert["cost"]) for expert in config["experts"]],
                same_encoder(encoder, config["encoder"], path),
                {name: tensors[name].numpy() for name in ARRAYS},
                cost_scale=float(config["cost_scale"]),
                cost_weight=float(config["cost_weight"]),
                metadata=kept_metadata(config),
            )


def project(vectors: Array, arrays: Mapping[str, Array]) -> Array:
    """Embeddings (n, d) -> features (n, k + 1): coordinates on the axes, and 1."""
    coordinates = (vectors - arrays["mean"]) @ arrays["axes"]
    return np.hstack([coordinates, np.ones((len(vectors), 1))]).astype(np.float32)
