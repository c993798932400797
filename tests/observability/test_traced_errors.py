"""What traces say of calls that fail: no secrets, and why they ended."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest
from collector import Collector, collector
from fakes import ScriptedAgent, a_human, chat_expert
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langsmith import Client, run_trees, tracing_context
from provider_stub import provider, remote_model

from der_graph import Expert, create_der_graph
from der_graph.cli import main
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.providers import ProviderChat, secrets
from der_graph.nodes.providers.secrets import masked_error, quiet, secrets_of, shown
from der_graph.nodes.reliability import failure_of
from der_graph.nodes.reliability.threads import STOPS, StreamClosedError
from der_graph.nodes.streaming import Listener
from der_graph.observability import tracing
from der_graph.observability.tracing import tracing_client

KEY = "sk-proj-ABCDEFGH0123456789"
PLAIN = "hunter2-and-more"  # a key that does not look like one
QUOTED = f"Incorrect API key provided: {KEY}, and {PLAIN}"


@pytest.fixture
def got() -> Iterator[Collector]:
    with collector() as found:
        yield found


def refused(body: Any) -> dict[str, Any]:
    return {
        "status": 401,
        "error": {"message": QUOTED, "type": "invalid_request_error", "code": "invalid_api_key"},
        "headers": {"set-cookie": "session=cookievalue", "x-request-id": "r-1"},
    }


async def _drain(parts: AsyncIterator[Any]) -> None:
    async for _ in parts:
        pass


WAYS: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda graph: graph.invoke(a_human("q")),
    "ainvoke": lambda graph: asyncio.run(graph.ainvoke(a_human("q"))),
    "stream": lambda graph: list(graph.stream(a_human("q"), stream_mode="messages")),
    "astream": lambda graph: asyncio.run(
        _drain(graph.astream(a_human("q"), stream_mode="messages"))
    ),
}


def traced(got: Collector, ask: Callable[[Any], Any], expert: Expert, **settings: Any) -> str:
    """Everything that a plain client sends of a route in which the expert fails and another answers."""
    experts = [expert, chat_expert("good", "ok")]
    graph = create_der_graph(experts, agent=ScriptedAgent("bad", "good"), **settings).compile()
    client = Client(api_url=got.url, api_key="not-a-key")
    try:
        with tracing_context(enabled=True, client=client, project_name="der"):
            ask(graph)
        client.flush()
    finally:
        client.cleanup()
    return b"".join(got.raw).decode()


def failed_model(got: Collector) -> dict[str, Any]:
    (run,) = [
        run
        for run in got.runs.values()
        if run["run_type"] == "llm" and run["name"] != "GenericFakeChatModel"
    ]
    return run


# Secrets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", ["bare", "retry", "fallback"])
@pytest.mark.parametrize("way", WAYS)
def test_a_providers_error_shows_no_key(got: Collector, way: str, wrapped: str) -> None:
    with provider(refused) as stub:
        model = remote_model(stub.url, default_headers={"x-own": PLAIN})
        if wrapped == "retry":
            model = model.with_retry(
                retry_if_exception_type=(openai.AuthenticationError,),
                stop_after_attempt=2,
                wait_exponential_jitter=False,
            )
        elif wrapped == "fallback":
            model = model.with_fallbacks([remote_model(stub.url, default_headers={"x-own": PLAIN})])
        sent = traced(got, WAYS[way], Expert("bad", model, cost=1.0))
        assert len(stub.requests) == (1 if wrapped == "bare" else 2)  # the class is what it was
    assert "Incorrect API key provided: ***, and ***" in sent
    assert "r-1" in sent  # what is no secret is told
    for secret in (KEY, PLAIN, "cookievalue"):
        assert secret not in sent


@pytest.mark.parametrize("way", WAYS)
def test_a_functions_error_shows_no_key(got: Collector, way: str) -> None:
    def plain(question: str) -> str:
        raise RuntimeError(f"wrong key {chr(115)}k-proj-{KEY[8:]}")

    async def later(question: str) -> str:
        return plain(question)

    function = later if way.startswith("a") else plain
    sent = traced(got, WAYS[way], as_expert(function, name="bad", cost=1.0))
    assert "wrong key ***" in sent
    assert KEY not in sent


def test_what_a_model_is_called_with_shows_no_key(got: Collector) -> None:
    with provider("fine") as stub:
        url = stub.url.replace("://", f"://{PLAIN}@")
        model = remote_model(url, default_headers={"x-own": PLAIN}, default_query={"key": PLAIN})
        model = model.bind(extra_headers={"x-other": PLAIN}, temperature=0.5)
        sent = traced(got, WAYS["invoke"], Expert("bad", model, cost=1.0))
    assert PLAIN not in sent
    assert failed_model(got)["extra"]["invocation_params"]["temperature"] == 0.5


def test_an_error_is_masked_with_all_that_is_behind_it() -> None:
    class Refused(Exception):
        def __init__(self, message: str, *, body: Any) -> None:
            super().__init__(message)
            self.body, self.status_code = body, 429

    error: Any = Refused(f"no: {PLAIN}", body={"error": {"api_key": "0123456", "tried": [KEY]}})
    cause = ConnectionError(f"GET https://host/v1?key={PLAIN}")
    cause.__context__ = KeyError(KEY)
    error.__cause__ = cause
    masked: Any = masked_error(error, [PLAIN])
    assert type(masked) is Refused
    assert masked.body == {"error": {"api_key": "***", "tried": ["***"]}}
    assert str(masked) == "no: ***"
    assert str(masked.__cause__) == "GET https://host/v1?***"
    behind: Any = masked.__cause__
    assert str(behind.__context__) == "'***'"
    assert failure_of(masked).kind == "rate_limit"
    assert KEY in str(error.body)  # the error itself stays as it is
    with pytest.raises(Refused) as caught, quiet([PLAIN]):
        raise error
    assert caught.value.__context__ is None  # the error that was masked is not behind it
    assert str(caught.value) == "no: ***"


def test_an_error_whose_text_is_its_class_own_is_masked() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            return f"odd {PLAIN}"

    assert str(masked_error(Odd(), [PLAIN])) == "Odd: odd ***"
    clean = ValueError("nothing to hide: max_tokens 4096")
    assert masked_error(clean, [PLAIN]) is clean


@pytest.mark.parametrize(
    "text",
    [
        '{"api_key": "0123456789"}',
        "{'password': 'correct horse'}",
        "https://0123456789abcdef@host/1",
        "GET /v1?x=1&key=0123456789",
    ],
)
def test_secrets_in_what_programs_write(text: str) -> None:
    hidden = shown(text)
    assert "***" in hidden
    assert "0123456789" not in hidden
    assert "correct" not in hidden


def test_words_in_place_of_a_key_are_no_secrets() -> None:
    openai_model = pytest.importorskip("langchain_openai").ChatOpenAI
    model = openai_model(model="m", api_key="ollama", tiktoken_model_name="gpt-4o-mini")
    assert secrets_of(model) == ()


def test_a_client_of_ours_sends_no_key_of_anybodys(got: Collector) -> None:
    """Also of what fails within an application's own graph."""
    from langchain_core.runnables import RunnableLambda

    def fail(given: Any) -> Any:
        raise RuntimeError(f"wrong key {KEY}")

    client = tracing_client(api_url=got.url, api_key="not-a-key")
    with tracing_context(enabled=True, client=client), pytest.raises(RuntimeError):
        RunnableLambda(fail).invoke({"text": f"{KEY} does not work"})
    client.flush()
    client.cleanup()
    sent = b"".join(got.raw).decode()
    assert "wrong key ***" in sent
    assert "*** does not work" in sent
    assert KEY not in sent


