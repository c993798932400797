"""The frozen sentence encoder: texts in, unit vectors out.

all-MiniLM-L6-v2 by default: 22 million parameters, 384 dimensions, a few milliseconds a text on a CPU. Mean
pooling over the attended tokens, then L2 normalisation, as its model card prescribes. Loaded when first
used; the last texts are remembered, since a question is encoded once but looked at on every step.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 256
"""What MiniLM was trained to read; longer texts are cut at the end."""


class TextEncoder(Protocol):
    """Anything that turns texts into vectors of one size."""

    @property
    def name(self) -> str:
        """Identifies the encoder in an agent's config."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts: float32, (n, dimensions), rows of length 1."""


class SentenceEncoder:
    """A frozen encoder from transformers, with a memory of the last texts.

    Args:
        model_id: Hub id or local folder.
        device: `auto` (GPU where there is one), `cpu`, `cuda:0` ...
        remember: How many texts to remember (1.5 kB each at 384 dimensions).
        batch_size: Texts per forward pass.
    """

    def __init__(
        self,
        model_id: str = DEFAULT_ENCODER,
        *,
        device: str = "auto",
        remember: int = 20_000,
        batch_size: int = 64,
    ) -> None:
        self.model_id = model_id
        self.device = device
        self.batch_size = batch_size
        self._remember = remember
        self._known: OrderedDict[str, Vectors] = OrderedDict()
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        """Hub id or folder."""
        return self.model_id

    def load(self) -> tuple[Any, Any]:
        """Load tokenizer and model, once."""
        with self._lock:
            if self._loaded is None:
                import torch
                from transformers import AutoModel, AutoTokenizer

                from der_graph.nodes.huggingface.weights import encoder_folder

                folder = encoder_folder(self.model_id)
                tokenizer = AutoTokenizer.from_pretrained(folder)
                model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
                device = self.device
                if device == "auto":
                    device = "cuda" if torch.cuda.is_available() else "cpu"
                self._loaded = (tokenizer, model.to(device))
            return self._loaded

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts.

        Args:
            texts: Any number of texts.

        Returns:
            float32, (n, dimensions), rows of length 1.
        """
        with self._lock:
            new = list(dict.fromkeys(text for text in texts if text not in self._known))
            # Longest first: similar lengths share a batch, and too large a batch fails at once, not late.
            new.sort(key=len, reverse=True)
            for start in range(0, len(new), self.batch_size):
                chunk = new[start : start + self.batch_size]
                for text, vector in zip(chunk, self._forward(chunk), strict=True):
                    self._known[text] = vector
            rows = []
            for text in texts:
                self._known.move_to_end(text)
                rows.append(self._known[text])
            while len(self._known) > self._remember:
                self._known.popitem(last=False)
        return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)

    def _forward(self, texts: list[str]) -> Vectors:
        import torch

        tokenizer, model = self.load()
        batch = tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
            weight = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
            unit = torch.nn.functional.normalize(pooled, dim=1)
        vectors: Vectors = unit.cpu().numpy().astype(np.float32)
        return vectors
