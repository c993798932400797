"""Remote experts: asked at the same time, never more than they can take, by all callers together."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedAgent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from tool_fakes import ToolModel

from der_graph import ChatDER
from der_graph.data import Example
from der_graph.errors import PoolError
from der_graph.graph import create_der_graph
from der_graph.nodes.langchain import as_expert, bounded
from der_graph.nodes.reliability import Bounded, Slots, bare
from der_graph.nodes.tools import with_tools
from der_graph.policies.answers import AnswerSource, Request
from der_graph.policies.quality import get_metric
from der_graph.pool import check_pool, load_pool

BOUND = 3
WAIT = 20.0  # seconds until a test that would hang fails instead


class Counter:
    """Counts what is in flight; everything waits until `together` are, so the bound must be reached."""

    def __init__(self, together: int) -> None:
        self.peak = self.total = self._now = 0
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(together)

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.total += 1
            self.peak = max(self.peak, self._now)
        try:
            self._barrier.wait(WAIT)
            yield
        finally:
            with self._lock:
                self._now -= 1


class OpenAIStub(ThreadingHTTPServer):
    """Speaks just enough of the OpenAI protocol: every answer is the question in capitals."""

    daemon_threads = True

    def __init__(self, counter: Counter) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.counter = counter

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][-1]["content"].upper()
        assert isinstance(self.server, OpenAIStub)
        with self.server.counter.one():
            body = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": request["model"],
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Any, Counter]]:
    """A pool of one expert behind a server on this machine, and the server's counter."""
    pytest.importorskip("langchain_openai")
    counter = Counter(BOUND)
    server = OpenAIStub(counter)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    (tmp_path / "pool.yaml").write_text(
        "experts:\n"
        "  - name: remote\n    backend: langchain\n    model: openai:stub\n    cost: 1\n"
        f"    max_concurrency: {BOUND}\n"
        f"    settings: {{api_key: not-a-key, base_url: '{server.url}', max_retries: 0}}\n",
        encoding="utf-8",
    )
    yield load_pool(tmp_path / "pool.yaml"), counter
    server.shutdown()
    server.server_close()
    thread.join()


def questions(count: int) -> list[Example]:
    return [Example(f"{i}", f"word {i}", f"WORD {i}") for i in range(count)]


def test_training_asks_a_remote_engine_within_its_bound(served: tuple[Any, Counter]) -> None:
    pool, counter = served
    source = AnswerSource(list(pool), questions(4 * BOUND), get_metric("exact"))
    first = source.first_answers()
    assert [row[0].answer["text"] for row in first] == [f"WORD {i}" for i in range(4 * BOUND)]
    assert (counter.peak, counter.total) == (BOUND, 4 * BOUND)


def test_so_does_the_graph_whoever_calls(served: tuple[Any, Counter]) -> None:
    """Two graphs over one pool, one called from threads and one from an event loop."""
    pool, counter = served
    graphs = [create_der_graph(pool, agent=ScriptedAgent("remote")).compile() for _ in range(2)]
    inputs = [{"messages": [("user", f"word {i}")]} for i in range(2 * BOUND)]
    answers: list[Any] = []
    batch = threading.Thread(target=lambda: answers.extend(graphs[0].batch(list(inputs))))
    batch.start()
    answers += asyncio.run(graphs[1].abatch(list(inputs)))
    batch.join()
    assert sorted(state["answer"] for state in answers) == sorted(
        2 * [f"WORD {i}" for i in range(2 * BOUND)]
    )
    assert (counter.peak, counter.total) == (BOUND, 4 * BOUND)


def counting(counter: Counter) -> Callable[[str], str]:
    def answer(text: str) -> str:
        with counter.one():
            return text.upper()

    return answer


def test_remote_experts_are_asked_at_the_same_time() -> None:
    counter = Counter(2)  # nobody answers until both have been asked
    experts = [
        as_expert(counting(counter), name=name, cost=1.0, max_concurrency=1) for name in "ab"
    ]
    source = AnswerSource(experts, questions(1), get_metric("exact"))
    outcomes = source.ask([Request(0, 1, []), Request(0, 0, [])])
    assert [outcome.answer["expert"] for outcome in outcomes] == ["b", "a"]
    assert [outcome.answer["error"] for outcome in outcomes] == [None, None]
    assert (counter.peak, source.generated) == (2, 2)


