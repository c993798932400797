"""How the graph inside a chat model is run: below the model's own run, and apart from any graph around it.

    callbacks of the model's run ──nested──> config of the graph: its runs are children of the model's

A chat model may be called in a node of an application's own graph. The graph in here then must not take that
one's checkpointer, and its experts' drafts must not get into that one's stream of messages, where the model's
own chunks are.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncRunManager,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    ensure_config,
    get_config_list,
    var_child_runnable_config,
)
from langchain_core.tracers.event_stream import _AstreamEventsCallbackHandler

from der_graph.nodes.streaming import streams_messages

RUNS = "der_callbacks"
"""Argument that hands a stream's callbacks from `stream` to `_stream`, which LangChain does not."""

_RUN: ContextVar[Any] = ContextVar("run_manager", default=None)
_THREADS = 64  # most calls of a synchronous batch at the same time


def input_of(messages: Sequence[BaseMessage]) -> dict[str, Any]:
    """The graph's input: copies, as the graph gives each message an id, by which it tells them apart."""
    seen: set[str] = set()
    copies = []
    for message in messages:
        new = message.id is not None and message.id not in seen
        copies.append(message.model_copy(update={"id": message.id if new else str(uuid.uuid4())}))
        seen.add(str(message.id))
    return {"messages": copies}


@contextmanager
def of_run(run_manager: Any) -> Iterator[None]:
    """Remember the model's run during a call: where LangChain streams it unasked, `_stream` is not told."""
    token = _RUN.set(run_manager)
    try:
        yield
    finally:
        _RUN.reset(token)


def nested(run_manager: Any, callbacks: BaseCallbackManager | None) -> RunnableConfig:
    """The config with which the graph's runs are children of the chat model's run.

    Args:
        run_manager: The run manager, where LangChain passes one.
        callbacks: Else what `stream_config` made; where that is missing too, the run of `of_run` holds.
    """
    run_manager = run_manager or (_RUN.get() if callbacks is None else None)
    manager = callbacks if run_manager is None else _children(run_manager, run_manager.run_id)
    if manager is None:
        return {"callbacks": []}
    # What is said of this model is not true of the experts.
    manager.remove_metadata([name for name in manager.metadata if name.startswith("ls_")])
    for handler in [*manager.handlers, *manager.inheritable_handlers]:
        # It would show drafts, and make every expert generate token by token instead of in batches.
        if streams_messages(handler):
            manager.remove_handler(handler)
    for handlers in (manager.handlers, manager.inheritable_handlers):
        handlers[:] = map(_silent, handlers)
    return {"callbacks": manager}


class _SilentEvents(_AstreamEventsCallbackHandler):
    """The handler of `astream_events` over an expert's run: it hears all of it but the words.

    It would take drafts for the answer. In all else it is the handler that it stands for, over the same
    attributes.
    """

    __slots__ = ("_of",)
    _of: BaseCallbackHandler

    async def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        """Silent."""

    async def on_stream_event(self, *_: Any, **__: Any) -> None:
        """Silent."""

    def __eq__(self, other: object) -> bool:  # LangChain adds no handler a second time
        return getattr(other, "__dict__", None) is self.__dict__

    def __hash__(self) -> int:
        return hash(self._of)


def _silent(handler: BaseCallbackHandler) -> BaseCallbackHandler:
    """What hears of the experts in place of a handler; handlers of the user's own hear everything."""
    if type(handler) is not _AstreamEventsCallbackHandler:
        return handler
    twin: Any = object.__new__(_SilentEvents)
    twin._of = handler  # kept, as the attributes go with it
    twin.__dict__ = handler.__dict__
    return twin  # type: ignore[no-any-return]


def stream_config(
    config: RunnableConfig | None, *, asynchronous: bool
) -> tuple[RunnableConfig, BaseCallbackManager]:
    """Prepare a stream, whose run LangChain does not tell to the one who makes it.

    Returns:
        The config to stream with, which fixes the run's id; and callbacks for children of that run.
    """
    config = ensure_config(config)
    run_id = config.get("run_id") or uuid.uuid4()
    configure = AsyncCallbackManager.configure if asynchronous else CallbackManager.configure
    # Made here, so that a tracer that is added to it sees this run and its children.
    manager = configure(
        config.get("callbacks"), None, False, config.get("tags"), None, config.get("metadata")
    )
    return {**config, "callbacks": manager, "run_id": run_id}, _children(manager, run_id)


def _children(given: Any, run_id: uuid.UUID) -> BaseCallbackManager:
    """Callbacks for the children of a run; LangChain makes such for chains, but not for chat models."""
    asynchronous = isinstance(given, (AsyncCallbackManager, AsyncRunManager))
    kind = AsyncCallbackManager if asynchronous else CallbackManager
    manager = kind(handlers=[], parent_run_id=run_id)
    manager.set_handlers(given.inheritable_handlers)
    manager.add_tags(given.inheritable_tags)
    manager.add_metadata(given.inheritable_metadata)
    return manager


@contextmanager
def apart() -> Iterator[None]:
    """Start a graph that knows nothing of a graph around it."""
    token = var_child_runnable_config.set(None)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def dispatch(event: Mapping[str, Any], config: RunnableConfig) -> None:
    """Tell those who trace the model what happens inside, as LangChain's custom event."""
    kind, content = _event(event)
    if _heard(config):
        dispatch_custom_event(kind, content, config=config)


async def adispatch(event: Mapping[str, Any], config: RunnableConfig) -> None:
    """As `dispatch`."""
    kind, content = _event(event)
    if _heard(config):
        await adispatch_custom_event(kind, content, config=config)


def _event(event: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return event["type"], {name: value for name, value in event.items() if name != "type"}


def _heard(config: RunnableConfig) -> bool:
    callbacks = config["callbacks"]
    return isinstance(callbacks, BaseCallbackManager) and callbacks.parent_run_id is not None


def wide(config: Any, number: int) -> list[RunnableConfig]:
    """Configs with which all calls of a batch run at the same time, so that they can meet."""
    configs = get_config_list(config, number)
    for each in configs:
        each["max_concurrency"] = each.get("max_concurrency") or min(number, _THREADS)
    return configs
