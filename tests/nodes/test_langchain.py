from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
)
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from der_graph.errors import ExpertError, MissingDependencyError, PoolError
from der_graph.nodes.expert.fingerprint import fingerprint_of
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.langchain import (
    as_chat_runnable,
    as_expert,
    to_message,
)
from der_graph.nodes.providers.secrets import public, secrets_in

QUESTION: list[BaseMessage] = [SystemMessage("be brief"), HumanMessage("What is 2 + 3?")]
SECRET = "sk-verysecret-123"


def both_ways(model: Any) -> list[str]:
    """The answer by invoke, ainvoke, batch and from inside a running loop."""
    runnable = as_chat_runnable(model)

    async def later() -> list[Any]:
        return [
            runnable.invoke(QUESTION),
            await runnable.ainvoke(QUESTION),
            *(await runnable.abatch([QUESTION])),
        ]

    answers = [
        runnable.invoke(QUESTION),
        *runnable.batch([QUESTION, QUESTION]),
        *asyncio.run(later()),
    ]
    assert all(isinstance(answer, AIMessage) for answer in answers)
    return [str(answer.content) for answer in answers]


class Upper:
    """A callable object."""

    def __call__(self, text: str) -> str:
        return text.upper()


class Echo(LLM):
    """A text model."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _call(self, prompt: str, *args: Any, **given: Any) -> str:
        return "five"


def of_text(text: str) -> str:
    return f"{text} Five."


def of_messages(messages: list[BaseMessage]) -> AIMessage:
    return AIMessage(f"{len(messages)} messages")


def of_conversation(conversation: Any) -> str:
    return f"{len(conversation)} messages"


def say_in_chat(messages: list[BaseMessage]) -> BaseMessage:
    return ChatMessage(content="from a chat message", role="x")


async def of_text_later(text: str) -> str:
    await asyncio.sleep(0)
    return f"{text} Five."


async def of_messages_later(history: Sequence[BaseMessage]) -> dict[str, str]:
    return {"content": f"{len(history)} messages"}


class Callable:
    """An object that is called as a coroutine."""

    async def __call__(self, text: str) -> str:
        return "Five."


def in_pieces(text: str) -> Iterator[str]:
    yield "Fi"
    yield "ve."


async def in_pieces_later(text: str) -> AsyncIterator[AIMessageChunk]:
    yield AIMessageChunk(content="Fi")
    yield AIMessageChunk(content="ve.")


def with_config(text: str, config: RunnableConfig) -> str:
    return "Five." if "callbacks" in config else "no configuration"


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (Callable(), "Five."),
        (partial(Callable()), "Five."),
        (lambda text: of_text_later(text), "What is 2 + 3? Five."),
        (in_pieces, "Five."),
        (in_pieces_later, "Five."),
        (lambda text: in_pieces_later(text), "Five."),
        (with_config, "Five."),
        (lambda text: 5, "5"),
        (lambda text: [HumanMessage("2 + 3?"), AIMessage("Five.")], "Five."),
        (lambda text: {"messages": [("user", "2 + 3?"), ("ai", "Five.")]}, "Five."),
        (of_text, "What is 2 + 3? Five."),
        (of_messages, "2 messages"),
        (of_conversation, "2 messages"),
        (of_text_later, "What is 2 + 3? Five."),
        (of_messages_later, "2 messages"),
        (Upper(), "WHAT IS 2 + 3?"),
        (lambda text: text[-1], "?"),
        (RunnableLambda(lambda messages: {"content": "from a dict"}), "from a dict"),
        (
            RunnableLambda(say_in_chat),
            "from a chat message",
        ),
        (Echo(), "five"),
        (FakeListChatModel(responses=["five"]), "five"),
        (FakeListChatModel(responses=["five"]).with_retry(), "five"),
    ],
)
def test_anything_that_answers_can_be_an_expert(model: Any, answer: str) -> None:
    assert set(both_ways(model)) == {answer}


def test_chat_models_are_taken_as_they_are() -> None:
    model = FakeListChatModel(responses=["x"])
    assert as_chat_runnable(model) is model


def test_compiled_graphs_get_and_give_messages() -> None:
    graph: Any = StateGraph(MessagesState)
    graph.add_node("say", lambda state: {"messages": [AIMessage(f"{len(state['messages'])} came")]})
    graph.add_edge(START, "say")
    assert set(both_ways(graph.compile())) == {"2 came"}


def test_outputs_without_text_are_refused() -> None:
    def ask() -> str:
        return ""

    outputs: list[Any] = [None, True, b"x", {"text": "x"}, {"messages": []}, []]
    for output in outputs:
        with pytest.raises(ExpertError, match="must give a text"):
            to_message(output)
    with pytest.raises(PoolError, match="cannot be made of int"):
        as_chat_runnable(7)
    with pytest.raises(PoolError, match=r"cannot be made of ask\(\)"):
        as_chat_runnable(ask)
    with pytest.raises(PoolError, match="settings are for model strings"):
        as_chat_runnable(of_text, temperature=0)


def test_as_expert_fills_the_card() -> None:
    expert = as_expert(
        of_text,
        name="f",
        cost=2,
        description="d",
        ktp="none",
        system="s",
        token_prices=(1, 2),
    )
    assert (expert.name, expert.cost, expert.system) == ("f", 2, "s")
    assert expert.ktp is not None
    assert expert.ktp.name == "none"
    assert expert.fingerprint
    assert expert.ask([QUESTION])[0]["text"] == "What is 2 + 3? Five."


def test_an_async_function_that_is_called_synchronously_sees_the_callers_context() -> None:
    seen: ContextVar[str] = ContextVar("seen", default="nothing")

    async def answer(question: str) -> str:
        return seen.get()

    seen.set("the request")
    assert as_chat_runnable(answer).invoke(QUESTION).content == "the request"


def test_what_can_only_be_awaited_is_called_synchronously_too() -> None:
    @RunnableLambda
    async def later(messages: Any) -> str:
        return "5"

    for model in (later, RunnableLambda(lambda messages: messages) | later):
        assert both_ways(model) == ["5"] * 6


def test_a_call_without_a_count_of_tokens_is_charged_the_most() -> None:
    expert = as_expert(lambda question: "Five.", name="a", cost=0.5, token_prices=(1, 2))
    assert expert.ask([QUESTION])[0]["cost"] == 0.5


def test_log_probabilities_in_another_form_are_left_out() -> None:
    message = AIMessage("Five.", response_metadata={"logprobs": [-0.1, -0.2]})
    expert = as_expert(lambda question: message, name="a", cost=1)
    answer = expert.ask([QUESTION])[0]
    assert (answer["text"], answer["logprob"], answer["error"]) == ("Five.", None, None)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for the package `langchain`; remembers the settings that it got."""
    seen: dict[str, Any] = {}

    def init_chat_model(model: str, **settings: Any) -> Any:
        seen.update(settings, model=model)
        if settings.get("refuse"):
            raise ValueError(f"bad key {settings['api_key']}")

        def answer(messages: Any) -> AIMessage:
            raise RuntimeError(f"401: wrong key {settings.get('api_key')}")

        return (
            RunnableLambda(answer)
            if settings.get("fail")
            else FakeListChatModel(responses=["hello"])
        )

    module = types.ModuleType("langchain.chat_models")
    module.init_chat_model = init_chat_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "langchain", types.ModuleType("langchain"))
    monkeypatch.setitem(sys.modules, "langchain.chat_models", module)
    return seen


