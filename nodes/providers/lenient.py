"""What LangChain's reader of OpenAI's protocol loses, or refuses, of what servers send.

    arguments of a tool that are an object, as Text Generation Inference sends them ──> as text
    arguments that are another JSON than an object ──> a call that cannot be read, in place of an error
    a refusal in a stream ──> kept, as of whole answers
    a piece of a thought in a stream ──> a mark that there was one
    why an answer ended, without a piece of it ──> kept
    JSON that ends at the limit of tokens ──> an answer that was cut off, in place of an error
    an error where a stream, or an answer, should be ──> an error that says what the provider says
    an event without data, such as a sign of life after an `id` ──> passed over, in place of an error

Knows nothing of experts.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import lru_cache
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk

from der_graph.nodes.providers.client_errors import ReplyError

THINKS = "der_thinks"
"""Among `additional_kwargs` of a chunk: a piece of a thought came with it."""

_THOUGHTS = ("reasoning_content", "reasoning")


def lenient(chat: BaseChatModel) -> Any:
    """The same model over the same client, reading such arguments too; of other classes as it is."""
    kind = type(chat)
    if not callable(getattr(kind, "_create_chat_result", None)) or not hasattr(chat, "root_client"):
        return chat
    twin = chat.model_copy()
    object.__setattr__(twin, "__class__", _lenient_class(kind))
    for name, client in (("client", _Client), ("async_client", _AsyncClient)):
        if (own := getattr(chat, name, None)) is not None:
            twin.__dict__[name] = client(own)
    return twin


class _Lenient:
    """Put before LangChain's class."""

    def _create_chat_result(self, response: Any, *given: Any, **more: Any) -> Any:
        if told := _part(response, "error"):
            raise ReplyError(told)
        for choice in _part(response, "choices") or ():
            _write_arguments(_part(choice, "message"), whole=True)
        return super()._create_chat_result(response, *given, **more)  # type: ignore[misc]

    def _convert_chunk_to_generation_chunk(self, chunk: Any, *given: Any, **more: Any) -> Any:
        for choice in _part(chunk, "choices") or ():
            if isinstance(choice, dict) and choice.get("delta") is None:
                choice["delta"] = {}  # LangChain would pass over why the answer ended
        read = super()._convert_chunk_to_generation_chunk(chunk, *given, **more)  # type: ignore[misc]
        said = [
            _part(_part(choice, "delta"), "refusal") for choice in _part(chunk, "choices") or ()
        ]
        if read is not None and said and isinstance(said[0], str) and said[0]:
            read.message.additional_kwargs["refusal"] = said[0]
        if read is not None and _thinks(chunk):
            read.message.additional_kwargs[THINKS] = True
        return read

    def _generate(self, *given: Any, **more: Any) -> Any:
        try:
            return super()._generate(*given, **more)  # type: ignore[misc]
        except Exception as error:
            return self._create_chat_result(_cut_off(error))

    async def _agenerate(self, *given: Any, **more: Any) -> Any:
        try:
            return await super()._agenerate(*given, **more)  # type: ignore[misc]
        except Exception as error:
            return self._create_chat_result(_cut_off(error))

    def _stream(self, *given: Any, **more: Any) -> Iterator[Any]:
        ended = False
        try:
            for chunk in super()._stream(*given, **more):  # type: ignore[misc]
                ended = ended or "finish_reason" in (chunk.generation_info or {})
                yield chunk
        except Exception as error:
            yield _end_of(_cut_off(error), ended=ended)

    async def _astream(self, *given: Any, **more: Any) -> AsyncIterator[Any]:
        ended = False
        try:
            async for chunk in super()._astream(*given, **more):  # type: ignore[misc]
                ended = ended or "finish_reason" in (chunk.generation_info or {})
                yield chunk
        except Exception as error:
            yield _end_of(_cut_off(error), ended=ended)


def _cut_off(error: Exception) -> Any:
    """The answer that the client refused as it was cut off.

    Raises:
        Exception: If that is not what the error says.
    """
    if type(error).__name__ != "LengthFinishReasonError":
        raise error
    return _part(error, "completion")


