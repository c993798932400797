"""Any LangChain model, graph or plain function as an expert.

    chat model | "provider:model" | pipeline of langchain-huggingface | Runnable | function
        ──as_chat_runnable──> takes messages, gives an AIMessage ──as_expert──> Expert

Chat models are taken as they are. Pipelines of langchain-huggingface are unwrapped into `HuggingFaceChat`;
`der_graph.nodes.huggingface.chat` says why. Settings may hold secrets; `nodes/providers/secrets.py` keeps
them out of errors and fingerprints.
"""

from __future__ import annotations

import inspect
import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, Literal, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    HumanMessage,
    convert_to_messages,
)
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableSequence,
)
from langgraph.pregel import Pregel

from der_graph.errors import DERError, ExpertError, PoolError, require
from der_graph.nodes.expert import MAX_ANSWER_CHARS, ChatRunnable, Expert
from der_graph.nodes.expert.fingerprint import fingerprint_of
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.chat import wrapped_pipeline
from der_graph.nodes.ktp import KTPTemplate, ktp_template
from der_graph.nodes.providers import THOUGHT_MARKS, ThoughtMarks
from der_graph.nodes.providers.exits import no_exit
from der_graph.nodes.providers.secrets import mask, quiet, secrets_in
from der_graph.nodes.reliability import DEFAULT_TIMEOUT, Bounded, bare
from der_graph.nodes.reliability.calls import is_only_awaited
from der_graph.nodes.reliability.charge import TokenPrices
from der_graph.nodes.reliability.redaction import Guarded
from der_graph.nodes.reliability.threads import waited_for
from der_graph.nodes.tools import rebound


