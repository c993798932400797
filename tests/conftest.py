"""What all tests share: no network, no key, caches of their own, and third-party data where it is at hand."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything is imported, because these are read on import.
os.environ["LANGGRAPH_STRICT_MSGPACK"] = (
    "true"  # state that a later LangGraph would refuse fails now
)
os.environ["LANGSMITH_TRACING"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# The networks here are tiny: a second thread mostly waits for the first, ten times as long on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("DER_LOG", None)
if (
    "DER_CACHE" not in os.environ
):  # the Makefile names a folder that is kept: converting weights takes a while
    _cache = tempfile.TemporaryDirectory(prefix="der-graph-tests-", ignore_cleanup_errors=True)
    os.environ["DER_CACHE"] = _cache.name

# The same examples every time, so that a change is what makes a test fail; a busy machine is no failure.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parent.parent


def pytest_report_header() -> list[str]:
    """Where the tests look for things."""
    return [f"DER_CACHE: {os.environ['DER_CACHE']}", f"DER_DATA: {_data_folder()}"]


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def recorded_data() -> Path:
    """Folder with real answers of eleven open LLMs: train.jsonl.gz and dev.jsonl.gz."""
    return _data("recorded_pool", "dev.jsonl.gz")


@pytest.fixture(scope="session")
def word_problem_data() -> Path:
    """Folder with word problems, their expressions and answers: train.jsonl and dev.jsonl."""
    return _data("word_problems", "dev.jsonl")


def _data_folder() -> Path:
    return Path(os.environ.get("DER_DATA") or ROOT.parent / "shared" / "data")


def _data(name: str, member: str) -> Path:
    folder = _data_folder() / name
    if not (folder / member).is_file():
        pytest.skip(f"third-party data: no {folder / member}; name its parent folder in DER_DATA")
    return folder