def _end_of(completion: Any, *, ended: bool) -> ChatGenerationChunk:
    """What is missing of a stream whose answer was cut off; `ended` where it has said why."""
    usage = _part(completion, "usage")
    used = [_part(usage, name) or 0 for name in ("prompt_tokens", "completion_tokens")]
    told = UsageMetadata(input_tokens=used[0], output_tokens=used[1], total_tokens=sum(used))
    message = AIMessageChunk(content="", usage_metadata=told if any(used) else None)
    # Chunks are added up, and a reason that is told twice is none.
    return ChatGenerationChunk(
        message=message, generation_info=None if ended else {"finish_reason": "length"}
    )


class _Client:
    """A client whose streams have such arguments as text; LangChain would copy them with a warning."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create(self, **payload: Any) -> Any:
        made = self._client.create(**payload)
        if not payload.get("stream"):
            return made
        if (response := _no_stream(made)) is not None:
            _check_error(response.read())
        return _Stream(made)


class _AsyncClient(_Client):
    async def create(self, **payload: Any) -> Any:
        made = await self._client.create(**payload)
        if not payload.get("stream"):
            return made
        if (response := _no_stream(made)) is not None:
            _check_error(await response.aread())
        return _Stream(made)


def _no_stream(made: Any) -> Any:
    """The reply to a call that asked for a stream, where it may be an object; no stream knows its length."""
    response = getattr(made, "response", None)
    headers = getattr(response, "headers", {})
    is_json = str(headers.get("content-type", "")).startswith("application/json")
    return response if is_json and "content-length" in headers else None


def _check_error(body: bytes) -> None:
    """Raise what a server says in place of a stream; a stream that it calls JSON is read from its start."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(told, dict):
        raise ReplyError(
            told.get("error") or "its server sent an object where a stream was asked for"
        )


class _Stream:
    """A stream of chunks, to be read within its own context."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        if (events := getattr(stream, "_iter_events", None)) is not None:
            # OpenAI's client reads the data of every event as JSON, also where there is none.
            stream._iter_events = (
                (lambda: (each async for each in events() if each.data))
                if hasattr(stream, "__aiter__")
                else (lambda: (each for each in events() if each.data))
            )

    def __enter__(self) -> Iterator[Any]:
        self._stream.__enter__()
        return map(_written, self._stream)

    def __exit__(self, *error: Any) -> Any:
        return self._stream.__exit__(*error)

    async def __aenter__(self) -> AsyncIterator[Any]:
        await self._stream.__aenter__()
        return (_written(chunk) async for chunk in self._stream)

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)


def _written(chunk: Any) -> Any:
    for choice in _part(chunk, "choices") or ():
        _write_arguments(_part(choice, "delta"))
    return chunk


@lru_cache(maxsize=32)
def _lenient_class(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (_Lenient, kind), {"__module__": kind.__module__})


def _write_arguments(message: Any, *, whole: bool = False) -> None:
    for function in _functions(message):
        arguments = _part(function, "arguments")
        text = json.dumps(arguments) if isinstance(arguments, Mapping) else arguments
        if whole and _is_no_object(text):
            text = f"no object: {text}"
        if text is not arguments:
            if isinstance(function, dict):
                function["arguments"] = text
            else:
                function.arguments = text


def _is_no_object(text: Any) -> bool:
    try:
        return bool(text) and text.strip() != "null" and not isinstance(json.loads(text), dict)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False


def _thinks(chunk: Any) -> bool:
    deltas = [_part(choice, "delta") for choice in _part(chunk, "choices") or ()]
    return any(_part(delta, name) for delta in deltas for name in _THOUGHTS)


def _functions(message: Any) -> Iterator[Any]:
    for call in _part(message, "tool_calls") or ():
        if (function := _part(call, "function")) is not None:
            yield function


def _part(whole: Any, name: str) -> Any:
    """A field of a dict, or of the object that a client makes of one."""
    return whole.get(name) if isinstance(whole, Mapping) else getattr(whole, name, None)
