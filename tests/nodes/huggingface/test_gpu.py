"""On a GPU: the answers of the CPU's static batches, in 16 bits and in too little memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import QUESTIONS

from der_graph.nodes.huggingface import HuggingFaceChat

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def on(folder: Path, **settings: Any) -> HuggingFaceChat:
    """The tiny model on the GPU, in float32 where nothing else is said."""
    given = {"dtype": "float32", "device": "cuda", "kv_cache_gb": 0.05, **settings}
    return HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 12}, **given)


@pytest.mark.parametrize(
    "settings", [{}, {"repetition_penalty": 1.3}, {"stop": ["a", "e"]}], ids=str
)
def test_answers_are_those_of_static_batches(folder: Path, settings: dict[str, Any]) -> None:
    joined, static = on(folder), on(folder, batching="static")
    assert joined._answerer().engine is not None  # by itself
    answers = [each.content for each in joined.batch(QUESTIONS, **settings)]
    assert answers == [each.content for each in static.batch(QUESTIONS, **settings)]
    assert answers == [static.invoke(question, **settings).content for question in QUESTIONS]


def test_requests_with_other_settings_share_a_step(folder: Path) -> None:
    joined, static = on(folder), on(folder, batching="static")
    settings: list[dict[str, Any]] = [
        {},
        {"temperature": 1.5, "seed": 3},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "seed": 1},
        {"no_repeat_ngram_size": 2},
        {"stop": ["a", "e"]},
        {"max_new_tokens": 1},
    ]
    expected = [static.invoke("hello", **each).content for each in settings]
    with ThreadPoolExecutor(len(settings)) as pool:
        futures = [pool.submit(joined.invoke, "hello", **each) for each in settings]
        assert [future.result().content for future in futures] == expected


def test_a_model_that_takes_turns_answers_as_one_that_stays(folder: Path) -> None:
    turning, static = on(folder, offload=True), on(folder, batching="static")
    assert turning.load().model.device.type == "cpu"
    for question in QUESTIONS[:3]:
        assert turning.invoke(question).content == static.invoke(question).content
    assert turning.load().model.device.type == "cuda"
    turns = turning.load().turns
    assert turns is not None
    assert turns.seconds is not None
    turns.free = lambda: 0
    other = on(folder, offload=True, dtype="bfloat16")
    other.invoke("hello")
    assert turning.load().model.device.type == "cpu"
    assert turning.invoke("hello").content == static.invoke("hello").content


def test_a_seed_repeats_an_answer(folder: Path) -> None:
    joined, static = on(folder), on(folder, batching="static")
    for chat in (joined, static):
        first = chat.invoke("hello", temperature=1.5, seed=3).content
        assert chat.batch(["x", "hello"], temperature=1.5, seed=3)[1].content == first
        assert chat.invoke("hello", temperature=1.5, seed=4).content != first


def test_weights_have_16_bits_and_streams_end_early(folder: Path) -> None:
    chat = on(folder, dtype="auto")
    assert chat.load().model.dtype.itemsize == 2
    stream = chat.stream("hello", max_new_tokens=200)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    usage = chat.invoke("hello", max_new_tokens=4).usage_metadata
    assert usage is not None
    assert 0 < usage["output_tokens"] <= 4
