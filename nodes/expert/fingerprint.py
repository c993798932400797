"""What answers depend on, as a short text for caches: models by their settings, functions by their code.

    model string, chat model ──settings──┐
    function, object, chain ──its code───┴──> digest;  "" where something that matters cannot be seen

A cached answer is as good as a new one only as long as the same model would give it. What a function computes
follows from its code, from the values that it closes over, and from what it uses of its module. Where one of
them is an object that nobody can look into, there is no digest, and answers are not kept.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import re
import sysconfig
from collections.abc import Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import RunnableBinding, RunnableLambda, RunnableSequence

from der_graph.nodes.providers.secrets import public

_LIBRARIES = tuple(
    path for key, path in sysconfig.get_paths().items() if key in ("stdlib", "purelib", "platlib")
)
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis))


class _UnknownError(Exception):
    """Something that answers may depend on cannot be looked into."""


def fingerprint_of(model: Any, settings: Mapping[str, Any]) -> str:
    """Identify what answers depend on, without any secret; empty where that cannot be told."""
    own = getattr(model, "fingerprint", None)
    if isinstance(own, str):
        return own
    try:
        seen = [model if isinstance(model, str) else _Reader().read(model), public(settings)]
    except (_UnknownError, RecursionError):
        return ""
    text = json.dumps(seen, sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _Reader:
    """Turns a value into plain data that is the same for values that act the same."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}  # what is being read, for functions that call themselves

    def read(self, value: Any) -> Any:
        """Plain data for a value.

        Raises:
            _UnknownError: If it cannot be looked into.
        """
        if isinstance(value, _PLAIN):
            return repr(value)
        if id(value) in self._open:
            return ["again", self._open[id(value)]]
        self._open[id(value)] = len(self._open)
        try:
            return self._parts(value)
        finally:
            del self._open[id(value)]

    def _parts(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return [type(value).__name__, *map(self.read, value)]
        if isinstance(value, (set, frozenset)):
            return ["set", *sorted(json.dumps(self.read(each)) for each in value)]
        if isinstance(value, Mapping):
            return ["map", *([self.read(k), self.read(v)] for k, v in value.items())]
        if isinstance(value, re.Pattern):
            return ["re", value.pattern, value.flags]
        if isinstance(value, ModuleType):
            return ["module", value.__name__]
        if isinstance(value, CodeType):
            return self._code(value)
        if isinstance(value, (BuiltinFunctionType, type)) or _in_a_library(value):
            return self._named(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return ["method", self.read(value.__func__), self.read(value.__self__)]
        if isinstance(value, functools.partial):
            return ["partial", *map(self.read, (value.func, value.args, value.keywords))]
        if isinstance(value, BaseChatModel) and value._identifying_params:
            seen = [type(value).__name__, public(dict(value._identifying_params))]
            where = _addresses(value)
            return [*seen, where] if where else seen
        if isinstance(value, RunnableLambda):
            functions = [getattr(value, name, None) for name in ("func", "afunc")]
            return ["lambda", *(self.read(each) for each in functions if each is not None)]
        if isinstance(value, RunnableSequence):
            return ["chain", *map(self.read, value.steps)]
        if isinstance(value, RunnableBinding):
            return ["bound", self.read(value.bound), self.read(dict(value.kwargs))]
        if isinstance(value, BasePromptTemplate):
            return ["prompt", value.model_dump_json()]
        return self._object(value)

    def _named(self, value: Any) -> Any:
        """Of libraries the name; of a class of one's own also what it does."""
        name = f"{value.__module__}.{getattr(value, '__qualname__', '')}"
        if not isinstance(value, type) or _in_a_library(value):
            return name
        members = {
            key: getattr(each, "__func__", each)
            for key, each in sorted(vars(value).items())
            if not key.startswith("__") or inspect.isfunction(each)
        }
        functions = {k: v for k, v in members.items() if isinstance(v, (FunctionType, *_PLAIN))}
        return [name, *map(self.read, value.__mro__[1:-1]), self.read(functions)]

    def _function(self, function: FunctionType) -> Any:
        names = {
            name: function.__globals__[name]
            for name in sorted(_names_in(function.__code__))
            if name in function.__globals__
        }
        cells = [self._cell(cell) for cell in function.__closure__ or ()]
        defaults = [self.read(part) for part in (function.__defaults__, function.__kwdefaults__)]
        return ["function", self._code(function.__code__), cells, defaults, self.read(names)]

    def _cell(self, cell: Any) -> Any:
        try:
            return self.read(cell.cell_contents)
        except ValueError:  # not filled yet
            return "empty"

    def _code(self, code: CodeType) -> Any:
        consts = [self.read(each) for each in code.co_consts]
        return ["code", code.co_code.hex(), consts, list(code.co_names)]

    def _object(self, value: Any) -> Any:
        """An object of a class of one's own: what it does, and what it holds."""
        kind = type(value)
        if _in_a_library(kind) or not hasattr(value, "__dict__"):
            raise _UnknownError(kind.__qualname__)
        return ["object", self.read(kind), self.read(public(vars(value)))]


_ADDRESS = re.compile(r"url|base|endpoint|host|region|location|deployment|project", re.IGNORECASE)


_SENT_ALONG = ("default_headers", "default_query")


def _addresses(model: BaseChatModel) -> dict[str, str]:
    """Where a model's provider is reached: another server's model of the same name is another."""
    names = sorted(filter(_ADDRESS.search, type(model).model_fields))
    found = {name: getattr(model, name) for name in names}
    told = {name: value for name, value in public(found).items() if isinstance(value, str)}
    for name in _SENT_ALONG:  # gateways choose models and versions by them
        if isinstance(given := getattr(model, name, None), Mapping) and given:
            told[name] = json.dumps(public(dict(given)), sort_keys=True, default=repr)
    return told


def _names_in(code: CodeType) -> set[str]:
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


def _in_a_library(value: Any) -> bool:
    """Is a function or a class part of Python, or installed? Then its name says what it does."""
    try:
        file = inspect.getfile(value)
    except (TypeError, OSError):
        return isinstance(value, type) and value.__module__ != "__main__"
    return file.startswith(_LIBRARIES)
