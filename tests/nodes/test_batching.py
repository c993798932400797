"""Many at once: how calls and decisions that are made at the same time meet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from fakes import ScriptedAgent
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field
from toy import toy_agent, toy_examples, toy_experts, toy_source

from der_graph import ChatDER, Expert
from der_graph.nodes.batching import BatchedChatModel, RequestQueue, expected_calls
from der_graph.nodes.decision import Choice
from der_graph.nodes.huggingface.generation import Request
from der_graph.nodes.huggingface.settings import GenerationSettings
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.batched import BatchedAgent
from der_graph.pool import pool_from
from der_graph.state import Situation

FOREVER = 60.0  # seconds: a test that waits this long fails by what it got, not by the clock


class Recorder(BatchedChatModel):
    """A batching model that repeats its questions; remembers the sizes of its batches."""

    sizes: list[int] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "recorder"

    def answer_all(self, requests: Sequence[Any], cancel: Any) -> list[ChatResult | Exception]:
        self.sizes.append(len(requests))
        return [
            ChatResult(generations=[ChatGeneration(message=AIMessage(r.messages[-1].text))])
            for r in requests
        ]

    def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        return self.answer(Request(messages, GenerationSettings()))

    async def _agenerate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        return await self.aanswer(Request(messages, GenerationSettings()))


def test_all_of_a_batch_reach_an_expert_together() -> None:
    questions: list[Any] = [f"question {i}" for i in range(8)]
    for asynchronous in (False, True):
        model = Recorder()
        model._queue = RequestQueue(quiet=FOREVER)
        der = ChatDER(pool=[Expert("a", model, cost=1.0)], agent=ScriptedAgent("a"))
        answers = asyncio.run(der.abatch(questions)) if asynchronous else der.batch(questions)
        assert [answer.content for answer in answers] == questions
        assert model.sizes == [8]


def test_a_call_alone_waits_for_nobody() -> None:
    line = RequestQueue(quiet=FOREVER)
    done = line.join(Request([], GenerationSettings()), lambda all_, _: ["a"] * len(all_), 4)
    assert done.result(timeout=FOREVER / 4) == "a"


def test_a_crowd_larger_than_a_batch_fills_it() -> None:
    line, sizes = RequestQueue(quiet=FOREVER), []

    def answer(requests: Sequence[Any], _: None) -> list[int]:
        sizes.append(len(requests))
        return [0] * len(requests)

    with expected_calls(4):
        futures = [line.join(Request([], GenerationSettings()), answer, 2) for _ in range(4)]
    assert [future.result(timeout=FOREVER / 4) for future in futures] == [0] * 4
    assert sizes == [2, 2]


class Gate:
    """An agent that holds its first decision until it is let go."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun, self.free = threading.Event(), threading.Event()

    def check_pool(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        self.sizes.append(len(situations))
        if len(self.sizes) == 1:
            self.begun.set()
            assert self.free.wait(FOREVER)
        return [Choice(len(s.question), [1.0]) for s in situations]


def test_decisions_wanted_meanwhile_are_one_batch() -> None:
    gate = Gate()
    shared = BatchedAgent(gate)
    shared.check_pool(["a"])
    assert shared.names == ["a"]  # everything else is the agent's own
    found: dict[str, int] = {}

    def ask(question: str) -> None:
        found[question] = shared.decide([Situation(question)])[0].index

    threads = [threading.Thread(target=ask, args=["x" * n]) for n in range(1, 5)]
    threads[0].start()
    assert gate.begun.wait(FOREVER)
    for thread in threads[1:]:
        thread.start()
    while len(shared._queue._queue) < 3:
        threading.Event().wait(0.001)
    gate.free.set()
    for thread in threads:
        thread.join()
    assert gate.sizes == [1, 3]
    assert found == {"x": 1, "xx": 2, "xxx": 3, "xxxx": 4}


def test_a_trained_agent_decides_in_a_batch_as_it_does_alone() -> None:
    agent = toy_agent(toy_source(16))
    der = ChatDER(pool=pool_from(toy_experts(), max_steps=3), agent=agent)
    questions: list[Any] = [example.question for example in toy_examples(16)]
    alone = [der.invoke(question) for question in questions]
    together = asyncio.run(der.abatch(questions))
    for one, other in zip(alone, together, strict=True):
        assert one.content == other.content
        assert one.response_metadata["der_experts"] == other.response_metadata["der_experts"]
    assert isinstance(der.agent, DERAgent)
