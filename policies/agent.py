"""The DER-Agent at serving time: safetensors and JSON in, decisions out. Needs neither SB3 nor gymnasium.

    situation ──Observer──> observation ──RoutingNetwork──> scores ──mask, softmax──> the most probable choice

Training samples; serving takes the most probable choice (paper, section 3.4). The folder follows the Hub's
conventions: `agent.safetensors` and `config.json`, nothing that could run code when it is loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

import der_graph
from der_graph.errors import AgentError, AgentPoolMismatchError
from der_graph.nodes.hub import Choice
from der_graph.policies.agent_folder import (
    CONFIG_FILE,
    FORMAT,
    WEIGHTS_FILE,
    agent_kind,
    find_agent_folder,
    read_config,
)
from der_graph.policies.encoder import SentenceEncoder, TextEncoder
from der_graph.policies.features import FeatureNames
from der_graph.policies.observation import ObservationConfig, Observer
from der_graph.state import Situation

if TYPE_CHECKING:
    from der_graph.policies.network import RoutingNetwork
    from der_graph.policies.text_policy import TextAgent

_ARRAYS = "observer."
_NETWORK = "network."


class DERAgent:
    """A trained agent.

    Args:
        observer: Turns situations into observations.
        network: Scores the choices.
        cost_weight: The price of cost where a request names none.
        cost_weight_range: Prices that the agent was trained with; requests are clipped to it.
        metadata: Anything else to keep in the config file: training settings, versions, results.
    """

    def __init__(
        self,
        observer: Observer,
        network: RoutingNetwork,
        *,
        cost_weight: float,
        cost_weight_range: tuple[float, float],
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.observer = observer
        self.network = network.eval()
        self.cost_weight = cost_weight
        self.cost_weight_range = cost_weight_range
        self.metadata = metadata or {}

    @property
    def names(self) -> list[str]:
        """The experts that the agent knows, in order."""
        return self.observer.names

    @property
    def positional(self) -> bool:
        """Does it tell experts by their position in training, so that no new one can be added?"""
        return self.network.shape.head == "fixed" or self.observer.config.fixed_pool

    def check_pool(self, names: Sequence[str]) -> None:
        """Check that the agent knows every expert of a pool; order and number do not matter.

        Raises:
            AgentPoolMismatchError: If it does not.
        """
        unknown = [name for name in names if name not in self.names]
        if not unknown and names:
            return
        raise AgentPoolMismatchError(
            f"the agent does not know {_listed(unknown) or 'a pool without experts'}; it knows "
            f"{_listed(self.names)}. Add an expert with der pool add (agents trained with --any-pool), or "
            "train an agent for this pool: der train --pool FILE --data FILE --out FOLDER"
        )

    def for_pool(self, names: Sequence[str], costs: Sequence[float]) -> DERAgent:
        """The agent for a pool of experts that it knows: some of them, in any order, at present prices.

        Args:
            names: The pool's experts, in order.
            costs: Price of one call of each.

        Returns:
            This agent if nothing differs; otherwise another one with the same weights.

        Raises:
            AgentPoolMismatchError: If it does not know one of them.
        """
        self.check_pool(names)
        if self.network.shape.head == "fixed":
            from der_graph.policies.part_of_pool import PartOfPool

            return self if list(names) == self.names else PartOfPool(self, names)
        if list(names) == self.names and np.allclose(costs, self.observer.costs):
            return self
        return self.over(self.observer.for_pool(names, costs))

    def over(self, observer: Observer) -> DERAgent:
        """The same weights over another observer."""
        return DERAgent(
            observer,
            self.network,
            cost_weight=self.cost_weight,
            cost_weight_range=self.cost_weight_range,
            metadata=self.metadata,
        )

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation, all in one batch.

        Args:
            situations: Any number, with masks of the pool's length + 1.

        Returns:
            The most probable allowed choice of each, with all probabilities and the critic's value.
        """
        import torch

        from der_graph.policies.network import masked_probabilities

        low, high = self.cost_weight_range
        weights = [
            self.cost_weight if s.cost_weight is None else min(high, max(low, s.cost_weight))
            for s in situations
        ]
        observation = torch.from_numpy(self.observer.observe(situations, weights))
        mask = torch.tensor([s.mask for s in situations], dtype=torch.bool)
        with torch.inference_mode():
            scores, values = self.network(observation)
            probabilities = masked_probabilities(scores, mask).tolist()
        # Python's max, not argmax: the first of equals on every machine.
        return [
            Choice(max(range(len(row)), key=row.__getitem__), row, value, weight)
            for row, value, weight in zip(probabilities, values.tolist(), weights, strict=True)
        ]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the agent folder: `agent.safetensors` and `config.json`."""
        from safetensors.numpy import save_file

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        network = {
            _NETWORK + name: tensor.detach().cpu().numpy().astype(np.float32)
            for name, tensor in self.network.state_dict().items()
        }
        arrays = {_ARRAYS + name: array for name, array in self.observer.arrays.items()}
        shape = self.network.shape
        config = {
            "format": FORMAT,
            "der_graph_version": der_graph.__version__,
            "experts": [
                {"name": name, "cost": float(cost), "index": index}
                for name, cost, index in zip(
                    self.names, self.observer.costs, self.observer.indices, strict=True
                )
            ],
            "network": shape._asdict(),
            "observation": self.observer.describe(),
            "features": {
                name: list(value) for name, value in self.observer.features._asdict().items()
            },
            "cost_weight": self.cost_weight,
            "cost_weight_range": list(self.cost_weight_range),
            **self.metadata,
        }
        # Each file whole or not at all, the config last: a folder without it is no agent.
        tensors = {
            name: np.ascontiguousarray(array) for name, array in {**network, **arrays}.items()
        }
        save_file(tensors, path / f"{WEIGHTS_FILE}.part")
        os.replace(path / f"{WEIGHTS_FILE}.part", path / WEIGHTS_FILE)
        (path / WEIGHTS_FILE).chmod(0o644)  # safetensors writes for the owner alone
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (path / f"{CONFIG_FILE}.part").write_text(text, encoding="utf-8")
        os.replace(path / f"{CONFIG_FILE}.part", path / CONFIG_FILE)

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
        from safetensors.torch import load_file

        from der_graph.policies.network import Shape, make_network

        path = find_agent_folder(folder)
        config = read_config(path)
        try:
            tensors = load_file(path / WEIGHTS_FILE)
            settings = dict(config["observation"])
            encoder_name = settings.pop("encoder")
            arrays = {
                name.removeprefix(_ARRAYS): tensor.numpy()
                for name, tensor in tensors.items()
                if name.startswith(_ARRAYS)
            }
            features = FeatureNames(
                *(tuple(config["features"][part]) for part in ("state", "expert"))
            )
            observer = Observer(
                ObservationConfig(**settings),
                [expert["name"] for expert in config["experts"]],
                [expert["cost"] for expert in config["experts"]],
                encoder or SentenceEncoder(encoder_name),
                arrays,
                features,
                _identity(config, len(features.expert)),
            )
            network = make_network(Shape(**config["network"]))
            network.load_state_dict(
                {
                    name.removeprefix(_NETWORK): tensor
                    for name, tensor in tensors.items()
                    if name.startswith(_NETWORK)
                }
            )
            low, high = config["cost_weight_range"]
            cost_weight = float(config["cost_weight"])
        except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
            raise AgentError(
                f"agent folder {path} is damaged: {error}. Copy it again, or train anew."
            ) from error
        except Exception as error:  # safetensors has an exception type of its own
            raise AgentError(f"agent folder {path}: cannot read {WEIGHTS_FILE}: {error}") from error
        return cls(
            observer,
            network,
            cost_weight=cost_weight,
            cost_weight_range=(float(low), float(high)),
            metadata={key: config[key] for key in ("training", "results") if key in config},
        )


@overload
def load_agent(name: Literal["demo"] = "demo") -> DERAgent: ...
@overload
def load_agent(name: str | os.PathLike[str]) -> DERAgent | TextAgent: ...
def load_agent(name: str | os.PathLike[str] = "demo") -> DERAgent | TextAgent:
    """Load an agent: `demo` for the shipped one, an agent folder, or a Hub id.

    What `kind` in its config says decides: `text` is the paper's agent, a fine-tuned language model.

    Raises:
        AgentError: If there is no such agent, or it cannot be read.
    """
    if str(name) == "demo":
        return DERAgent.from_pretrained(Path(str(files("der_graph") / "demo" / "agent")))
    folder = find_agent_folder(name)
    if agent_kind(folder) == "text":
        from der_graph.policies.text_policy import TextAgent

        return TextAgent.from_pretrained(folder)
    return DERAgent.from_pretrained(folder)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _identity(config: dict[str, Any], features: int) -> npt.NDArray[np.float32]:
    """What tells the experts apart: a one-hot of the index they had in training, or nothing."""
    experts = config["experts"]
    identity = np.zeros((len(experts), config["network"]["expert"] - features), dtype=np.float32)
    for i, expert in enumerate(experts if identity.shape[1] else []):
        identity[i, expert.get("index", i)] = 1.0
    return identity
