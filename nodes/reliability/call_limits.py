"""Calls that stay within their price and their length, whatever the model says.

    priced(model, prices, cost)      a chat model is given the `max_tokens` that `cost` pays for, call by call
    no_longer_than(chars, config)    a stream that goes on is cut off

A token has one byte at least, so the bytes of a prompt bound its tokens. Functions, graphs and other
runnables cannot be told how many tokens they may write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs

from der_graph.errors import ExpertError
from der_graph.nodes.reliability.concurrency import Bounded, bare

MOST_TOKENS = 16_384
"""No more is asked for, however much the price pays for: providers refuse what their models cannot write."""

TOKEN_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "num_predict",
    "max_new_tokens",
)
"""What providers' classes call the longest answer."""

_PER_MESSAGE = 16  # tokens that templates put around a message, at most
_SHORT = 50  # tokens of a short question


class PriceError(ExpertError):
    """A prompt that costs more than a call may.

    Attributes:
        failure_kind: `context_length` where a short question could be paid for, so that clients shorten it;
            else `request`.
    """

    def __init__(self, message: str, failure_kind: str = "request") -> None:
        super().__init__(message)
        self.failure_kind = failure_kind


def can_be_bounded(model: Any) -> bool:
    """Can a model be told how many tokens it may write? Chat models can, whatever they are wrapped in."""
    return isinstance(bare(model), BaseChatModel)


def priced(
    model: Runnable[Any, Any], prices: tuple[float, float], cost: float
) -> Runnable[Any, Any]:
    """The model, but no call of it costs more than it may; only chat models can be told.

    Args:
        model: The model.
        prices: Per million input and output tokens.
        cost: The most that one call may cost.
    """
    if isinstance(model, Priced):
        model = model.unpriced
    # A local model has bounds of its own, and is charged for what it did.
    if not can_be_bounded(model) or hasattr(bare(model), "count_tokens") or prices[1] <= 0:
        return model
    return Priced(bound=model, prices=prices, cost=cost)


