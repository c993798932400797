"""Servers of OpenAI's protocol that send a tool's arguments as an object, in place of its JSON as a text.

    response or chunk ──arguments as text──> LangChain's own reader, which refuses objects

Text Generation Inference and others do so. Knows nothing of experts.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import lru_cache
from typing import Any

from langchain_core.language_models import BaseChatModel


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
        for choice in _part(response, "choices") or ():
            _write_arguments(_part(choice, "message"))
        return super()._create_chat_result(response, *given, **more)  # type: ignore[misc]


class _Client:
    """A client whose streams have such arguments as text; LangChain would copy them with a warning."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create(self, **payload: Any) -> Any:
        made = self._client.create(**payload)
        return _Stream(made) if payload.get("stream") else made


class _AsyncClient(_Client):
    async def create(self, **payload: Any) -> Any:
        made = await self._client.create(**payload)
        return _Stream(made) if payload.get("stream") else made


class _Stream:
    """A stream of chunks, to be read within its own context."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

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


def _write_arguments(message: Any) -> None:
    for function in _functions(message):
        arguments = _part(function, "arguments")
        if isinstance(arguments, Mapping):
            text = json.dumps(arguments)
            if isinstance(function, dict):
                function["arguments"] = text
            else:
                function.arguments = text


def _functions(message: Any) -> Iterator[Any]:
    for call in _part(message, "tool_calls") or ():
        if (function := _part(call, "function")) is not None:
            yield function


def _part(whole: Any, name: str) -> Any:
    """A field of a dict, or of the object that a client makes of one."""
    return whole.get(name) if isinstance(whole, Mapping) else getattr(whole, name, None)
