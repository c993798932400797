"""Fixtures of the commands' tests."""

import pytest
from cli_runs import recorded
from toy import WordEncoder

from der_graph.policies.observation.encoder import SentenceEncoder

__all__ = ["recorded"]


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder of these tests hashes words."""
    words = WordEncoder()
    monkeypatch.setattr(SentenceEncoder, "encode", lambda self, texts: words.encode(texts))