class Priced(RunnableBinding[Any, Any]):
    """A chat model that is told, with every call, how many tokens it may write.

    Attributes:
        prices: Per million input and output tokens.
        cost: The most that one call may cost.
    """

    prices: tuple[float, float]
    cost: float

    def limit(self, prompt: Any, given: Mapping[str, Any] | None = None) -> dict[str, int]:
        """The `max_tokens` of a call, by every name under which its model is told another.

        Args:
            prompt: Its messages.
            given: The arguments of the call.

        Raises:
            PriceError: If the prompt alone may cost more than the call.
        """
        messages = (
            prompt if isinstance(prompt, Sequence) and not isinstance(prompt, str) else [prompt]
        )
        size = sum(_bytes(each) + _PER_MESSAGE for each in messages)
        left = self.cost - size * self.prices[0] / 1e6
        if left * 1e6 < self.prices[1]:
            # No tokenizer makes more tokens than bytes, but most make a third: only where that is too dear,
            # too, the call is not made.
            left = self.cost - size / 3 * self.prices[0] / 1e6
        tokens = int(left / self.prices[1] * 1e6 * (1 - 1e-9))
        if tokens < 1:
            short = self.cost * 1e6 > _SHORT * self.prices[0] + self.prices[1]
            raise PriceError(
                f"a prompt of {size} bytes may cost more than a call may ({self.cost:g}); raise `cost`, or "
                "shorten what is asked",
                "context_length" if short else "request",
            )
        chat = bare(self.bound)
        chat = getattr(chat, "chat", chat)
        own = [getattr(chat, name, None) for name in TOKEN_LIMITS]
        # What such a class sends by itself; what it is called with goes beside it, by the same names.
        sent = getattr(chat, "_default_params", None)
        named = [*_limits(given), *_bound_limits(self), *_limits(sent)]
        bounds = [n for n in (*own, *(n for _, n in named)) if isinstance(n, int) and n > 0]
        names = {name for name, _ in named}
        if not names or sent is None:
            names.add("max_tokens")
        return dict.fromkeys(sorted(names), min(tokens, MOST_TOKENS, *bounds))

    @property
    def unpriced(self) -> Runnable[Any, Any]:
        """The model without its price, with what was bound to it since."""
        if not (self.kwargs or self.config or self.config_factories):
            return self.bound
        return RunnableBinding(
            bound=self.bound,
            kwargs=self.kwargs,
            config=self.config,
            config_factories=self.config_factories,
        )

    # Copied, as LangChain makes another one of the class, and knows nothing of prices.

    def bind(self, **kwargs: Any) -> Priced:
        """As `Runnable.bind`, within the price."""
        return self.model_copy(update={"kwargs": {**self.kwargs, **kwargs}})

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Priced:
        """As `Runnable.with_config`, within the price."""
        return self.model_copy(update={"config": {**self.config, **(config or {}), **kwargs}})

    def with_retry(self, **kwargs: Any) -> Priced:
        """As `Runnable.with_retry`, within the price."""
        return self.model_copy(update={"bound": self.bound.with_retry(**kwargs)})

    def with_listeners(self, **kwargs: Any) -> Priced:
        """As `Runnable.with_listeners`, within the price."""
        return self.model_copy(update={"bound": self.bound.with_listeners(**kwargs)})

    def with_types(self, *args: Any, **kwargs: Any) -> Priced:
        """As `Runnable.with_types`, within the price."""
        free = RunnableBinding(bound=self.bound).with_types(*args, **kwargs)
        return self.model_copy(update={"bound": free})

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `Runnable.invoke`, within the price."""
        return super().invoke(input, config, **self._with(input, kwargs))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `Runnable.ainvoke`, within the price."""
        return await super().ainvoke(input, config, **self._with(input, kwargs))

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """As `Runnable.batch`, with the bound of the longest prompt for all."""
        longest = max(inputs, key=_size, default=None)
        return super().batch(inputs, config, **(self._with(longest, kwargs) if inputs else kwargs))

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """As `batch`."""
        longest = max(inputs, key=_size, default=None)
        found = self._with(longest, kwargs) if inputs else kwargs
        return await super().abatch(inputs, config, **found)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """As `Runnable.stream`, within the price."""
        yield from super().stream(input, config, **self._with(input, kwargs))

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As `Runnable.astream`, within the price."""
        async for piece in super().astream(input, config, **self._with(input, kwargs)):
            yield piece

    def _with(self, prompt: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {**kwargs, **self.limit(prompt, kwargs)}


def _bound_limits(model: Any) -> Iterator[tuple[str, Any]]:
    """The limits on the answer's length that are bound to a model."""
    while isinstance(model, (RunnableBindingBase, Bounded)):
        yield from _limits(getattr(model, "kwargs", {}))
        model = model.bound


def _limits(settings: Any) -> list[tuple[str, Any]]:
    known = settings if isinstance(settings, Mapping) else {}
    return [(name, known[name]) for name in TOKEN_LIMITS if name in known]


def _size(prompt: Any) -> int:
    return sum(map(_bytes, prompt)) if isinstance(prompt, list) else _bytes(prompt)


def _bytes(message: Any) -> int:
    text = message.content if isinstance(message, BaseMessage) else message
    calls = getattr(message, "tool_calls", None) or ()
    return len(str(text).encode("utf-8", "replace")) + sum(len(str(call)) for call in calls)


class TooLongError(ExpertError):
    """An answer that went on past its bound.

    Args:
        text: What was said until then.
    """

    def __init__(self, text: str) -> None:
        super().__init__("the answer is too long")
        self.text = text


class _Length(BaseCallbackHandler):
    """Ends a stream that has become too long."""

    raise_error = True
    run_inline = True

    def __init__(self, most: int) -> None:
        self._most = most
        self._said: dict[UUID, list[str]] = {}
        self._length: dict[UUID, int] = {}

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **_: Any) -> None:
        """Count."""
        text = token if isinstance(token, str) else ""
        self._said.setdefault(run_id, []).append(text)
        self._length[run_id] = length = self._length.get(run_id, 0) + len(text)
        if length > self._most:
            raise TooLongError("".join(self._said.pop(run_id)))


def no_longer_than(most: int, config: RunnableConfig | None) -> RunnableConfig:
    """A configuration with which streams end after so many characters, with `TooLongError`."""
    # In this order: each is filled up from the configuration around it, and the last one counts.
    return merge_configs({"callbacks": [_Length(most)]}, config)