def test_commands_send_no_key_of_anybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(run_trees, "configure", lambda client: made.append(client))
    monkeypatch.setenv("LANGSMITH_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("LANGSMITH_API_KEY", "not-a-key")
    assert main(["plugins"]) == 0
    assert made == []
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    assert main(["plugins"]) == 0
    (client,) = made
    assert client._anonymizer({"error": [QUOTED]}) == {
        "error": [f"Incorrect API key provided: ***, and {PLAIN}"]
    }
    client.cleanup()


# Why a call ended ------------------------------------------------------------------------------------------


class Slow(BaseChatModel):
    """Says a word from time to time."""

    @property
    def _llm_type(self) -> str:
        return "slow"

    def _generate(self, *given: Any, **more: Any) -> ChatResult:
        time.sleep(0.3)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("late"))])

    async def _agenerate(self, *given: Any, **more: Any) -> ChatResult:
        await asyncio.sleep(10)
        raise AssertionError

    def _stream(self, *given: Any, **more: Any) -> Iterator[ChatGenerationChunk]:
        for _ in range(40):
            time.sleep(0.02)
            yield ChatGenerationChunk(message=AIMessageChunk(content="word "))

    async def _astream(self, *given: Any, **more: Any) -> AsyncIterator[ChatGenerationChunk]:
        for _ in range(400):
            await asyncio.sleep(0.02)
            yield ChatGenerationChunk(message=AIMessageChunk(content="word "))


