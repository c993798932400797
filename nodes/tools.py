"""Tools: who can be given them, what a call looks like on a route, and what goes on after the question.

    tools ──with_tools──> a model that may call them ──AIMessage──> calls_of ──> plain data in the Answer

    human: What is the weather?     the question
    ai:    weather(city="Ulm")      the tail: what an application did with an earlier answer's calls;
    tool:  rainy                    experts read it after the question, in order

An expert's calls are an answer like any other: they agree with the same calls of others, and the last
expert's reach the caller, who runs them. Nothing is run here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.fallbacks import RunnableWithFallbacks

from der_graph.nodes.reliability import Bounded, bare
from der_graph.nodes.values import json_spelling


def tail_of(after: Sequence[AnyMessage]) -> list[AnyMessage]:
    """What of the messages after the question belongs to answering it: all up to the last tool's result.

    An answer that stands after the question without any tool has answered it, so a question that is asked
    again is answered afresh.
    """
    for end in range(len(after), 0, -1):
        if isinstance(after[end - 1], ToolMessage):
            return list(after[:end])
    return []


def without_tools(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """A conversation for models that read text only: without tools' results, and without empty messages."""
    return [
        message
        for message in messages
        if not isinstance(message, ToolMessage)
        and not (isinstance(message, AIMessage) and message.tool_calls and not message.text.strip())
    ]


def calls_of(message: BaseMessage) -> list[dict[str, Any]]:
    """The tool calls of a message as plain data: `name`, `args`, `id`, `type`."""
    return [dict(call) for call in getattr(message, "tool_calls", None) or []]


def value_of_calls(calls: Sequence[Mapping[str, Any]]) -> str:
    """What calls come to, to see whether answers agree: what is called with what, in any order.

    Examples:
        >>> one, two = {"name": "f", "args": {"x": 1}, "id": "a"}, {"name": "g", "args": {}, "id": "b"}
        >>> value_of_calls([one, two]) == value_of_calls([two, {**one, "id": "c"}])
        True
    """
    return "; ".join(sorted(json_spelling([c["name"], c["args"]]) for c in calls))


def reads_tools(model: Any) -> bool:
    """Can a model be handed tools' results? Chat templates of local models have no common role for them."""
    from der_graph.nodes.batching import BatchedChatModel

    return not isinstance(bare(model), BatchedChatModel)


def with_tools(
    model: Any, tools: Sequence[Any], tool_choice: Any = None, **settings: Any
) -> Runnable[Any, Any]:
    """Let a model call tools, whatever it is wrapped in.

    Args:
        model: A chat model, bare or wrapped by `bind`, `with_config`, `with_retry`, `with_fallbacks` or
            `Bounded`.
        tools: What `bind_tools` of chat models takes.
        tool_choice: A tool's name, `auto`, `any`, or None for the model's default.
        settings: Passed on to the model's own `bind_tools`.

    Raises:
        NotImplementedError: If it cannot call tools.
    """
    given = settings if tool_choice is None else {**settings, "tool_choice": tool_choice}
    return rebound(model, lambda chat: chat.bind_tools(tools, **given))


def rebound(
    model: Any, change: Callable[[BaseChatModel], Runnable[Any, Any]]
) -> Runnable[Any, Any]:
    """Change the chat model inside a model, and keep what it is wrapped in.

    Raises:
        NotImplementedError: If there is no chat model inside, but a function, a graph or the like.
    """
    if isinstance(model, BaseChatModel):
        return change(model)
    if isinstance(model, RunnableWithFallbacks):
        members = [rebound(each, change) for each in (model.runnable, *model.fallbacks)]
        return model.model_copy(update={"runnable": members[0], "fallbacks": members[1:]})
    if isinstance(model, Bounded):
        return model.around(rebound(model.bound, change))
    # Copied, as `bind` on some would leave their other duties behind.
    if isinstance(model, RunnableBindingBase):
        return model.model_copy(update={"bound": rebound(model.bound, change)})
    if isinstance(model, RunnableSequence):  # a wrapped model as `as_expert` takes it
        return RunnableSequence(rebound(model.first, change), *model.steps[1:])
    raise NotImplementedError(f"{type(model).__name__} is no chat model")