def as_expert(
    model: Any,
    *,
    name: str,
    cost: float,
    description: str = "",
    ktp: str | KTPTemplate | None = None,
    system: str | None = None,
    token_prices: TokenPrices | tuple[float, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    fingerprint: str | None = None,
    max_concurrency: int | None = None,
    seconds: float | None = None,
    max_answer_chars: int = MAX_ANSWER_CHARS,
    second_price: float = 0.0,
    timeout: float | None = None,
    skill: float | Mapping[str, float] | None = None,
    context_length: int | None = None,
    inputs: Sequence[str] = (),
    reasoning: ThoughtMarks | Literal[False] | None = None,
) -> Expert:
    """Make an expert of anything that can answer.

    Args:
        model: A chat model; a string for `init_chat_model` such as `"openai:gpt-4o-mini"`; a pipeline of
            langchain-huggingface; any Runnable or compiled graph; or a function, synchronous or not, from
            the question's text, or from the list of messages, to a text, number or message, or to a
            generator of such; it gets the call's configuration if it has a further parameter `config`.
        name: Unique in the pool, without `|`, `:` or white space.
        cost: Price of one call, in the pool's unit; with `token_prices`, the most that one call may cost.
            Chat models then get a `max_tokens` that keeps it; others are not asked under a budget.
        description: What it is good at.
        ktp: How it receives earlier answers: a template, its name, or None for the graph's.
        system: A system prompt of its own.
        token_prices: Prices of tokens, in the pool's unit; a pair is the prices per million input and output
            tokens.
        settings: Passed on to `init_chat_model`; for strings only.
        fingerprint: Identifies what the answers depend on; made from model and settings, or from a function's
            code, where left out. Where that cannot be told, answers are not kept between runs.
        max_concurrency: Most calls in flight, over everything that asks this expert; for remote engines,
            which training then asks at the same time as others. None for no bound of ours.
        seconds: Usual time of one call, for deadlines; None where it is not known.
        max_answer_chars: Longest answer, in characters; what goes on is cut off there.
        second_price: Price of a second of a call, in the pool's unit, added to what else it costs.
        timeout: Longest time of one call in seconds; infinity for no limit. None for 120, and for no limit
            of ours on models that run in this process.
        skill: How often it is right, from 0 to 1, or that for each kind of question; for the planner.
        context_length: Most tokens that it reads; None for what the model or its profile says.
        inputs: What it reads beside text: `image`, `audio`, `video`, `pdf`.
        reasoning: What opens and closes a thought in its text, such as `("<think>", "</think>")`; an empty
            first mark for models whose server opens the thought in the prompt; False if it never thinks
            aloud; None for the marks that are known.

    Clients that would ask again by themselves are told not to: another expert answers sooner. One that was
    made with `max_retries=...` keeps it.

    Raises:
        PoolError: If it cannot be an expert.
    """
    chat = without_retries(as_chat_runnable(model, **(settings or {})), timeout)
    return Expert(
        name=name,
        model=bounded(chat, max_concurrency),
        cost=cost,
        description=description,
        ktp=None if ktp is None else ktp_template(ktp),
        system=system,
        token_prices=token_prices,
        seconds=seconds,
        max_answer_chars=max_answer_chars,
        second_price=second_price,
        timeout=timeout,
        skill=skill,
        fingerprint=fingerprint_of(model, settings or {}) if fingerprint is None else fingerprint,
        context_length=context_length,
        inputs=frozenset(inputs),
        thought_marks=marks_of(reasoning),
    )


def marks_of(reasoning: ThoughtMarks | Literal[False] | None) -> tuple[ThoughtMarks, ...]:
    """The marks of thoughts that are looked for."""
    if reasoning is None:
        return THOUGHT_MARKS
    return (reasoning,) if reasoning else ()


def as_chat_runnable(model: Any, **settings: Any) -> ChatRunnable:
    """Make something that takes messages and gives an `AIMessage`; see `as_expert` for what is accepted.

    Raises:
        PoolError: If the object, or a setting, cannot be used.
        MissingDependencyError: If `init_chat_model` is needed and `langchain` is not installed.
    """
    if isinstance(model, str):
        return _init_chat_model(model, settings)
    if settings:
        raise PoolError(
            "settings are for model strings such as 'openai:gpt-4o-mini'; configure objects directly"
        )
    wrapped = wrapped_pipeline(model)
    if wrapped is not None:
        try:
            return HuggingFaceChat(**wrapped)
        except DERError as error:
            raise PoolError(f"pipeline of langchain-huggingface: {error}") from error
    if isinstance(model, type) and issubclass(model, Runnable):
        raise PoolError(
            f"an expert cannot be made of the class {model.__name__}; give a model: {model.__name__}(...)"
        )
    if isinstance(model, Runnable) and isinstance(bare(model), BaseChatModel):
        return model  # as it is, also with retries or settings bound to it
    if isinstance(model, Runnable):
        chat = _with_messages | model if isinstance(model, Pregel) else model
        return _callable(chat) | _TO_MESSAGE
    if callable(model):
        return _from_function(model)
    raise PoolError(
        f"an expert cannot be made of {type(model).__name__}; give a chat model, a model string such as "
        "'openai:gpt-4o-mini', a Runnable or a function"
    )


_BUILT = re.compile(r"(root_)?(async_)?client")  # what a model makes of its settings
_TIMEOUTS = ("request_timeout", "default_request_timeout", "timeout")  # what clients call theirs


def without_retries(model: ChatRunnable, timeout: float | None = None) -> ChatRunnable:
    """The same chat model over a client that neither asks again nor waits for ever, if it was not told to.

    Args:
        model: Any model; one without such settings, or with settings of its own, is given back.
        timeout: Seconds for one call; as in `as_expert`.
    """
    seconds = DEFAULT_TIMEOUT if timeout is None else timeout

    def change(chat: BaseChatModel) -> BaseChatModel:
        fields, given = type(chat).model_fields, chat.model_fields_set
        changes: dict[str, Any] = {}
        if "max_retries" in fields and "max_retries" not in given:
            changes["max_retries"] = 0
        name = next((each for each in _TIMEOUTS if each in fields), None)
        if changes and name is not None and name not in given and seconds < float("inf"):
            changes[fields[name].alias or name] = seconds
        if not changes:
            return chat
        own = {
            fields[each].alias or each: getattr(chat, each)
            for each in given
            if each in fields and not _BUILT.fullmatch(each)
        }
        try:
            return type(chat)(**{**own, **changes})
        except Exception:  # a class with a way of its own of being made
            return chat

    try:
        return rebound(model, change)
    except NotImplementedError:
        return model  # a function or a graph


def bounded(model: ChatRunnable, max_concurrency: int | None) -> ChatRunnable:
    """Let at most so many calls of a model be in flight; None leaves it as it is.

    Raises:
        PoolError: If the bound is below 1.
    """
    if max_concurrency is None:
        return model
    if max_concurrency < 1:
        raise PoolError(f"max_concurrency is {max_concurrency}; at least one call must be allowed")
    return Bounded(bound=model, max_concurrency=max_concurrency)


def to_message(output: Any) -> AIMessage:
    """Read an answer from what a Runnable or a function gave; of several messages the last is the answer.

    Raises:
        ExpertError: If there is no text in it.
    """
    if isinstance(output, AIMessage):
        return output
    if isinstance(output, BaseMessage):
        return AIMessage(content=output.content, response_metadata=output.response_metadata)
    if isinstance(output, str):
        return AIMessage(content=output)
    if isinstance(output, (int, float)) and not isinstance(output, bool):
        return AIMessage(content=str(output))
    if isinstance(output, (list, tuple)) and output and isinstance(output[-1], BaseMessage):
        return to_message(output[-1])
    if isinstance(output, Mapping):
        if isinstance(output.get("content"), (str, list)):
            return AIMessage(content=output["content"])
        if output.get("messages"):
            last = output["messages"][-1]
            is_pair = isinstance(last, tuple)  # ("ai", "It is 42.")
            return to_message(convert_to_messages([last])[0] if is_pair else last)
    named = (
        f" with {', '.join(map(repr, output))}" if isinstance(output, Mapping) and output else ""
    )
    raise NoTextError(
        f"the expert gave {type(output).__name__}{named[:200]}; "
        "it must give a text, a number, a message, or a dict with 'content' or 'messages'"
    )


class NoTextError(ExpertError):
    """An expert gave something that holds no text."""

    failure_kind = "error"  # the expert's doing, whatever the question


def _init_chat_model(model: str, settings: Mapping[str, Any]) -> ChatRunnable:
    chat_models = require(
        "langchain.chat_models", extra="langchain", why=f"the model string '{model}'"
    )
    secrets = secrets_in(settings)
    try:
        made: ChatRunnable = chat_models.init_chat_model(model, **settings)
    except Exception as error:
        raise PoolError(f"model '{model}': {mask(_why_not(error, model), secrets)}") from None
    return Guarded(bound=made, secrets=tuple(secrets)) if secrets else made


def _why_not(error: Exception, model: str) -> str:
    """What `init_chat_model` says of a model that it cannot make, on one line."""
    told = str(error).strip()
    if isinstance(error, OSError) and error.filename is None:
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):  # of which Python tells no path
            if os.environ.get(name):
                return f"the certificates of {name}, {os.environ[name]}, cannot be read: {told}"
    if not told.startswith("Unable to infer model provider"):
        return " ".join(told.split())
    provider, colon, _ = model.partition(":")
    if colon:
        return f"LangChain has no provider '{provider}'; give PROVIDER:MODEL, such as openai:gpt-4o-mini"
    return f"its name does not say who provides it; give PROVIDER:MODEL, such as 'openai:{model}'"


