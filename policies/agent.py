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
from typing import TYPE_CHECKING, Any

import numpy as np

import der_graph
from der_graph.errors import AgentError, AgentPoolMismatchError
from der_graph.nodes.hub import Choice
from der_graph.policies.encoder import SentenceEncoder, TextEncoder
from der_graph.policies.features import EXPERT_FEATURES, STATE_FEATURES
from der_graph.policies.observation import ObservationConfig, Observer
from der_graph.state import Situation

if TYPE_CHECKING:
    from der_graph.policies.network import RoutingNetwork

FORMAT = 1
"""Version of the agent folder; raised when older code could not read it."""
WEIGHTS_FILE = "agent.safetensors"
CONFIG_FILE = "config.json"
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

    def check_pool(self, names: Sequence[str]) -> None:
        """Check that the pool is the one that the agent was trained for.

        Raises:
            AgentPoolMismatchError: If it is not.
        """
        if list(names) == self.names:
            return
        missing = [name for name in self.names if name not in names]
        extra = [name for name in names if name not in self.names]
        parts = []
        if missing:
            parts.append(f"the pool lacks {_listed(missing)}")
        if extra:
            parts.append(f"the agent does not know {_listed(extra)}")
        if not parts:
            parts.append(f"the order differs: the agent has {_listed(self.names)}")
        raise AgentPoolMismatchError(
            f"this agent was trained for another pool: {'; '.join(parts)}. "
            "Use the pool that it was trained on, or train one for this pool: "
            "der train --pool FILE --data FILE --out FOLDER"
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
                {"name": name, "cost": float(cost)}
                for name, cost in zip(self.names, self.observer.costs, strict=True)
            ],
            "network": shape._asdict(),
            "observation": self.observer.describe(),
            "features": {"state": list(STATE_FEATURES), "expert": list(EXPERT_FEATURES)},
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

        from der_graph.policies.network import RoutingNetwork, Shape

        path = _agent_folder(folder)
        config = _read_config(path)
        try:
            tensors = load_file(path / WEIGHTS_FILE)
            settings = dict(config["observation"])
            encoder_name = settings.pop("encoder")
            arrays = {
                name.removeprefix(_ARRAYS): tensor.numpy()
                for name, tensor in tensors.items()
                if name.startswith(_ARRAYS)
            }
            observer = Observer(
                ObservationConfig(**settings),
                [expert["name"] for expert in config["experts"]],
                [expert["cost"] for expert in config["experts"]],
                encoder or SentenceEncoder(encoder_name),
                arrays,
            )
            network = RoutingNetwork(Shape(**config["network"]))
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


def load_agent(name: str | os.PathLike[str] = "demo") -> DERAgent:
    """Load an agent: `demo` for the shipped one, an agent folder, or a Hub id.

    Raises:
        AgentError: If there is no such agent, or it cannot be read.
    """
    if str(name) == "demo":
        return DERAgent.from_pretrained(Path(str(files("der_graph") / "demo" / "agent")))
    return DERAgent.from_pretrained(name)


def _agent_folder(given: str | os.PathLike[str]) -> Path:
    path = Path(given)
    if path.is_dir():
        return path
    if str(given).count("/") == 1 and not str(given).startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(str(given), allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]))
        except Exception as error:
            raise AgentError(
                f"agent '{given}' is neither a folder here nor could it be fetched from the Hub: {error}"
            ) from error
    raise AgentError(
        f"agent '{given}': no such folder. Give 'demo', a folder written by der train, or a Hub id."
    )


def _read_config(path: Path) -> dict[str, Any]:
    file = path / CONFIG_FILE
    for wanted in (file, path / WEIGHTS_FILE):
        if not wanted.is_file():
            raise AgentError(
                f"{path} is not an agent folder: it has no {wanted.name}. "
                f"der train writes one: {CONFIG_FILE} and {WEIGHTS_FILE}."
            )
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = int(config["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise AgentError(f"{file} is not an agent's config: {error}") from error
    if version > FORMAT:
        raise AgentError(
            f"{file} has format {version}; this version reads up to {FORMAT}. Upgrade der-graph."
        )
    features = config.get("features")
    if features != {"state": list(STATE_FEATURES), "expert": list(EXPERT_FEATURES)}:
        raise AgentError(
            f"{file}: the agent was trained with other features than this version computes "
            f"(der-graph {config.get('der_graph_version')}); train it anew."
        )
    return config


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
