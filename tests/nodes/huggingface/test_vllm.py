"""Experts run by vLLM, with an engine of the tiny model in its place."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import QUESTIONS, tiny_model

from der_graph.errors import ExpertError, MissingDependencyError, PoolError
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.vllm import VLLMChat
from der_graph.pool import check_pool


class FakeEngine:
    """What of `vllm.AsyncLLMEngine` is used: greedy, one token a step, outputs that grow."""

    def __init__(self) -> None:
        self.model = tiny_model()
        self.aborted: list[str] = []
        self.steps = 0
        self.pause = 0.0
        self.asked: list[dict[str, Any]] = []

    async def generate(
        self, prompt: dict[str, Any], params: Any, *, request_id: str, lora_request: Any = None
    ) -> AsyncIterator[Any]:
        self.asked.append({"params": params, "lora": lora_request, "id": request_id})
        ids = list(prompt["prompt_token_ids"])
        out: list[int] = []
        sure: list[dict[int, Any]] = []
        while len(out) < params.max_tokens:
            if self.steps < 0:
                raise RuntimeError("the engine is dead")
            self.steps += 1
            await asyncio.sleep(self.pause)
            with torch.inference_mode():
                scores = self.model(input_ids=torch.tensor([ids + out])).logits[0, -1]
            token = int(scores.argmax())
            out.append(token)
            sure.append({token: SimpleNamespace(logprob=float(scores.log_softmax(-1)[token]))})
            part = SimpleNamespace(token_ids=list(out), logprobs=list(sure))
            yield SimpleNamespace(outputs=[part])
            if token in params.stop_token_ids:
                return

    async def abort(self, key: str) -> None:
        self.aborted.append(key)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """vLLM, as far as it is used."""
    from der_graph.nodes.huggingface import vllm as room

    engine = FakeEngine()
    fake: Any = ModuleType("vllm")
    fake.started = []

    def start(arguments: Any) -> FakeEngine:
        fake.started.append(arguments)
        if vars(arguments).get("max_model_len") == 0:
            raise ValueError("max_model_len must be positive")
        return engine

    fake.AsyncEngineArgs = fake.SamplingParams = SimpleNamespace
    fake.AsyncLLMEngine = SimpleNamespace(from_engine_args=start)
    lora: Any = ModuleType("vllm.lora.request")
    lora.LoRARequest = lambda *given: given
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setitem(sys.modules, "vllm.lora.request", lora)
    monkeypatch.setattr(room, "_CORES", {})
    engine.started = fake.started  # type: ignore[attr-defined]
    return engine


def expert(folder: Path, **settings: Any) -> VLLMChat:
    return VLLMChat(model=str(folder), generation={"max_new_tokens": 12}, **settings)


def test_answers_are_those_of_transformers(
    folder: Path, chat: HuggingFaceChat, engine: FakeEngine
) -> None:
    own = expert(folder)
    for settings in ({}, {"stop": ["a", "e"]}, {"max_new_tokens": 1}):
        given: Any = settings
        found, expected = own.batch(QUESTIONS, **given), chat.batch(QUESTIONS, **given)
        assert [each.content for each in found] == [each.content for each in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.usage_metadata == other.usage_metadata
            assert one.response_metadata["mean_logprob"] == pytest.approx(
                other.response_metadata["mean_logprob"], abs=1e-4
            )
    assert "".join(piece.text for piece in own.stream("hello")) == chat.invoke("hello").content
    assert len(engine.aborted) == len(engine.asked)


def test_settings_in_the_words_of_vllm(folder: Path, engine: FakeEngine) -> None:
    own = expert(folder)
    own.invoke("hello", temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, seed=3)
    drawn = vars(engine.asked[-1]["params"])
    assert {name: drawn[name] for name in ("temperature", "top_p", "top_k", "min_p", "seed")} == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "seed": 3,
    }
    own.invoke("hello", repetition_penalty=1.3)
    greedy = vars(engine.asked[-1]["params"])
    assert (greedy["temperature"], greedy["repetition_penalty"]) == (0.0, 1.3)
    assert greedy["stop_token_ids"] == [2, 4]  # </s> and <|im_end|>
    with pytest.raises(ExpertError, match="knows no no_repeat_ngram_size"):
        own.invoke("hello", no_repeat_ngram_size=2)


def test_who_leaves_stops_the_request(folder: Path, engine: FakeEngine) -> None:
    own = expert(folder)
    engine.pause = 0.02
    stream: Any = own.stream("hello", max_new_tokens=200)
    next(stream)
    stream.close()
    deadline = time.monotonic() + 20
    while not engine.aborted and time.monotonic() < deadline:
        time.sleep(0.01)
    steps = engine.steps
    time.sleep(0.2)
    assert engine.steps == steps < 200
    engine.pause = 5.0  # no token comes, and the time is up all the same
    late = own.invoke("hello", max_time=0.1)
    assert late.response_metadata["finish_reason"] == "length"


def test_experts_of_one_base_model_share_its_weights(
    folder: Path, engine: FakeEngine, tmp_path: Path
) -> None:
    adapters = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}", encoding="utf-8")
        adapters.append(str(tmp_path / name))
    chats = [expert(folder, adapter=adapter) for adapter in adapters]
    chats.append(expert(folder, engine={"enable_lora": True}))
    for chat in chats:
        chat.invoke("hello", max_new_tokens=1)
    assert len(engine.started) == 1  # type: ignore[attr-defined]
    loras = [asked["lora"] for asked in engine.asked]
    assert loras == [("adapter-1", 1, adapters[0]), ("adapter-2", 2, adapters[1]), None]


def test_what_goes_wrong_is_said(folder: Path, engine: FakeEngine) -> None:
    with pytest.raises(ExpertError, match=r"vLLM did not start with .*max_model_len"):
        expert(folder, engine={"max_model_len": 0}).invoke("hello")
    with pytest.raises(PoolError, match="quantization of vllm is a setting of its engine"):
        expert(folder, quantization="4bit").invoke("hello")
    own = expert(folder)
    own.load()
    engine.steps = -1
    with pytest.raises(ExpertError, match="vLLM failed: RuntimeError: the engine is dead"):
        own.invoke("hello")


def test_without_vllm_the_command_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'der-graph\[vllm\]'"):
        expert(folder, engine={"max_model_len": 7}).invoke("hello")


def test_a_pool_file_names_it(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    entry = "{name: a, backend: vllm, model: %s, cost: 1, engine: {max_model_len: 99}}"
    file.write_text(f"experts:\n  - {entry % folder}\n", encoding="utf-8")
    (line,) = check_pool(file)
    assert line.startswith("a  vllm")
