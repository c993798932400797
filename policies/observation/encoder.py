"""The frozen sentence encoder: texts in, unit vectors out.

all-MiniLM-L6-v2 by default: 22 million parameters, 384 dimensions, a few milliseconds a text on a CPU. Mean
pooling over the attended tokens, then L2 normalisation, as its model card prescribes. It reads English only;
`make_encoder` takes any other: a sentence-transformers model, or LangChain's `provider:model`. Loaded when
first used; the last texts are remembered, since a question is encoded once but looked at on every step.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings

from der_graph.errors import AgentError, MissingDependencyError, PluginError, require
from der_graph.nodes.reliability.copying import BeginsAnew, renew_in_children
from der_graph.plugins import find_plugin
from der_graph.policies.observation.last_used import LastUsed

Vectors = npt.NDArray[np.float32]

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 256
"""What MiniLM was trained to read; longer texts are cut at the end."""


@runtime_checkable
class TextEncoder(Protocol):
    """Anything that turns texts into vectors of one size."""

    @property
    def name(self) -> str:
        """Identifies the encoder in an agent's config."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts: float32, (n, dimensions), rows of length 1."""


class FrozenEncoder(BeginsAnew):
    """Base of encoders that nothing changes: a deep copy is the encoder itself, with its model in memory.

    The last texts are remembered, so each is encoded once.
    """

    _remember = 20_000

    def _begin(self) -> None:
        self._known: LastUsed[str, Vectors] = LastUsed(self._remember)
        self._lock = threading.RLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts; see `TextEncoder`.

        Raises:
            AgentError: If the encoder fails, or gives vectors that are not finite.
        """
        with self._lock:
            known = self._known.known(texts)
            new = list(dict.fromkeys(text for text in texts if text not in known))
            for found in self._encoded(new) if new else ():
                known.update(found)
                self._known.remember(found)
        rows = [known[text] for text in texts]
        return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)

    def _encoded(self, new: list[str]) -> Iterator[Mapping[str, Vectors]]:
        """Vectors of texts that are not remembered, as many at a time as are ready."""
        raise NotImplementedError


class SentenceEncoder(FrozenEncoder):
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
        self._begin()

    def _begin(self) -> None:
        super()._begin()
        self._loaded: tuple[Any, Any] | None = None

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
                renew_in_children(self._compute_alone)
            return self._loaded

    def _compute_alone(self) -> None:
        import torch

        self._lock = threading.RLock()
        # OpenMP's threads do not go along either, and the thread that forked would wait for them for ever.
        torch.set_num_threads(1)

    def _encoded(self, new: list[str]) -> Iterator[Mapping[str, Vectors]]:
        # Longest first: similar lengths share a batch, and too large a batch fails at once, not late.
        new.sort(key=len, reverse=True)
        for start in range(0, len(new), self.batch_size):
            chunk = new[start : start + self.batch_size]
            yield dict(zip(chunk, self._forward(chunk), strict=True))

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


class EmbeddingsEncoder(FrozenEncoder):
    """Any LangChain embeddings as an encoder; vectors are scaled to length 1.

    Args:
        embeddings: The model.
        name: Identifies it in an agent's config; `make_encoder` must find the same model by it.
    """

    def __init__(self, embeddings: Embeddings, name: str | None = None) -> None:
        self.embeddings = embeddings
        self._name = name or _name_of(embeddings)
        self._begin()

    @property
    def name(self) -> str:
        """`provider:model`, or the class and model of the embeddings."""
        return self._name

    def _encoded(self, new: list[str]) -> Iterator[Mapping[str, Vectors]]:
        try:
            found = np.array(self.embeddings.embed_documents(new), dtype=np.float32)
        except Exception as error:
            raise AgentError(
                f"the embeddings {self.name} failed on {len(new)} texts: {type(error).__name__}"
            ) from error
        if found.ndim != 2 or len(found) != len(new) or not np.isfinite(found).all():
            raise AgentError(
                f"the embeddings {self.name} gave an array of shape {found.shape} for {len(new)} "
                "texts, or numbers that are not finite"
            )
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        yield dict(zip(new, found, strict=True))


def make_encoder(name: str = DEFAULT_ENCODER) -> TextEncoder:
    """The encoder of a name.

    Args:
        name: A hub id or local folder of a sentence encoder; `provider:model` for LangChain's
            `init_embeddings`, such as `openai:text-embedding-3-small`; or an encoder of another package
            (`words`, or `words:setting`; see `der_graph.plugins`).

    Raises:
        AgentError: If there is no such provider, or it cannot be set up.
        MissingDependencyError: If a package for it is not installed.
        PluginError: If the encoder of another package cannot be used.
    """
    scheme, _, setting = name.partition(":")
    plugin = find_plugin("encoders", scheme) if "/" not in scheme else None
    if plugin is not None:
        encoder: TextEncoder = plugin(setting) if setting else plugin()
        if encoder.name != name:
            raise PluginError(f"encoders '{scheme}': its name is '{encoder.name}', not '{name}'")
        return encoder
    folder = Path(os.path.expanduser(name))
    if ":" in name and not folder.exists():
        require("langchain", extra="langchain", why=f"the embeddings {name}")
        from langchain.embeddings import init_embeddings

        try:
            made: Any = init_embeddings(name)
        except ImportError as error:
            raise MissingDependencyError(f"the embeddings {name}: {error}") from error
        except Exception as error:  # a missing key, an unknown provider
            raise AgentError(f"the embeddings {name} cannot be set up: {error}") from error
        return EmbeddingsEncoder(made, name)
    if _needs_sentence_transformers(folder):
        require("sentence_transformers", extra="embeddings", why=f"the sentence encoder {name}")
        from langchain_huggingface import HuggingFaceEmbeddings

        return EmbeddingsEncoder(HuggingFaceEmbeddings(model_name=str(folder)), name)
    return SentenceEncoder(name)


def as_encoder(encoder: TextEncoder | Embeddings | str | None) -> TextEncoder:
    """What a caller gave, as an encoder: a name, LangChain embeddings, an encoder; None for the default.

    Raises:
        AgentError: If it is none of these.
    """
    if encoder is None or isinstance(encoder, str):
        return make_encoder(encoder or DEFAULT_ENCODER)
    if isinstance(encoder, Embeddings):
        return EmbeddingsEncoder(encoder)
    if isinstance(encoder, TextEncoder):
        return encoder
    raise AgentError(
        f"{type(encoder).__name__} is no encoder; give a name, LangChain embeddings, or an object with "
        "`name` and `encode(texts)`"
    )


def _needs_sentence_transformers(folder: Path) -> bool:
    """Is it a sentence-transformers folder that does more than mean pooling?"""
    modules = folder / "modules.json"
    if not modules.is_file():
        return False
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in _json(modules)]
    pooling = folder / "1_Pooling" / "config.json"
    mean = not pooling.is_file() or _json(pooling).get("pooling_mode_mean_tokens") is True
    return not (set(kinds) <= {"Transformer", "Pooling", "Normalize"} and mean)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AgentError(f"{file} cannot be read: {error}") from error


def _name_of(embeddings: Embeddings) -> str:
    model = getattr(embeddings, "model_name", None) or getattr(embeddings, "model", None)
    kind = type(embeddings).__name__
    return f"{kind}({model})" if isinstance(model, str) else kind