def test_model_strings_go_to_init_chat_model(provider: dict[str, Any]) -> None:
    expert = as_expert(
        "openai:gpt", name="gpt", cost=1, settings={"temperature": 0, "api_key": SECRET}
    )
    assert provider == {"model": "openai:gpt", "temperature": 0, "api_key": SECRET}
    assert expert.ask([QUESTION])[0]["text"] == "hello"
    assert SECRET not in repr(expert)
    assert SECRET not in expert.fingerprint


def test_secrets_are_masked_in_errors(provider: dict[str, Any]) -> None:
    with pytest.raises(PoolError, match=r"bad key \*\*\*"):
        as_expert("openai:gpt", name="gpt", cost=1, settings={"refuse": True, "api_key": SECRET})
    model = as_chat_runnable("openai:gpt", fail=True, api_key=SECRET)

    async def later() -> list[Any]:
        single = (await asyncio.gather(model.ainvoke(QUESTION), return_exceptions=True))[0]
        with pytest.raises(RuntimeError) as caught:
            [piece async for piece in model.astream(QUESTION)]
        batch = await model.abatch([QUESTION], return_exceptions=True)
        return [single, caught.value, *batch]

    errors: list[Any] = [
        *model.batch([QUESTION, QUESTION], return_exceptions=True),
        *asyncio.run(later()),
    ]
    with pytest.raises(RuntimeError) as caught:
        model.invoke(QUESTION)
    with pytest.raises(RuntimeError) as streamed:
        list(model.stream(QUESTION))
    for error in [*errors, caught.value, streamed.value]:
        assert SECRET not in str(error)
        assert "401: wrong key ***" in str(error)
    assert SECRET not in repr(model)


def test_what_counts_as_a_secret() -> None:
    settings = {
        "temperature": 0,
        "max_tokens": 100,
        "api_key": SECRET,
        "default_headers": {"x": "another-secret"},
        "nested": [{"password": "third-secret"}],
    }
    assert public(settings) == {"temperature": 0, "max_tokens": 100, "nested": [{}]}
    assert secrets_in(settings) == [SECRET, "another-secret", "third-secret"]
    changed = {**settings, "api_key": "sk-other-999"}
    assert fingerprint_of("m", settings) == fingerprint_of("m", changed)
    assert fingerprint_of("m", settings) != fingerprint_of("m", {**settings, "temperature": 1})


def test_without_langchain_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    monkeypatch.setitem(sys.modules, "langchain", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'der-graph\[langchain\]'"):
        as_chat_runnable("openai:gpt")


def test_pipelines_of_langchain_huggingface_are_unwrapped(tmp_path: Path) -> None:
    pytest.importorskip("langchain_huggingface")
    import transformers
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    from tiny_models import save_tiny

    folder = save_tiny(tmp_path)
    pipe = transformers.pipeline("text-generation", model=str(folder))
    expected = HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 6}).invoke(QUESTION)
    llm = HuggingFacePipeline(
        pipeline=pipe, pipeline_kwargs={"max_new_tokens": 6, "return_full_text": True}
    )
    chat = ChatHuggingFace(llm=llm, tokenizer=pipe.tokenizer)
    for model in (llm, chat):
        assert set(both_ways(model)) == {expected.content}
    refused = HuggingFacePipeline(pipeline=pipe, pipeline_kwargs={"num_beams": 2})
    with pytest.raises(PoolError, match="num_beams"):
        as_chat_runnable(refused)
