"""Many prompts at once: one call of the model, and for each the answer it would get alone."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatResult
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from tiny_models import QUESTIONS, Spy

from der_graph.errors import ExpertError
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.generation import Request


def test_a_batch_is_one_call_and_gives_the_answers_of_single_calls(
    chat: HuggingFaceChat, spy: Spy
) -> None:
    singles = [chat.invoke(question).content for question in QUESTIONS]
    spy.shapes.clear()
    assert [message.content for message in chat.batch(QUESTIONS)] == singles
    assert [message.content for message in asyncio.run(chat.abatch(QUESTIONS))] == singles
    result = chat.generate([[HumanMessage(question)] for question in QUESTIONS])
    assert [each[0].text for each in result.generations] == singles
    assert len(result.run or []) == 8
    later = asyncio.run(chat.agenerate([[HumanMessage(question)] for question in QUESTIONS]))
    assert [each[0].text for each in later.generations] == singles
    assert [shape[0] for shape in spy.shapes] == [8, 8, 8, 8]
    mask = spy.seen[-1]["attention_mask"]
    assert (mask[:, -1] == 1).all()  # padded on the left


def test_large_batches_are_split(folder: Path) -> None:
    chat = HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 2}, max_batch_size=3)
    spy = Spy(chat)
    spy.model.generate = spy
    try:
        assert len(chat.batch(QUESTIONS)) == 8
        assert [shape[0] for shape in spy.shapes] == [3, 3, 2]
        spy.shapes.clear()
        chat.batch(QUESTIONS[:4], config={"max_concurrency": 2})
        assert [shape[0] for shape in spy.shapes] == [2, 2]
    finally:
        del spy.model.generate
    assert chat.batch([]) == []


def test_prompts_near_the_end_of_the_context_do_not_cut_the_others(chat: HuggingFaceChat) -> None:
    long = "x" * 221
    alone = [chat.invoke("hello").content, chat.invoke(long).content]
    assert [message.content for message in chat.batch(["hello", long])] == alone


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.ended: list[str] = []
        self.failed: list[str] = []

    def on_llm_end(self, response: Any, **_: Any) -> None:
        self.ended.append(response.generations[0][0].text)

    def on_llm_error(self, error: BaseException, **_: Any) -> None:
        self.failed.append(str(error))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_every_input_of_a_batch_has_its_own_run_and_config(
    chat: HuggingFaceChat, asynchronous: bool
) -> None:
    collectors = [RunCollectorCallbackHandler() for _ in range(3)]
    configs: list[Any] = [
        {"callbacks": [collector], "tags": [f"t{i}"], "metadata": {"n": i}, "run_name": f"run{i}"}
        for i, collector in enumerate(collectors)
    ]
    inputs = ["one", "x" * 300, "three"]
    if asynchronous:
        results = asyncio.run(chat.abatch(inputs, configs, return_exceptions=True))
    else:
        results = chat.batch(inputs, configs, return_exceptions=True)
    assert isinstance(results[1], ExpertError)
    for i, collector in enumerate(collectors):
        (run,) = collector.traced_runs
        assert run.name == f"run{i}"
        assert run.tags == [f"t{i}"]
        assert run.extra["metadata"]["n"] == i
        assert run.extra["metadata"]["ls_provider"] == "huggingface"
        assert run.extra["metadata"]["ls_model_name"] == chat.shown_name
        assert (run.error is not None) == (i == 1)
    assert results[0].content == chat.invoke("one").content
    recorder = Recorder()
    with pytest.raises(ExpertError, match="reads at most"):
        chat.batch(inputs, config={"callbacks": [recorder]})
    assert len(recorder.ended) == 2
    assert len(recorder.failed) == 1


def test_a_call_that_never_arrives_does_not_hold_up_the_batch(
    chat: HuggingFaceChat, spy: Spy
) -> None:
    class Refuses(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, *args: Any, **given: Any) -> None:
            raise ValueError("not today")

    configs: list[Any] = [{}, {"callbacks": [Refuses()]}, {}]
    for results in (
        chat.batch(["a", "b", "c"], configs, return_exceptions=True),
        asyncio.run(chat.abatch(["a", "b", "c"], configs, return_exceptions=True)),
    ):
        assert [type(result).__name__ for result in results] == [
            "AIMessage",
            "ValueError",
            "AIMessage",
        ]
    assert [shape[0] for shape in spy.shapes] == [2, 2]


def test_listeners_for_tokens_do_not_break_a_batch_up(chat: HuggingFaceChat, spy: Spy) -> None:
    async def run() -> list[Any]:
        return [event async for event in chat.with_config().astream_events("hello", version="v2")]

    assert any(event["event"] == "on_chat_model_stream" for event in asyncio.run(run()))
    spy.shapes.clear()

    async def batched() -> list[Any]:
        from langchain_core.runnables import RunnableLambda

        async def both(_: Any) -> list[Any]:
            return await chat.abatch(["hello", "x"])

        return [event async for event in RunnableLambda(both).astream_events("", version="v2")]

    events = asyncio.run(batched())
    assert sum(event["event"] == "on_chat_model_end" for event in events) == 2
    assert [shape[0] for shape in spy.shapes] == [2]


def test_when_memory_runs_out_the_batch_is_halved(chat: HuggingFaceChat, spy: Spy) -> None:
    original = spy.original

    def short_of_memory(**given: Any) -> Any:
        if given["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError("out of memory")
        return original(**given)

    singles = [chat.invoke(question).content for question in QUESTIONS]
    spy.original = short_of_memory
    spy.shapes.clear()
    assert [message.content for message in chat.batch(QUESTIONS)] == singles
    assert [shape[0] for shape in spy.shapes] == [8, 4, 2, 2, 4, 2, 2]

    def no_memory(**given: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    spy.original = no_memory
    with pytest.raises(ExpertError, match="ran out of memory on cpu"):
        chat.invoke("hello")


def test_a_shared_system_prompt_does_not_change_answers(chat: HuggingFaceChat) -> None:
    system = SystemMessage("Answer in one short word, please.")
    prompts = [
        [system, HumanMessage(text)] for text in ("a", "what is it?", "ten and two", "zz top")
    ]
    singles = [chat.invoke(prompt).content for prompt in prompts]
    assert [message.content for message in chat.batch(list(prompts))] == singles


def test_requests_with_other_times_left_share_a_batch(chat: HuggingFaceChat, spy: Spy) -> None:
    whole = chat.invoke("hello")
    spy.shapes.clear()
    requests = [
        Request([HumanMessage("hello")], chat._settings(None, {"max_time": seconds}))
        for seconds in (0.0, None, 1e6)
    ]
    tokens = []
    for result in chat.answer_all(requests, None):
        assert isinstance(result, ChatResult)
        message = result.generations[0].message
        assert isinstance(message, AIMessage)
        assert message.usage_metadata is not None
        tokens.append(message.usage_metadata["output_tokens"])
    assert whole.usage_metadata is not None
    assert tokens == [
        1,
        whole.usage_metadata["output_tokens"],
        whole.usage_metadata["output_tokens"],
    ]
    assert [shape[0] for shape in spy.shapes] == [3]


def test_one_row_is_given_up_and_the_others_go_on(chat: HuggingFaceChat) -> None:
    settings = chat._settings(None, {})
    stop = threading.Event()
    seen: list[str] = []

    def show(piece: str) -> None:
        seen.append(piece)
        stop.set()

    requests = [
        Request([HumanMessage("one")], settings, stop, show),
        Request([HumanMessage("one")], settings, threading.Event()),
    ]
    given_up, whole = chat.answer_all(requests, None)
    assert isinstance(given_up, ChatResult)
    assert isinstance(whole, ChatResult)
    short = given_up.generations[0].message.text
    assert seen
    assert len(short) < len(whole.generations[0].message.text)
    assert whole.generations[0].message.text == chat.invoke("one").content