def _from_function(function: Callable[..., Any]) -> ChatRunnable:
    name = re.sub(r"\W+", "_", getattr(function, "__name__", type(function).__name__))
    called = _Function(function, _takes_messages(function), _takes_config(function))
    if _is_awaited(function):
        return RunnableLambda(called.wait, called.later, name=name)
    return RunnableLambda(called.now, name=name)


class _Function(NamedTuple):
    """A user's function, asked as a model is. No closures: those cannot be pickled."""

    function: Callable[..., Any]
    takes_messages: bool
    takes_config: bool

    def now(self, messages: Any, config: RunnableConfig) -> AIMessage:
        with quiet(), no_exit():
            output = self._asked(messages, config)
            if inspect.isawaitable(output) or inspect.isasyncgen(
                output
            ):  # `lambda text: model(text)`
                return to_message(waited_for(_settled(output)))
            return to_message(_joined(list(output)) if inspect.isgenerator(output) else output)

    def wait(self, messages: Any, config: RunnableConfig) -> AIMessage:
        return waited_for(self.later(messages, config))

    async def later(self, messages: Any, config: RunnableConfig) -> AIMessage:
        with quiet(), no_exit():
            return to_message(await _settled(self._asked(messages, config)))

    def _asked(self, messages: Any, config: RunnableConfig) -> Any:
        given = messages if self.takes_messages else last_question(messages)
        return self.function(given, **({"config": config} if self.takes_config else {}))