def ended(got: Collector, way: str, why: str, **settings: Any) -> str:
    """How the run of a model that was given up has ended."""
    timeout = settings.pop("timeout", None)

    def ask(graph: Any) -> None:
        WAYS[way](graph)
        for _ in range(100):  # a thread that is given up ends at its next token
            if way != "stream" or any(why in str(raw) for raw in got.raw):
                break
            time.sleep(0.02)

    traced(got, ask, Expert("bad", Slow(), cost=1.0, timeout=timeout), **settings)
    for _ in range(100):
        run = failed_model(got)
        if run.get("error"):
            break
        time.sleep(0.02)
    return str(run["error"])


@pytest.mark.parametrize("way", ["ainvoke", "stream", "astream"])
def test_a_call_that_takes_too_long_is_traced_as_such(got: Collector, way: str) -> None:
    error = ended(got, way, "timeout: no answer", timeout=0.1)
    kind = "StreamClosedError" if way == "stream" else "TimeLimitError"
    assert error.startswith(f"{kind}('timeout: no answer within 0.1 s')")


def test_why_a_call_was_given_up_is_told_before_that_its_stream_is_closed() -> None:
    stop: Any = threading.Event()
    stop.set()
    token = STOPS.set((stop,))
    task: Any = {"decision": {"step": 0}}
    listener = Listener(task, Expert("bad", Slow(), cost=1.0), {})
    STOPS.reset(token)
    listener.close("timeout: no answer")
    with pytest.raises(StreamClosedError, match="timeout: no answer"):
        listener.on_llm_new_token("word")


@pytest.mark.parametrize("way", ["ainvoke", "stream", "astream"])
def test_a_call_that_was_overtaken_is_traced_as_such(got: Collector, way: str) -> None:
    error = ended(got, way, "overtaken", hedge=0.1)
    kind = "StreamClosedError" if way == "stream" else "OvertakenError"
    assert error.startswith(f"{kind}('overtaken: the other expert had answered')")


def test_a_call_that_its_caller_cancels_ends_in_traces(got: Collector) -> None:
    async def leave() -> None:
        chat = ProviderChat(chat=Slow())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(chat.ainvoke("q"), 0.05)

    client = Client(api_url=got.url, api_key="not-a-key")
    with tracing_context(enabled=True, client=client):
        asyncio.run(leave())
    client.flush()
    client.cleanup()
    (run,) = got.runs.values()
    assert json.dumps(run["error"]).startswith('"CancelledError(')


def test_the_environment_is_read_once_for_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a call may have thousands of texts, and this is in the way of every call."""
    reads: list[int] = []
    held = secrets.held_secrets

    def counting() -> list[str]:
        reads.append(1)
        return held()

    monkeypatch.setenv("SOME_API_KEY", "hunter2hunter2")
    monkeypatch.setattr(secrets, "held_secrets", counting)
    monkeypatch.setattr(tracing, "held_secrets", counting)
    told = {"tools": [{"description": f"tool {i} of hunter2hunter2"} for i in range(50)]}
    masked = {"tools": [{"description": f"tool {i} of ***"} for i in range(50)]}
    assert secrets.shown(told) == masked
    assert tracing.without_secrets(told) == masked
    assert len(reads) == 2
