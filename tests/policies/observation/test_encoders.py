"""Encoders by name or from LangChain, and vectors that are kept on disk."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from toy import WordEncoder

from der_graph.errors import AgentError, MissingDependencyError
from der_graph.policies.observation import (
    CachedEncoder,
    SentenceEncoder,
    as_encoder,
    make_encoder,
)
from der_graph.policies.observation.encoder import EmbeddingsEncoder, Vectors


class Counting:
    """An encoder that counts what it is asked for."""

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        return WordEncoder().encode(texts)


def test_vectors_are_kept_for_the_next_run(tmp_path: Path) -> None:
    first, path = Counting(), tmp_path / "deep" / "vectors.sqlite"
    steps: list[int] = []
    texts = ["one apple", "two pears", "one apple"]
    found = CachedEncoder(first, path, steps.append).encode(texts)
    assert np.array_equal(found, WordEncoder().encode(texts))
    assert sorted(first.asked) == ["one apple", "two pears"]
    assert sum(steps) == 2
    again = Counting()
    assert np.array_equal(CachedEncoder(again, path).encode([*texts, "three plums"])[:3], found)
    assert again.asked == ["three plums"]


def test_each_encoder_has_its_own_vectors(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    CachedEncoder(Counting("a"), path).encode(["x"])
    other = Counting("b")
    CachedEncoder(other, path).encode(["x"])
    assert other.asked == ["x"]


def test_a_damaged_file_costs_time_and_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    path.write_bytes(b"this is no database, however long it may be" * 100)
    with pytest.warns(UserWarning, match=r"vectors.sqlite cannot be used .* encoded anew"):
        found = CachedEncoder(Counting(), path).encode(["x y"])
    assert np.array_equal(found, WordEncoder().encode(["x y"]))


def test_any_langchain_embeddings_are_an_encoder() -> None:
    encoder = as_encoder(DeterministicFakeEmbedding(size=5))
    vectors = encoder.encode(["a", "b", "a"])
    assert vectors.shape == (3, 5)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
    assert np.array_equal(vectors[0], vectors[2])
    assert encoder.name == "DeterministicFakeEmbedding"


class Broken(Embeddings):
    """Embeddings that fail, or give what is no number."""

    def __init__(self, gives: float | None) -> None:
        self.gives = gives

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.gives is None:
            raise RuntimeError("secret-key-123 was refused")
        return [[self.gives, 1.0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def test_what_was_looked_at_last_is_remembered() -> None:
    asked: list[list[str]] = []

    class Counted(DeterministicFakeEmbedding):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            asked.append(texts)
            return super().embed_documents(texts)

    encoder = EmbeddingsEncoder(Counted(size=4), "counted")
    encoder._known.most = 2
    for texts in (["a", "b"], ["a"], ["c", "c"], ["a"], ["b", "a", "c"]):
        assert encoder.encode(texts).shape == (len(texts), 4)
    assert asked == [["a", "b"], ["c"], ["b"]]


def test_embeddings_that_fail_say_so_without_secrets() -> None:
    with pytest.raises(AgentError, match="failed on 1 texts: RuntimeError") as caught:
        EmbeddingsEncoder(Broken(None), "shop:small").encode(["x"])
    assert "secret" not in str(caught.value)
    with pytest.raises(AgentError, match="not finite"):
        EmbeddingsEncoder(Broken(float("nan")), "shop:small").encode(["x"])


def test_names_of_encoders(tmp_path: Path) -> None:
    assert isinstance(make_encoder(), SentenceEncoder)
    assert isinstance(make_encoder(str(tmp_path)), SentenceEncoder)
    with pytest.raises(AgentError, match="nowhere:small"):
        make_encoder("nowhere:small")
    with pytest.raises(AgentError, match="int is no encoder"):
        as_encoder(3)  # type: ignore[arg-type]


def test_other_pooling_needs_sentence_transformers(tmp_path: Path) -> None:
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    assert isinstance(make_encoder(str(tmp_path)), SentenceEncoder)
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True}))
    if importlib.util.find_spec("sentence_transformers") is None:
        with pytest.raises(MissingDependencyError, match=r"pip install 'der-graph\[embeddings\]'"):
            make_encoder(str(tmp_path))
