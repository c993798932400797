"""Files from strangers: bombs, pipes, endless nesting; always one clear error, soon."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from der_graph import load_agent, load_pool
from der_graph.data import load_examples
from der_graph.data.untrusted import parse_json, read_text
from der_graph.errors import AgentError, DataError, DERError, ExpertError, PoolError
from der_graph.nodes.huggingface.weights import count_parameters, find_weights, parameters_b
from der_graph.policies.agent.folder import find_agent_folder

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


@pytest.fixture(autouse=True)
def soon() -> Any:
    start = time.process_time()  # other tests may run at the same time
    yield
    assert time.process_time() - start < 60


def bomb(levels: int) -> str:
    names = "abcdefghijklmnop"[: levels + 1]
    text = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for before, name in itertools.pairwise(names):
        text += f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    return f"{text}experts: *{names[-1]}\n"


@pytest.mark.parametrize(
    "text",
    [
        bomb(6),
        bomb(12),
        "experts: &a [*a]",
        "experts: " + "[" * 5000,
        "&a {x: &b {<<: *a}}",
        "experts: " + "{a: " * 3000,
        "experts: !!python/object/apply:os.system ['true']",
        "experts: 2020-99-99",
        "experts: 0x" + "f" * 5000,
        "? [a]\n: b",
        "\x00",
    ],
)
def test_pool_files_that_are_traps(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PoolError, match=r"pool\.yaml") as caught:
        load_pool(file)
    assert len(str(caught.value)) < 800


def test_aliases_may_be_used(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    data = tmp_path / "d.jsonl"
    data.write_text(
        '{"question": "q", "answer": "a", "candidates": [{"model": "one", "text": "a"}]}\n'
    )
    file.write_text(
        "experts:\n  - {name: one, backend: recorded, data: d.jsonl, cost: 1, ktp: &k none}\n"
        "settings: {ktp: *k}\n"
    )
    assert load_pool(file).names == ("one",)


@needs_pipes
def test_pipes_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    for name in ("pool.yaml", "rows.jsonl", "rows.jsonl.gz", "config.json", "agent.safetensors"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(PoolError, match="pipe"):
        load_pool(tmp_path / "pool.yaml")
    for name in ("rows.jsonl", "rows.jsonl.gz"):
        with pytest.raises(DataError, match="pipe"):
            load_examples(tmp_path / name)
    with pytest.raises(AgentError, match="no config"):
        load_agent(tmp_path)
    with pytest.raises(OSError, match="folder"):
        read_text(tmp_path)


def test_a_compressed_bomb_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    with gzip.open(file, "wb") as packed:
        for _ in range(30):
            packed.write(b"\n" * 2**20)
    with pytest.raises(DataError, match="100 times its size"):
        load_examples(file)
    with gzip.open(file, "wb") as packed:
        for _ in range(70):
            packed.write(b" " * 2**20)
    with pytest.raises(DataError, match=r"longer than|100 times"):
        load_examples(file)


def test_what_is_nested_too_deeply(tmp_path: Path) -> None:
    deep = "[" * 200_000
    with pytest.raises(ValueError, match="deeply"):
        parse_json(deep)
    (tmp_path / "config.json").write_text(deep)
    with pytest.raises(AgentError, match="config"):
        load_agent(tmp_path)
    (tmp_path / "rows.jsonl").write_text(deep)
    with pytest.raises(DataError, match="line 1"):
        load_examples(tmp_path / "rows.jsonl")


def test_files_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    with file.open("wb") as stream:
        stream.truncate(2**40)  # a sparse file
    with pytest.raises(PoolError, match="at most"):
        load_pool(file)


@pytest.mark.parametrize(
    "head",
    [
        (2**60).to_bytes(8, "little"),
        (4).to_bytes(8, "little") + b"[[[[",
        (2).to_bytes(8, "little") + b"{}",
        (14).to_bytes(8, "little") + b'{"a": {"b":1}}',
        (20).to_bytes(8, "little") + b'{"a": {"shape": "x"}}'[:20],
        b"",
    ],
)
def test_weights_with_a_false_head(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(head)
    try:
        parameters_b(find_weights(str(tmp_path)))
    except ExpertError as error:
        assert "safetensors" in str(error)  # noqa: PT017 - an empty header is no fault
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + (2**62).to_bytes(8, "little") * 2)
    with pytest.raises(ExpertError, match="GGUF"):
        count_parameters(file)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = [
    "name",
    "backend",
    "model",
    "data",
    "cost",
    "ktp",
    "token_prices",
    "settings",
    "generation",
    "seconds",
]
DEMO_CONFIG = json.loads(
    (Path(load_pool.__code__.co_filename).parents[1] / "demo" / "agent" / "config.json").read_text()
)


@given(st.dictionaries(st.sampled_from(FIELDS), anything), anything)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_foreign_exception_from_a_pool_file(tmp_path: Path, expert: Any, rest: Any) -> None:
    file = tmp_path / "pool.yaml"
    for content in ({"experts": [expert], "settings": rest}, rest, {"experts": rest}):
        file.write_text(json.dumps(content))
        with pytest.raises(DERError):
            load_pool(file)


@given(st.sampled_from(sorted(DEMO_CONFIG)), anything)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_foreign_exception_from_an_agents_config(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**DEMO_CONFIG, name: value}))
    with pytest.raises(DERError):  # there are no weights beside it
        load_agent(tmp_path)


@given(anything)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_foreign_exception_from_a_data_file(tmp_path: Path, value: Any) -> None:
    file = tmp_path / "rows.jsonl"
    fine = {"question": "q", "answer": "a"}
    rows = [value, {**fine, "answer": value}, {**fine, "candidates": [value]}]
    for row in (*rows, {**fine, "history": value}):
        file.write_text(json.dumps(row) + "\n", encoding="utf-8")
        try:
            load_examples(file)
        except DataError as error:
            assert str(file) in str(error)  # noqa: PT017 - some rows are fine


# Agents on the Hub --------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"kind": "x"}\r\n')
    assert parse_json(read_text(tmp_path / "config.json")) == {"kind": "x"}


def test_a_missing_folder_never_leads_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    asked: list[str] = []

    def fetch(name: str, **_: Any) -> str:
        asked.append(name)
        raise OSError("no network in tests")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    for name in ("runs/first", "owner/name", "./x/y", "runs", "a/b/c", "hf:/owner/name"):
        with pytest.raises(AgentError, match="no such folder"):
            find_agent_folder(name)
    for name in ("hf://", "hf://owner", "hf://../x", "hf://a/b/c", "hf:// a/b"):
        with pytest.raises(AgentError, match="is hf://owner/name"):
            find_agent_folder(name)
    assert asked == []
    with pytest.raises(AgentError, match="write 'hf://runs/first'"):
        load_agent("runs/first")
    with pytest.raises(AgentError, match="could not be fetched from the Hub: no network"):
        load_agent("hf://owner/name@v1")
    assert asked == ["owner/name"]
