"""What all tests share: no network, no key, caches of their own, and third-party data where it is at hand."""

from __future__ import annotations

import gc
import importlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checkout import BENCHMARKS, ROOT, Load
from hypothesis import settings
from postgres import NoServerError, postgres_server

if TYPE_CHECKING:
    from tiny_models import Spy

    from der_graph.nodes.huggingface import HuggingFaceChat

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


def pytest_report_header() -> list[str]:
    """Where the tests look for things."""
    return [f"DER_CACHE: {os.environ['DER_CACHE']}", f"DER_DATA: {_data_folder()}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: one that is begun last would run on while other processes are idle."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


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


# A tiny local model. Imported where it is used: most tests need no torch.


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to read from."""
    from tiny_models import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def chat(folder: Path) -> HuggingFaceChat:
    """The checkpoint as a chat model; its weights are shared with other tests."""
    from der_graph.nodes.huggingface import HuggingFaceChat

    return HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 12}, device="cpu")


@pytest.fixture
def spy(chat: HuggingFaceChat) -> Iterator[Spy]:
    """Watches what `chat` generates."""
    from tiny_models import Spy

    spy = Spy(chat)
    spy.model.generate = spy
    yield spy
    del spy.model.generate


@pytest.fixture
def fresh(tmp_path: Path) -> HuggingFaceChat:
    """A model of its own, to be tampered with."""
    from tiny_models import save_tiny

    from der_graph.nodes.huggingface import HuggingFaceChat

    folder = save_tiny(tmp_path / "own")
    return HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 60}, device="cpu")


@pytest.fixture
def stale_connections() -> Iterator[None]:
    """For tests in which clients keep connections of event loops that have ended: nobody can close those."""
    yield
    from langchain_openai.chat_models import _client_utils

    _client_utils._cached_async_httpx_client.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def short_lessons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks learn little from routes, by all steps of learning: for tests in which it need not be much."""
    from der_graph.policies.training.routes.learner import TreeSettings

    short = partial(TreeSettings, imitation=12, following=12, passes=0)
    monkeypatch.setattr("der_graph.policies.training.routes.lesson.TreeSettings", short)


# The page of `der ui`.


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from page_in_browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def no_loop_left() -> Iterator[None]:
    """Closes what Gradio leaves open."""
    from page_in_browser import close_what_gradio_left

    yield
    close_what_gradio_left()


def _data_folder() -> Path:
    return Path(os.environ.get("DER_DATA") or ROOT.parent / "shared" / "data")


def _data(name: str, member: str) -> Path:
    folder = _data_folder() / name
    if not (folder / member).is_file():
        pytest.skip(f"third-party data: no {folder / member}; name its parent folder in DER_DATA")
    return folder


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import a benchmark by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Connection string of a real server."""
    pytest.importorskip("langgraph.checkpoint.postgres")
    server = postgres_server()
    try:
        address = server.__enter__()
    except NoServerError as error:
        pytest.skip(str(error))
    try:
        yield address
    finally:
        server.__exit__(None, None, None)
