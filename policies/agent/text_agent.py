"""The paper's agent at serving time: a fine-tuned causal language model reads question and last answer.

    "Question:{x} Answer:{y}" ──tokens──> language model ──last token──> 2 tanh layers ──> N + 1 scores

Hu et al., arXiv 2412.07448, with OPT-125M. Only the actor is kept; the critic has a language model of its
own (`der_graph.policies.training.text_training`) and serves training alone. The agent folder holds
`agent.safetensors` (all weights), `config.json`, and in `encoder/` the language model's configuration and
tokenizer. Needs neither stable-baselines3 nor gymnasium.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from der_graph.nodes.decision import Choice, check_same
from der_graph.nodes.reliability.copying import BeginsAnew
from der_graph.policies.agent.folder import (
    check_experts,
    kept_metadata,
    part_of,
    read_config,
    read_weights,
    reading,
    write_agent,
)
from der_graph.policies.agent.network import masked_probabilities
from der_graph.policies.agent.pools import KnowsExperts
from der_graph.policies.observation.last_used import LastUsed
from der_graph.state import Situation, good_answers

KIND = "text"
"""What `kind` in `config.json` says of such an agent."""
ENCODER_FOLDER = "encoder"
PADDING = -1
"""Stands where a text has no more tokens; no tokenizer's id."""
_REMEMBERED = 50_000  # texts

Tokens = npt.NDArray[np.int32]


class TextObserver(BeginsAnew):
    """Turns situations into token ids.

    Args:
        tokenizer: Of the language model.
        max_tokens: Longest text; what is longer loses its end.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.size = max_tokens
        self.vocabulary = len(tokenizer)
        self._begin()

    def _begin(self) -> None:
        self._known: LastUsed[str, list[int]] = LastUsed(_REMEMBERED)
        self._lock = threading.Lock()

    def observe(self, situations: Sequence[Situation], cost_weights: Sequence[float]) -> Tokens:
        """Tokenize situations: int32, (n, size), padded at the end with `PADDING`.

        The price of cost is not in the text; these agents know the one that they were trained with.
        """
        texts = [state_text(situation) for situation in situations]
        # Read once and kept here: another thread may crowd it out of the memory meanwhile.
        with self._lock:
            known = self._known.known(texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            # An answer is model output: what looks like a control token in it is read as plain text.
            encoded = self.tokenizer(
                new, truncation=True, max_length=self.size, split_special_tokens=True
            )
            known.update(zip(new, encoded["input_ids"], strict=True))
            with self._lock:
                self._known.remember({text: known[text] for text in new})
        out = np.full((len(texts), self.size), PADDING, dtype=np.int32)
        for row, text in zip(out, texts, strict=True):
            ids = known[text]
            row[: len(ids)] = ids
        return out


def state_text(situation: Situation) -> str:
    """What the language model reads of a situation; as in the authors' code."""
    good = good_answers(situation.answers)
    return f"Question:{situation.question} Answer:{good[-1]['text'] if good else ''}"


