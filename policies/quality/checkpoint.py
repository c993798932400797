"""A transformers checkpoint as the quality metrics use it: tokenizer and model on a device.

Knows nothing of what the outputs mean. torch and transformers are imported when one is loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from der_graph.errors import MetricError, PoolError, require
from der_graph.nodes import loading as models

EXTRA = "metrics"
"""The extra of this package that brings what neural metrics need."""


class Network:
    """A checkpoint with its tokenizer on its device."""

    def __init__(
        self,
        metric: str,
        checkpoint: str,
        auto_class: str,
        device: str,
        batch_size: int,
        max_length: int,
    ) -> None:
        self.torch: Any = require("torch", extra=EXTRA, why=f"the metric '{metric}'")
        transformers = require("transformers", extra=EXTRA, why=f"the metric '{metric}'")
        self.batch_size = batch_size
        self.device = pick_device(device)
        with loading(metric, checkpoint):
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint)
            model = getattr(transformers, auto_class).from_pretrained(checkpoint)
        self.model: Any = model.to(self.device).eval()
        self.max_length = min(max_length, longest_input(self.tokenizer, self.model.config))

    def encode(self, *texts: list[str]) -> Any:
        """Tokenize texts, or pairs of them, into one padded batch on the device."""
        encoded = self.tokenizer(
            *texts, return_tensors="pt", padding=True, truncation=True, max_length=self.max_length
        )
        return encoded.to(self.device)


def pick_device(device: str) -> str:
    """The device that a setting means: `auto` is the GPU if there is one, else the CPU.

    Raises:
        MetricError: If there is no such device here.
    """
    torch = require("torch", extra=EXTRA, why="neural quality metrics")
    try:
        return str(models.pick_device(torch, device))
    except PoolError as error:
        raise MetricError(str(error)) from None


def longest_input(tokenizer: Any, config: Any) -> int:
    """The most tokens that both a tokenizer and its model take."""
    positions = getattr(config, "max_position_embeddings", None) or 512
    # RoBERTa's positions begin after its padding index, so two of them are never used.
    offset = 2 if "roberta" in getattr(config, "model_type", "") else 0
    return int(min(tokenizer.model_max_length, positions - offset))


@contextlib.contextmanager
def loading(metric: str, checkpoint: str) -> Iterator[None]:
    """Turn the many ways in which a checkpoint fails to load into one error."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MetricError(
            f"metric '{metric}': the checkpoint '{checkpoint}' cannot be loaded ({reason}); give a "
            "hub id or the folder of a transformers model"
        ) from error
