"""What an answer depends on, as one short text: for caches that must never give a stale answer.

    chat model  ──> its class and settings, the address of its server too, and no secret
    function    ──> its code, its defaults, and the plain values and functions that it refers to
    Runnable, graph, agent, any object ──> its class and what it holds, as deep as that is

Too careful is cheap: an answer is made once more. Knows nothing of experts.
"""

from __future__ import annotations

import functools
import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel

from der_graph.nodes.redaction import is_secret

_DEEPEST = 8

# Settings of chat models that say nothing about the answer.
_NO_MATTER = frozenset(
    "callbacks verbose tags metadata cache rate_limiter name max_retries request_timeout timeout "
    "default_request_timeout stream_chunk_timeout profile http_socket_options client async_client "
    "root_client root_async_client http_client http_async_client".split()
)


def fingerprint(value: Any) -> str:
    """Identify a value by what it is made of: 32 hexadecimal digits, the same in every process."""
    return digest(_Reader().read(value, 0))


def digest(seen: Any) -> str:
    """A short text for plain data."""
    text = json.dumps(seen, sort_keys=True, default=lambda each: type(each).__name__)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _Reader:
    """Takes a value to pieces; what comes again, as in circles, is only named."""

    def __init__(self) -> None:
        self._met: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is used twice

    def read(self, value: Any, depth: int) -> Any:
        """What a value is made of, as plain data."""
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, bytes):
            return value.hex()
        own = getattr(value, "fingerprint", None)
        if isinstance(own, str):
            return own
        if depth > _DEEPEST or isinstance(value, type):
            return getattr(value, "__qualname__", type(value).__qualname__)
        if id(value) in self._met:
            return f"#{self._met[id(value)]}"
        self._met[id(value)] = len(self._met)
        self._kept.append(value)
        return self._taken_apart(value, depth + 1)

    def _taken_apart(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            open_ = {str(key): each for key, each in value.items() if not is_secret(key)}
            return {key: self.read(each, depth) for key, each in open_.items()}
        if isinstance(value, (list, tuple)):
            return [self.read(each, depth) for each in value]
        if isinstance(value, (set, frozenset)):
            return sorted(digest(self.read(each, depth)) for each in value)
        if isinstance(value, functools.partial):
            return [self.read(each, depth) for each in (value.func, value.args, value.keywords)]
        if isinstance(value, types.MethodType):
            return [self.read(each, depth) for each in (value.__func__, value.__self__)]
        if isinstance(value, types.FunctionType):
            return self._function(value, depth)
        if isinstance(value, BaseChatModel):
            return [type(value).__qualname__, self._chat(value, depth)]
        return [
            type(value).__qualname__,
            self._code_of(type(value), depth),
            self._held(value, depth),
        ]

    def _chat(self, chat: BaseChatModel, depth: int) -> Any:
        settings = {
            name: getattr(chat, name)
            for name in type(chat).model_fields
            if name not in _NO_MATTER and not callable(getattr(chat, name, None))
        }
        return self.read({**settings, "identifying": dict(chat._identifying_params)}, depth)

    def _function(self, function: types.FunctionType, depth: int) -> Any:
        code, world = function.__code__, function.__globals__
        # Of what else it names, modules and classes, the name stands in the code.
        named = {
            name: world[name]
            for name in sorted(_names(code))
            if name in world and isinstance(world[name], _READABLE)
        }
        parts = (
            function.__defaults__,
            function.__kwdefaults__,
            [_cell(each) for each in function.__closure__ or ()],
            named,
        )
        read = [self.read(each, depth) for each in parts]
        return [function.__qualname__, _bytecode(code), *read]

    def _code_of(self, kind: type, depth: int) -> Any:
        """The code of a user's own `__call__`, `invoke` or `decide`."""
        if kind.__module__.startswith(("langchain", "langgraph", "der_graph")):
            return None
        found = [vars(kind).get(name) for name in ("__call__", "invoke", "ainvoke", "decide")]
        return [self.read(each, depth) for each in found if isinstance(each, types.FunctionType)]

    def _held(self, value: Any, depth: int) -> Any:
        held = dict(getattr(value, "__dict__", {}))
        if is_dataclass(value):  # with slots they have no dict
            held = {each.name: getattr(value, each.name) for each in fields(value)}
        return self.read({k: v for k, v in held.items() if k not in _NO_MATTER}, depth)


_READABLE = (
    str, int, float, bool, bytes, list, tuple, dict, types.FunctionType, functools.partial,
)  # fmt: skip


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _names(code: types.CodeType) -> set[str]:
    inner = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _bytecode(code: types.CodeType) -> Any:
    constants = [
        _bytecode(each) if isinstance(each, types.CodeType) else repr(each)
        for each in code.co_consts
        if not isinstance(each, frozenset)  # its order differs from process to process
    ]
    return [code.co_code.hex(), list(code.co_names), constants]