def last_token(encoder: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The language model's last hidden state at the end of each text.

    Args:
        encoder: A causal language model without its head.
        tokens: (batch, length) ids, padded at the end with negative numbers.

    Returns:
        (batch, hidden).
    """
    tokens = tokens.long()
    there = tokens >= 0
    lengths = there.sum(dim=1).clamp(min=1)
    longest = int(lengths.max())  # the rest is padding in every row
    tokens, there = tokens[:, :longest], there[:, :longest]
    hidden = encoder(
        input_ids=tokens.clamp(min=0), attention_mask=there.long(), use_cache=False
    ).last_hidden_state
    ends: torch.Tensor = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]
    return ends


class TextAgent(KnowsExperts):
    """The paper's agent: chooses by what a fine-tuned language model reads.

    Args:
        observer: Turns situations into tokens.
        encoder: The actor's language model, without its head.
        head: From its hidden state to N + 1 scores.
        experts: Names and costs, in order.
        cost_weight: The price of cost that it was trained with.
        metadata: Anything else to keep in the config file.
    """

    def __init__(
        self,
        observer: TextObserver,
        encoder: nn.Module,
        head: nn.Module,
        *,
        experts: Sequence[tuple[str, float]],
        cost_weight: float,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(experts)
        self.observer = observer
        self.encoder = encoder.eval()
        self.head = head.eval()
        self.cost_weight = cost_weight
        self.metadata = metadata or {}

    def check_pool(self, names: Sequence[str]) -> None:
        """Check that the pool is the one that the agent was trained for.

        Raises:
            AgentPoolMismatchError: If it is not.
        """
        cure = (
            "Its outputs are fixed, so the order counts: use that pool, or train an agent for this one: "
            "der train --pool FILE --data FILE --out FOLDER"
        )
        check_same("this agent was trained", self.names, names, cure)

    def for_pool(self, names: Sequence[str], costs: Sequence[float]) -> TextAgent:
        """This agent, which sees no prices: warns where the pool's are others than in training.

        Raises:
            AgentPoolMismatchError: If the pool is not the one that it was trained for.
        """
        from der_graph.policies.agent.agent import warn_of_prices

        self.check_pool(names)
        warn_of_prices(names, [cost for _, cost in self.experts], costs)
        return self

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation, all in one batch: the most probable choice that its mask allows."""
        device = next(self.encoder.parameters()).device
        tokens = torch.from_numpy(self.observer.observe(situations, ())).to(device)
        mask = torch.tensor([s.mask for s in situations], dtype=torch.bool, device=device)
        with torch.inference_mode():
            scores = self.head(last_token(self.encoder, tokens))
            probabilities = masked_probabilities(scores, mask).tolist()
        return [
            Choice(max(range(len(row)), key=row.__getitem__), row, None, self.cost_weight)
            for row in probabilities
        ]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the agent folder; each file whole or not at all, the config last."""
        encoder: Any = self.encoder
        encoder.config.save_pretrained(Path(folder) / ENCODER_FOLDER)
        self.observer.tokenizer.save_pretrained(Path(folder) / ENCODER_FOLDER)
        weights = {
            f"{part}.{name}": tensor.detach().cpu().numpy()
            for part, module in (("encoder", self.encoder), ("head", self.head))
            for name, tensor in module.state_dict().items()
        }
        config = {
            "kind": KIND,
            "experts": [{"name": name, "cost": cost} for name, cost in self.experts],
            "max_tokens": self.observer.size,
            "cost_weight": self.cost_weight,
            **self.metadata,
        }
        write_agent(folder, weights, config)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, device: str | None = None
    ) -> TextAgent:
        """Read an agent folder.

        Args:
            folder: A local folder.
            device: Where the language model runs; the GPU where there is one, if left out.

        Raises:
            AgentError: If it is not such a folder, or is damaged.
        """
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        path = Path(folder)
        config = read_config(path, KIND)
        check_experts(path, config)
        weights = read_weights(path)
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with reading(path):
            tokenizer = AutoTokenizer.from_pretrained(path / ENCODER_FOLDER)
            settings = AutoConfig.from_pretrained(path / ENCODER_FOLDER)
            make: Any = AutoModel.from_config
            encoder = make(settings, dtype=torch.float32)
            head = _head_of(weights)
            for part, module in (("encoder", encoder), ("head", head)):
                module.load_state_dict(part_of(weights, f"{part}."))
            return cls(
                TextObserver(tokenizer, int(config["max_tokens"])),
                encoder.to(where),
                head.to(where),
                experts=[(str(e["name"]), float(e["cost"])) for e in config["experts"]],
                cost_weight=float(config["cost_weight"]),
                metadata=kept_metadata(config),
            )


def _head_of(weights: dict[str, torch.Tensor]) -> nn.Sequential:
    """An empty head of the shape that was saved: linear layers with tanh between them."""
    matrices = [
        weights[name] for name in sorted(weights) if name.startswith("head.") and weights[name].dim() == 2
    ]  # fmt: skip
    layers: list[nn.Module] = []
    for matrix in matrices:
        layers += [nn.Linear(matrix.shape[1], matrix.shape[0]), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