def test_an_error_gives_its_slot_back() -> None:
    def fail(text: str) -> str:
        raise ConnectionError("gone")

    model = Bounded(RunnableLambda(fail), max_concurrency=1)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            model.invoke("a")
        results = model.batch(["a", "b"], return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionError] * 2
        with pytest.raises(ConnectionError):
            asyncio.run(model.ainvoke("a"))


def test_who_gives_up_waiting_takes_no_slot() -> None:
    slots = Slots(1)

    async def wait() -> None:
        async with slots.one_later():
            raise AssertionError("there was no slot")

    async def give_up() -> None:
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with slots.one():
        asyncio.run(give_up())
    with slots.one():
        pass
    assert slots._free == 1


def test_streams_hold_their_slot_to_the_end() -> None:
    def pieces(inputs: Iterator[str]) -> Iterator[str]:
        yield from ("a", "b")

    async def pieces_later(inputs: AsyncIterator[str]) -> AsyncIterator[str]:
        async for _ in inputs:
            yield "a"
            yield "b"

    model = Bounded(RunnableGenerator(pieces, pieces_later), max_concurrency=1)
    stream = model.stream("x")
    assert next(stream) == "a"
    assert model._slots._free == 0
    assert list(stream) == ["b"]
    assert model._slots._free == 1

    async def later() -> list[str]:
        return [piece async for piece in model.astream("x")]

    assert asyncio.run(later()) == ["a", "b"]
    assert asyncio.run(model.abatch(["x", "y"])) == ["ab", "ab"]
    assert model._slots._free == 1


def remote_ensemble(model: Any, **settings: Any) -> ChatDER:
    """A chat model as a pool file makes an expert of it, and the ensemble of it alone."""
    expert = as_expert(model, name="a", cost=1.0, max_concurrency=2)
    return ChatDER(pool=[expert], agent=ScriptedAgent("a"), **settings)


def test_settings_and_tools_reach_a_bounded_model() -> None:
    """Every remote expert of a pool file is bounded."""
    model = ToolModel(answers=["5"])
    remote_ensemble(model, temperature=0.25).invoke("2 + 3?", max_tokens=7)
    assert model.settings == [{"temperature": 0.25, "max_tokens": 7}]
    tool: Any = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    remote_ensemble(model).bind_tools([tool]).invoke("2 + 3?")
    assert model.settings[1]["tools"][0]["function"]["name"] == "add"


def test_what_is_bound_to_a_bounded_model_shares_its_slots() -> None:
    model = Bounded(ToolModel(answers=["5"]), 1)
    wrapped: Any = with_tools(model, [{"name": "add", "description": "Adds.", "parameters": {}}])
    assert isinstance(wrapped, Bounded)
    assert wrapped.bound is not model.bound
    assert wrapped._slots is model._slots
    assert wrapped.invoke("2 + 3?").text == "5"
    assert bare(wrapped).settings[0]["tools"]


def test_the_final_answer_of_a_bounded_model_is_streamed_as_it_comes() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("the final word")]))
    pieces = [chunk.text for chunk in remote_ensemble(model).stream("Say it") if chunk.text]
    assert pieces == ["the", " final", " word"]


def test_bounds_that_cannot_be() -> None:
    with pytest.raises(PoolError, match="max_concurrency is 0"):
        bounded(RunnableLambda(str), 0)


def test_the_pool_file_says_the_bound(served: tuple[Any, Counter], tmp_path: Path) -> None:
    pool, _ = served
    assert pool["remote"].model.max_concurrency == BOUND
    assert "ChatOpenAI" in check_pool(tmp_path / "pool.yaml")[0]
    text = (tmp_path / "pool.yaml").read_text(encoding="utf-8")
    (tmp_path / "bad.yaml").write_text(
        text.replace("max_concurrency: 3", "max_concurrency: 0"), encoding="utf-8"
    )
    with pytest.raises(PoolError, match="max_concurrency is 0"):
        load_pool(tmp_path / "bad.yaml")
