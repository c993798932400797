"""Continuous batches: the answers of single calls, whoever comes and goes meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from langchain_core.messages import HumanMessage
from tiny_models import QUESTIONS, slow, tiny_model, tiny_tokenizer

from der_graph.errors import ExpertError, PoolError
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.continuous import ContinuousEngine
from der_graph.nodes.huggingface.generation import Request
from der_graph.nodes.huggingface.loading import LoadedModel

CACHE_GB = 0.01  # 512 bytes a token: 19,531 tokens


def pipeline_of(model: Any) -> Any:
    import transformers

    return transformers.pipeline("text-generation", model=model, tokenizer=tiny_tokenizer())


def continuous(**settings: Any) -> HuggingFaceChat:
    """A tiny model of its own in continuous batches."""
    return HuggingFaceChat(
        **{
            "pipeline": pipeline_of(tiny_model()),
            "generation": {"max_new_tokens": 12},
            "batching": "continuous",
            "kv_cache_gb": CACHE_GB,
            **settings,
        }
    )


@pytest.fixture
def joined() -> Iterator[HuggingFaceChat]:
    """For tests that change the model."""
    chat = continuous()
    yield chat
    engine_of(chat)._stop()


@pytest.fixture(scope="module")
def kept() -> Iterator[HuggingFaceChat]:
    """For tests that do not."""
    chat = continuous()
    yield chat
    engine_of(chat)._stop()


def engine_of(chat: HuggingFaceChat) -> ContinuousEngine:
    engine = chat._answerer().engine
    assert isinstance(engine, ContinuousEngine)
    return engine


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.5, "seed": 3},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "seed": 1},
    {"repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 2},
    {"temperature": 0.7, "repetition_penalty": 2.0, "seed": 0},
    {"stop": ["a", "e"]},
    {"max_new_tokens": 1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_answers_are_those_of_static_batches(
    chat: HuggingFaceChat, kept: HuggingFaceChat, settings: dict[str, Any]
) -> None:
    static, continuous = chat.batch(QUESTIONS, **settings), kept.batch(QUESTIONS, **settings)
    assert [each.content for each in continuous] == [each.content for each in static]
    for one, other in zip(continuous, static, strict=True):
        assert one.usage_metadata == other.usage_metadata
        ends = (one.response_metadata["finish_reason"], other.response_metadata["finish_reason"])
        assert ends[0] == ends[1]
        sure = other.response_metadata["mean_logprob"]
        assert one.response_metadata["mean_logprob"] == pytest.approx(sure, abs=1e-4)


def test_requests_with_other_settings_share_a_step(
    chat: HuggingFaceChat, kept: HuggingFaceChat
) -> None:
    expected = [chat.invoke("hello", **settings).content for settings in SETTINGS]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(kept.invoke, "hello", **settings) for settings in SETTINGS]
        assert [future.result().content for future in futures] == expected


def test_streams_show_the_answer_in_pieces(chat: HuggingFaceChat, kept: HuggingFaceChat) -> None:
    whole = chat.invoke("hello").content
    pieces = [piece.text for piece in kept.stream("hello")]
    assert "".join(pieces) == whole
    assert len(pieces) > 2

    async def later() -> tuple[str, Any]:
        text = "".join([piece.text async for piece in kept.astream("hello")])
        return text, (await kept.ainvoke("hello")).content

    assert asyncio.run(later()) == (whole, whole)


def test_who_comes_later_does_not_wait_for_the_end_of_the_others(joined: HuggingFaceChat) -> None:
    slow(joined, 0.01)
    ended: dict[str, float] = {}

    def ask(question: str, tokens: int) -> None:
        joined.invoke(question, max_new_tokens=tokens)
        ended[question] = time.monotonic()

    stream: Any = joined.stream("2 + 2", max_new_tokens=150)
    next(stream)  # it is being answered
    ask("hello", 2)
    assert len(list(stream)) > 3
    assert ended["hello"] < time.monotonic()


@pytest.mark.parametrize("way", ["stream", "task"])
def test_who_leaves_frees_the_place_within_a_token(joined: HuggingFaceChat, way: str) -> None:
    steps = slow(joined)

    async def cancelled() -> None:
        task = asyncio.ensure_future(joined.ainvoke("hello", max_new_tokens=200))
        while len(steps) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    if way == "task":
        asyncio.run(cancelled())
    else:
        stream: Any = joined.stream("hello", max_new_tokens=200)
        next(stream)
        stream.close()
    left = len(steps)
    deadline = time.monotonic() + 10
    while engine_of(joined)._opened and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.1)
    assert (
        len(steps) <= left + 3
    )  # the one that ran, and one that was begun before the engine looked


def test_an_answer_is_cut_when_its_time_is_over(joined: HuggingFaceChat) -> None:
    joined.invoke("hello", max_new_tokens=1)  # begins to run
    slow(joined, 0.05)
    message = joined.invoke("hello", max_new_tokens=200, max_time=1)
    assert message.response_metadata["finish_reason"] == "length"
    assert message.usage_metadata is not None
    assert 0 < message.usage_metadata["output_tokens"] <= 21  # of 50 ms each


def test_requests_that_nobody_waits_for_are_not_begun(joined: HuggingFaceChat) -> None:
    steps = slow(joined, 0.0)
    gone = threading.Event()
    gone.set()
    request = Request([HumanMessage("hello")], joined._settings(None, {}), gone)
    (answered,) = joined._answerer().begin_all([request])
    assert not isinstance(answered, Exception)
    assert not isinstance(answered, tuple)
    assert answered.result(10).row.count == 0
    assert steps == []


def test_an_error_of_who_listens_is_nobody_elses(
    chat: HuggingFaceChat, kept: HuggingFaceChat
) -> None:
    def broken(text: str) -> None:
        raise ValueError("the listener is gone")

    settings = kept._settings(None, {})
    requests = [
        Request([HumanMessage("hello")], settings, show=broken),
        Request([HumanMessage("hello")], settings),
    ]
    bad, good = kept._answerer().begin_all(requests)
    assert not isinstance(bad, (Exception, tuple))
    assert not isinstance(good, (Exception, tuple))
    with pytest.raises(ValueError, match="the listener is gone"):
        bad.result(10)
    assert good.result(10).row.reader.answer == chat.invoke("hello").content


def test_when_memory_runs_out_half_as_many_go_on_where_they_were(
    chat: HuggingFaceChat, joined: HuggingFaceChat
) -> None:
    engine = engine_of(joined)
    engine.max_requests = 8
    forward = joined.load().model.forward
    sizes: list[int] = []

    def short_of_memory(*given: Any, **named: Any) -> Any:
        sizes.append(len(named["logits_indices"]))
        if len(sizes) > 4 and sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*given, **named)

    singles = [each.content for each in chat.batch(QUESTIONS)]
    joined.load().model.forward = short_of_memory
    shown: list[str] = []
    settings = joined._settings(None, {})
    requests = [
        Request([HumanMessage(question)], settings, show=shown.append if i == 0 else None)
        for i, question in enumerate(QUESTIONS)
    ]
    found = []
    for future in joined._answerer().begin_all(requests):
        assert not isinstance(future, (Exception, tuple))
        found.append(future.result(60).row.reader.answer)
    assert found == singles
    assert "".join(shown) == singles[0]  # nothing is said twice
    assert engine.max_requests == 2
    assert max(sizes) > 2


def test_without_any_memory_the_error_says_what_to_do(joined: HuggingFaceChat) -> None:
    engine_of(joined).max_requests = 2
    forward = joined.load().model.forward

    def no_memory(*given: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    joined.load().model.forward = no_memory
    with pytest.raises(
        ExpertError, match=r"ran out of memory on cpu .* use a smaller max_new_tokens"
    ):
        joined.invoke("hello")
    joined.load().model.forward = forward
    assert joined.invoke("hello").content  # and the model is not lost


def test_a_cache_that_transformers_finds_too_large_is_made_smaller(
    joined: HuggingFaceChat, chat: HuggingFaceChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.generation.continuous_batching import cache

    begun: list[int] = []
    check = cache.PagedAttentionMemoryHandler._check_footprint

    def little(self: Any, tokens: int, sectors: int) -> Any:
        begun.append(sectors)
        self.available_memory = 30_000_000
        return check(self, tokens, sectors)

    monkeypatch.setattr(cache.PagedAttentionMemoryHandler, "_check_footprint", little)
    engine = engine_of(joined)
    requests = engine.max_requests
    answers = [each.content for each in joined.batch(QUESTIONS)]
    assert answers == [each.content for each in chat.batch(QUESTIONS)]
    assert begun == sorted(begun, reverse=True)
    assert begun[-1] < begun[0]
    assert engine.max_requests == requests  # as many as before: nothing ran


def test_who_has_no_room_any_more_is_told(joined: HuggingFaceChat) -> None:
    engine = engine_of(joined)
    settings = joined._settings(None, {"max_new_tokens": 200})
    row, room = joined._answerer().open_row(Request([HumanMessage("hello")], settings))
    assert engine.takes(row, settings, room)
    engine._cache_bytes = 1  # memory ran out meanwhile
    with pytest.raises(ExpertError, match="no room for the whole conversation"):
        engine.submit(row, settings, room).result(10)


def test_a_manager_that_does_not_start_keeps_nobody_waiting(
    joined: HuggingFaceChat, chat: HuggingFaceChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = joined.load().model
    joined._answerer()

    def broken(**given: Any) -> Any:
        raise TypeError("an unexpected keyword argument")

    monkeypatch.setattr(model, "init_continuous_batching", broken)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(joined.invoke, question) for question in QUESTIONS[:4]]
        for future in futures:
            with pytest.raises(
                ExpertError, match=r"do not work with this model \(TypeError: .* batching: static"
            ):
                future.result(10)
    monkeypatch.undo()
    assert joined.invoke("hello").content == chat.invoke("hello").content


def test_the_manager_of_an_older_transformers_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.generation.continuous_batching import ContinuousBatchingManager

    from der_graph.nodes.huggingface.continuous import _manager_is_known

    monkeypatch.delattr(ContinuousBatchingManager, "pause")
    _manager_is_known.cache_clear()
    try:
        with pytest.raises(PoolError, match="or with this transformers"):
            continuous().invoke("hello")
    finally:
        _manager_is_known.cache_clear()


def test_static_batches_do_not_wait_for_a_manager_that_has_ended(joined: HuggingFaceChat) -> None:
    engine = engine_of(joined)
    joined.invoke("hello", max_new_tokens=1)
    engine._manager.stop(block=True, hard_stop=True)
    with engine.paused():
        pass


def test_a_fault_of_the_model_is_told_and_the_next_call_works(
    chat: HuggingFaceChat, joined: HuggingFaceChat
) -> None:
    forward = joined.load().model.forward

    def broken(*given: Any, **named: Any) -> Any:
        raise RuntimeError("the device is gone")

    joined.load().model.forward = broken
    with pytest.raises(ExpertError, match="in the middle of its answers: the device is gone"):
        joined.invoke("hello")
    joined.load().model.forward = forward
    assert joined.invoke("hello").content == chat.invoke("hello").content


def test_what_the_cache_cannot_hold_is_answered_in_a_static_batch(folder: Path) -> None:
    small = continuous(kv_cache_gb=0.00005)  # 3 pages of 32 tokens
    static = HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 12}, device="cpu")
    long = "x" * 150
    questions = ["hello", long]
    answers = [each.content for each in static.batch(questions)]
    assert [each.content for each in small.batch(questions)] == answers
    engine = engine_of(small)
    row, room = small._answerer().open_row(Request([HumanMessage(long)], small._settings(None, {})))
    assert not engine.takes(row, small._settings(None, {}), room)
    engine._stop()


def test_the_cache_is_given_back_when_nobody_asks(joined: HuggingFaceChat) -> None:
    engine = engine_of(joined)
    engine._idle = 0.05
    first = joined.invoke("hello").content
    deadline = time.monotonic() + 10
    while engine.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not engine.running
    assert joined.invoke("hello").content == first


def counted(chat: HuggingFaceChat) -> list[int]:
    """Count the requests of every step."""
    forward = chat.load().model.forward
    sizes: list[int] = []

    def step(*given: Any, **named: Any) -> Any:
        sizes.append(len(named["logits_indices"]))
        return forward(*given, **named)

    chat.load().model.forward = step
    return sizes


def test_a_batch_is_in_flight_as_a_whole(joined: HuggingFaceChat, chat: HuggingFaceChat) -> None:
    assert joined.requests_at_once == 0  # not loaded: nobody knows yet
    joined.invoke("hello", max_new_tokens=1)
    assert joined.requests_at_once == 256
    assert chat.requests_at_once == 0
    sizes = counted(joined)
    joined.batch([f"{i} is a number" for i in range(40)], max_new_tokens=60)
    assert max(sizes) > 32


def test_questions_of_a_training_are_in_flight_together() -> None:
    from der_graph.data import Example
    from der_graph.nodes.langchain import as_expert
    from der_graph.policies.answers import AnswerSource
    from der_graph.policies.quality import get_metric

    joined = continuous(generation={"max_new_tokens": 60})
    joined.invoke("hello", max_new_tokens=1)
    sizes = counted(joined)
    expert = as_expert(joined, name="joined", cost=1.0)
    examples = [Example(str(i), f"{i} is a number", "x") for i in range(60)]
    source = AnswerSource([expert], examples, get_metric("match"))
    assert len(source.first_answers()) == 60
    assert max(sizes) > 32
    engine_of(joined)._stop()


def test_experts_of_one_model_share_its_engine(kept: HuggingFaceChat) -> None:
    other = HuggingFaceChat(pipeline=kept.pipeline, batching="continuous")
    assert engine_of(other) is engine_of(kept)
    assert kept.model_copy(update={"batching": "static"})._engine(kept.load()) is None


def test_models_without_a_fast_attention_are_refused() -> None:
    model = tiny_model()
    model.set_attn_implementation("eager")
    chat = HuggingFaceChat(pipeline=pipeline_of(model), batching="continuous")
    with pytest.raises(PoolError, match="batching: continuous is not possible"):
        chat.invoke("hello")
    auto = HuggingFaceChat(pipeline=pipeline_of(model), generation={"max_new_tokens": 2})
    assert auto._answerer().engine is None
    assert auto.invoke("hello").content is not None


def test_a_model_that_is_dropped_is_freed() -> None:
    import gc
    import weakref

    chat = continuous()
    engine = engine_of(chat)
    engine._idle = 0.05
    chat.invoke("hello", max_new_tokens=2)
    loaded: weakref.ref[LoadedModel] = weakref.ref(chat.load())
    deadline = time.monotonic() + 10
    while engine._serving and time.monotonic() < deadline:
        time.sleep(0.01)
    del chat, engine
    gc.collect()
    assert loaded() is None
