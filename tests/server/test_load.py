"""Many callers of the server at once, more than it takes, and callers who leave."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from server_calls import HELLO, client, metric, raw, serving, two_experts
from tiny_models import save_tiny

from der_graph.nodes.batching import RequestQueue
from der_graph.nodes.expert import Expert
from der_graph.nodes.huggingface import HuggingFaceChat

openai = pytest.importorskip("openai", reason="needs the extra test")


def test_sixty_four_at_once() -> None:
    async def ask_all(address: str) -> list[str | None]:
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60
        ) as each:

            async def whole() -> str | None:
                done = await each.chat.completions.create(model="der", messages=HELLO)
                content: str | None = done.choices[0].message.content
                return content

            async def streamed() -> str:
                stream = await each.chat.completions.create(
                    model="der", messages=HELLO, stream=True
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream])

            answers: list[str | None] = await asyncio.gather(
                *(whole() if i % 2 else streamed() for i in range(64))
            )
            return answers

    with serving(two_experts(), "writer", "closer") as address:
        answers = asyncio.run(ask_all(address))
        assert answers == ["the end"] * 64
        assert metric(address, 'der_requests_total{model="der",status="200"}') == 64
        assert metric(address, "der_requests_in_flight") == 0
        assert metric(address, 'der_route_length_sum{model="der"}') == 128
        assert metric(address, 'der_route_cost_total{model="der"}') == 96
        assert metric(address, 'der_expert_seconds_count{expert="writer"}') == 64
        assert metric(address, "der_decision_seconds_count") == 192
        assert metric(address, 'der_tokens_total{direction="input"}') == 640


@pytest.mark.parametrize("stream", [False, True])
def test_requests_that_come_together_share_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    count = 12
    model = HuggingFaceChat(model=str(save_tiny(tmp_path)), generation={"max_new_tokens": 4})
    all_here, batches = threading.Semaphore(0), list[int]()
    answer_all, join = HuggingFaceChat.answer_all, RequestQueue.join

    def counted(self: Any, requests: Any, cancel: Any) -> Any:
        if not batches:
            for _ in range(count):  # the first one takes until all others wait
                assert all_here.acquire(timeout=60)
        batches.append(len(requests))
        return answer_all(self, requests, cancel)

    def noticed(self: Any, *given: Any) -> Any:
        future = join(self, *given)
        all_here.release()
        return future

    monkeypatch.setattr(HuggingFaceChat, "answer_all", counted)
    monkeypatch.setattr(RequestQueue, "join", noticed)

    async def ask_all(address: str) -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="none", max_retries=0
        ) as each:

            async def ask() -> None:
                given: Any = {"model": "der", "messages": HELLO}
                if not stream:
                    await each.chat.completions.create(**given)
                    return
                async for _ in await each.chat.completions.create(**given, stream=True):
                    pass

            await asyncio.gather(*(ask() for _ in range(count)))

    with serving([Expert("tiny", model, cost=1.0)], "tiny") as address:
        asyncio.run(ask_all(address))
    assert sum(batches) == count
    assert len(batches) <= 2


def test_the_surplus_is_told_to_come_again() -> None:
    asked, go = threading.Event(), threading.Event()

    async def answer(messages: Any) -> AIMessage:
        asked.set()
        await asyncio.to_thread(go.wait, 30)
        return AIMessage("done")

    expert = Expert("slow", RunnableLambda(answer), cost=1.0)
    body = {"model": "der", "messages": HELLO}
    with serving([expert], "slow", max_concurrent=1) as address:
        first: list[Any] = []
        thread = threading.Thread(
            target=lambda: first.append(raw(address, "POST", "/v1/chat/completions", body))
        )
        thread.start()
        assert asked.wait(30)
        with client(address) as openai_client, pytest.raises(openai.RateLimitError) as caught:
            openai_client.chat.completions.create(model="der", messages=HELLO)
        assert metric(address, "der_requests_in_flight") == 1
        go.set()
        thread.join()
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.code == "overloaded"
    assert first[0][0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves_stops_the_route(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    asked, stopped = threading.Event(), threading.Event()

    async def answer(messages: Any) -> AIMessage:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        raise AssertionError

    expert = Expert("endless", RunnableLambda(answer), cost=1.0)
    with caplog.at_level(logging.INFO, "der_graph.server"), serving([expert], "endless") as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
        body = {"model": "der", "messages": HELLO, "stream": stream}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        assert asked.wait(30)
        connection.close()
        assert stopped.wait(30)
    assert " 499 " in caplog.text
