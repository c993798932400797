"""A provider's chat model, with the care that local models have.

    messages ──sendable──> the provider's model ──AnswerReader──> answer without its thought

What differs between whole answers and streams is evened out: streams report the tokens used too, a stream
that breaks off is a failure and not a short answer, thoughts are put aside, and an answer ends at a stop text
whether its server knows of it or not. In traces the model keeps its own name, and shows none of its keys:
errors are masked before LangChain's run of the model ends with them. Knows nothing of experts.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage, subtract_usage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from pydantic import Field

from der_graph.errors import ExpertError
from der_graph.nodes.providers.bodies import awatched, watch_replies, watched, watching
from der_graph.nodes.providers.client_errors import mark_begun
from der_graph.nodes.providers.exits import is_asked_for, no_exit
from der_graph.nodes.providers.finish import BROKEN_OFF, finish_reason_of, is_broken_off
from der_graph.nodes.providers.lenient import THINKS, lenient
from der_graph.nodes.providers.messages import sendable
from der_graph.nodes.providers.replies import readable_reply
from der_graph.nodes.providers.secrets import quiet, secrets_of, shown
from der_graph.nodes.providers.thoughts import THOUGHT_MARKS, AnswerReader, Habit, ThoughtMarks
from der_graph.nodes.providers.tool_calls import CallPieces, identified

# Classes whose streams always say why they ended.
_SAY_WHY = frozenset(
    "BaseChatOpenAI ChatAnthropic ChatMistralAI ChatGroq ChatOllama ChatFireworks ChatBedrockConverse "
    "ChatGoogleGenerativeAI ChatCohere".split()
)

_ENDED = "the stream ended without saying why: it broke off, and the answer is not whole"


BEGUN: ContextVar[Event | None] = ContextVar("BEGUN", default=None)
"""Is set when a model that is called in this context begins to answer, were it only by a thought."""


def says_something(message: BaseMessage) -> bool:
    """Is a piece of an answer one that is charged: of its text, of a thought, or of a call of a tool?"""
    calls = getattr(message, "tool_call_chunks", None)
    return bool(message.content or calls or any(message.additional_kwargs.values()))


def is_a(model: Any, *names: str) -> bool:
    """Is a model of a class of one of these names? Asked by name, as its package may not be installed."""
    return not {base.__name__ for base in type(model).__mro__}.isdisjoint(names)


class ProviderChat(BaseChatModel):
    """Another chat model, read with care; see this module.

    Examples:
        ```python
        ProviderChat(chat=ChatOpenAI(model="deepseek-r1", base_url="http://localhost:8000/v1"))
        ```
    """

    chat: BaseChatModel
    """The model."""
    marks: tuple[ThoughtMarks, ...] = Field(default=THOUGHT_MARKS)
    """What opens and closes a thought in its text; empty if nothing does."""
    habit: Habit = Field(default_factory=Habit, exclude=True, repr=False)
    """How it has been seen to think; shared by all that read the same model."""

    def __init__(self, **given: Any) -> None:
        """Take over what LangChain asks a chat model for."""
        chat = given["chat"]
        for name in (
            "cache rate_limiter disable_streaming output_version profile callbacks tags metadata verbose"
        ).split():
            given.setdefault(name, getattr(chat, name, None))
        super().__init__(**given)
        watch_replies(chat)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ProviderChat:
        """A copy of the settings over the same model, whose client cannot be copied."""
        return self.model_copy()

    # What the model is called, and told to tracers and caches ----------------------------------------------

    @property
    def _llm_type(self) -> str:
        return self.chat._llm_type

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return self.chat._identifying_params

    @functools.cached_property
    def _serialized(self) -> dict[str, Any]:
        # What traces are told of the model: LangChain hides its key, but no headers, and not the password of
        # its address.
        told: dict[str, Any] = shown(self.chat._serialized, self._secrets)
        return told

    @functools.cached_property
    def _secrets(self) -> tuple[str, ...]:
        return secrets_of(self.chat)

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """The model's own name."""
        return self.chat.get_name(suffix, name=name)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.chat._get_ls_params(stop, **kwargs)

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        told: dict[str, Any] = shown(
            self.chat._get_invocation_params(stop, **kwargs), self._secrets
        )
        return told  # for traces alone

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # Not the model's own entries in a cache of LangChain's: those hold its thoughts.
        return f"{self.chat._get_llm_string(stop, **kwargs)}---der:{self.marks}"

    def get_num_tokens(self, text: str) -> int:
        """As the model counts."""
        return self.chat.get_num_tokens(text)

    # Answers -----------------------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        sent = sendable(messages)
        with quiet(self._secrets), readable_reply(), watching():
            result = lenient(self.chat)._generate(sent, stop, run_manager, **kwargs)
            return self._read(result, stop)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        sent = sendable(messages)
        # LangChain makes a task of this call.
        with quiet(self._secrets), no_exit(), readable_reply(), watching():
            try:
                result = await lenient(self.chat)._agenerate(sent, stop, run_manager, **kwargs)
            except RuntimeError as error:
                if "Event loop is closed" not in str(error):
                    raise
                # A connection that another loop had opened: clients are shared, and drop it once it fails.
                result = await lenient(self.chat)._agenerate(sent, stop, run_manager, **kwargs)
            return self._read(result, stop)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        try:
            return await super()._agenerate_with_cache(messages, stop, run_manager, **kwargs)
        except asyncio.CancelledError as error:
            # LangChain ends no run of a call that is given up. Whoever gave it up may have said why.
            if run_manager is not None and is_asked_for():
                why = error.args[0] if error.args else None
                await run_manager.on_llm_error(
                    why if isinstance(why, Exception) else error,
                    response=LLMResult(generations=[]),
                )
            raise

    def _read(self, result: ChatResult, stop: Sequence[str] | None) -> ChatResult:
        if not result.generations:
            raise LookupError("it has no choices")
        generations = []
        for each in result.generations:
            message = each.message
            reader = AnswerReader(self.marks, stop or (), exact=True)
            content = _filtered(message.content, reader, last=True)
            self.habit.learn(reader)
            changes: dict[str, Any] = {"content": content}
            if isinstance(message, AIMessage):
                changes |= identified(message)
            told = each.generation_info
            if reader.stopped:
                changes["response_metadata"] = _at_stop(message.response_metadata)
                told = _at_stop(told or {})
            if reader.thought and isinstance(message, AIMessage):
                # What a mark opens only later was part of the answer so far.
                changes["content"] = content if isinstance(content, list) else reader.answer
                changes["additional_kwargs"] = {
                    **message.additional_kwargs,
                    "reasoning_content": reader.thought,
                }
            generations.append(
                ChatGeneration(
                    message=message.model_copy(update=changes),
                    generation_info=told,
                )
            )
        return ChatResult(generations=generations, llm_output=result.llm_output)

    # Streams -----------------------------------------------------------------------------------------------

    def _should_stream(self, *, async_api: bool, **kwargs: Any) -> bool:
        if "streaming" in self.chat.model_fields_set:
            kwargs.setdefault("stream", self.chat.streaming)  # type: ignore[attr-defined]
        return self._can_stream(async_api) and super()._should_stream(async_api=async_api, **kwargs)

    def _should_use_protocol_streaming(self, *, async_api: bool, **kwargs: Any) -> bool:
        return self._can_stream(async_api) and super()._should_use_protocol_streaming(
            async_api=async_api, **kwargs
        )

    def _can_stream(self, async_api: bool) -> bool:
        kind = type(self.chat)
        alone = async_api and kind._astream is not BaseChatModel._astream
        return alone or kind._stream is not BaseChatModel._stream

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        pieces = self._pieces(stop)
        with quiet(self._secrets), pieces.told(), readable_reply():
            chunks = lenient(self.chat)._stream(sendable(messages), stop, **self._usage(kwargs))
            for chunk in watched(chunks):
                read = pieces.read(chunk)
                if run_manager is not None:
                    run_manager.on_llm_new_token(str(read.text), chunk=read)
                yield read
        with pieces.told():
            yield from pieces.close(self.chat)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        pieces, sent = self._pieces(stop), sendable(messages)
        for attempt in (1, 2):
            try:
                with quiet(self._secrets), no_exit(), pieces.told(), readable_reply():
                    chunks = lenient(self.chat)._astream(sent, stop, **self._usage(kwargs))
                    async for chunk in awatched(chunks):
                        read = pieces.read(chunk)
                        if run_manager is not None:
                            await run_manager.on_llm_new_token(str(read.text), chunk=read)
                        yield read
                break
            except RuntimeError as error:  # as in `_agenerate`
                again = attempt == 1 and not pieces.begun and "Event loop is closed" in str(error)
                if not again:
                    raise
        with pieces.told():
            for rest in pieces.close(self.chat):
                yield rest

    def _pieces(self, stop: list[str] | None) -> _Pieces:
        openai = is_a(self.chat, "BaseChatOpenAI")
        return _Pieces(self.marks, stop, tells_totals=openai, habit=self.habit)

    def _usage(self, given: dict[str, Any]) -> dict[str, Any]:
        """Ask servers of OpenAI's protocol for the tokens used, unless somebody has said what to do."""
        chat: Any = self.chat
        said = (
            "stream_options" in {**given, **(getattr(chat, "model_kwargs", None) or {})}
            or given.get("stream_usage") is not None
            or getattr(chat, "stream_usage", None) is not None
        )
        return (
            given if said or not is_a(chat, "BaseChatOpenAI") else {**given, "stream_usage": True}
        )