def _is_awaited(function: Callable[..., Any]) -> bool:
    """Is a function, or object that can be called, asynchronous?"""
    while isinstance(function, partial):
        function = function.func
    inner = getattr(function, "__call__", None)  # noqa: B004 - the method is wanted, not a test
    tests = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    return any(test(each) for each in (function, inner) for test in tests)


async def _settled(output: Any) -> Any:
    """What is behind a coroutine or an asynchronous generator."""
    if inspect.isawaitable(output):
        output = await output
    return _joined([each async for each in output]) if inspect.isasyncgen(output) else output


def _joined(pieces: Sequence[Any]) -> Any:
    """What a generator yielded, as one: texts and chunks put together; of anything else the last."""
    if not pieces:
        return None
    if all(isinstance(each, str) for each in pieces):
        return "".join(pieces)
    if all(isinstance(each, BaseMessageChunk) for each in pieces):
        return reduce(operator.add, pieces)
    return pieces[-1]


def _callable(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """A model of which parts can only be awaited, for synchronous callers too."""
    if isinstance(model, RunnableSequence):
        steps = [_callable(step) for step in model.steps]
        same = all(map(operator.is_, steps, model.steps))
        return model if same else RunnableSequence(*steps, name=model.name)
    if not is_only_awaited(model):
        return model
    called = _Awaited(model)
    return RunnableLambda(called.wait, called.later, name=model.get_name())


class _Awaited(NamedTuple):
    """What can only be awaited."""

    model: Runnable[Any, Any]

    def wait(self, given: Any, config: RunnableConfig) -> Any:
        return waited_for(self.later(given, config))

    async def later(self, given: Any, config: RunnableConfig) -> Any:
        return await self.model.ainvoke(given, config)


def _takes_config(function: Callable[..., Any]) -> bool:
    """Does a function want the call's configuration beside the question, by the name `config`?

    Raises:
        PoolError: If it cannot be called with the question.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return False
    told = "config" in list(signature.parameters)[1:]
    try:
        signature.bind(None, **({"config": None} if told else {}))
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise PoolError(
            f"an expert cannot be made of {name}{signature}: it is called with the question's text, or with "
            f"the list of messages, alone ({error})"
        ) from None
    return told


def _takes_messages(function: Callable[..., Any]) -> bool:
    """Does a function want the messages? Told by the annotation of its first argument, or its name."""
    try:
        first = next(iter(inspect.signature(function).parameters.values()))
    except (ValueError, TypeError, StopIteration):
        return False
    annotation = str(first.annotation)
    if first.annotation is str or annotation == "str":
        return False
    if re.search(r"list|sequence|message", annotation, re.IGNORECASE):
        return True
    return first.name in ("messages", "conversation")


def last_question(messages: Sequence[BaseMessage]) -> str:
    """Text of the last human message; empty if there is none."""
    return next((str(m.text) for m in reversed(messages) if isinstance(m, HumanMessage)), "")


def _wrap_messages(messages: Any) -> dict[str, Any]:
    return {"messages": messages}


async def _wrap_messages_later(messages: Any) -> dict[str, Any]:
    return _wrap_messages(messages)


async def _to_message_later(output: Any) -> AIMessage:
    return to_message(output)


# With coroutines, so that they need no thread.
_with_messages: Runnable[Any, Any] = RunnableLambda(
    _wrap_messages, _wrap_messages_later, name="messages"
)
_TO_MESSAGE: Runnable[Any, AIMessage] = RunnableLambda(
    to_message, _to_message_later, name="to_message"
)