class _Pieces:
    """Reads the chunks of one stream."""

    def __init__(
        self,
        marks: Sequence[ThoughtMarks],
        stop: Sequence[str] | None,
        *,
        tells_totals: bool,
        habit: Habit,
    ) -> None:
        self._reader = AnswerReader(marks, stop or (), exact=True, opened=habit.opened)
        self._habit = habit
        self._tells_totals = tells_totals
        self._used: UsageMetadata | None = None
        self._calls = CallPieces()
        self._closed = self._finished = self._totalled = self._broken = self.begun = False

    @contextmanager
    def told(self) -> Iterator[None]:
        """Note of what is raised whether the model had said, thought or called something."""
        try:
            yield
        except Exception as error:
            if self.begun:
                mark_begun(error)
            raise

    def read(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        """A chunk without what belongs to a thought, or may still turn out to."""
        message = chunk.message
        said = says_something(message)
        if said and not self.begun:
            self.begun = True
            if (event := BEGUN.get()) is not None:
                event.set()
        message.additional_kwargs.pop(THINKS, None)
        info = {**message.response_metadata, **(chunk.generation_info or {})}
        end = AIMessage("", response_metadata=info)
        reason = finish_reason_of(end)
        self._broken = self._broken or is_broken_off(end)
        self._finished = self._finished or reason is not None
        last = reason is not None or getattr(message, "chunk_position", None) == "last"
        content = _filtered(message.content, self._reader, last=last and not self._closed)
        changes: dict[str, Any] = {"content": content}
        # Servers of OpenAI's protocol tell totals when all is said, also those that give no reason.
        self._totalled = self._tells_totals and not said and bool(_usage_of(message))
        told = chunk.generation_info
        if self._reader.stopped and reason is not None:
            changes["response_metadata"] = _at_stop(message.response_metadata)
            told = _at_stop(told or {})
        if self._tells_totals and (used := _usage_of(message)):
            changes["usage_metadata"] = self._more_used(used)
        if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
            self._calls.add(message.tool_call_chunks)
            changes |= {"tool_call_chunks": [], "tool_calls": [], "invalid_tool_calls": []}
        if last and not self._closed:
            self._closed = True
            if self._reader.thought:
                changes["additional_kwargs"] = {
                    **message.additional_kwargs,
                    "reasoning_content": self._reader.thought,
                }
        return ChatGenerationChunk(message=message.model_copy(update=changes), generation_info=told)

    def _more_used(self, total: UsageMetadata) -> UsageMetadata:
        """What a chunk adds to the tokens used: chunks are added up, and some servers tell totals."""
        more = subtract_usage(total, self._used)
        self._used = add_usage(self._used, more)
        return more

    def close(self, chat: BaseChatModel) -> Iterator[ChatGenerationChunk]:
        """What was held back to the end.

        Raises:
            ExpertError: If the stream broke off.
        """
        ended = self._finished or self._totalled or not is_a(chat, *_SAY_WHY)
        if self._broken or not ended:
            error = ExpertError(BROKEN_OFF if self._broken else _ENDED)
            error.failure_kind = "unavailable"
            raise error
        rest = "" if self._closed else self._reader.close()
        self._habit.learn(self._reader)
        calls = self._calls.close()
        if rest or calls:
            message = AIMessageChunk(content=rest, tool_call_chunks=calls)
            yield ChatGenerationChunk(message=message)


def _usage_of(message: BaseMessage) -> UsageMetadata | None:
    return message.usage_metadata if isinstance(message, AIMessageChunk) else None


def _at_stop(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a provider says of an answer that ends at a stop text, whatever it says of its end."""
    said = finish_reason_of(AIMessage("", response_metadata=dict(info)))
    return {**info, "finish_reason": "stop"} if said is not None else dict(info)


def _filtered(content: Any, reader: AnswerReader, *, last: bool) -> Any:
    """Content, a text or blocks, of which the reader has kept what is no answer."""
    if isinstance(content, str):
        shown = reader.feed(content)
        return shown + reader.close() if last else shown
    blocks: list[Any] = []
    for block in content:
        text = block if isinstance(block, str) else block.get("text")
        if not isinstance(text, str) or (isinstance(block, dict) and block.get("type") != "text"):
            blocks.append(block)
            continue
        shown = reader.feed(text)
        blocks.append(shown if isinstance(block, str) else {**block, "text": shown})
    if last and (rest := reader.close()):
        blocks.append({"type": "text", "text": rest})
    return blocks
