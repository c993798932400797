"""What `create_agent` and its other middleware need of an expert: a model, a prompt, a price."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable

from der_graph.errors import ChatModelError, PoolError, is_number
from der_graph.nodes.conversation import block_beside_text
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import KTPTemplate, estimate_tokens, ktp_messages, ktp_text
from der_graph.nodes.model_settings import SAMPLING, check_settings, equipped
from der_graph.nodes.reliability import bare
from der_graph.nodes.reliability.call_limits import TOKEN_LIMITS
from der_graph.nodes.reliability.charge import CallSize, token_prices
from der_graph.nodes.tools import with_tools
from der_graph.state import Answer, DERContext


def acting_model(expert: Expert, sampling: Mapping[str, Any] | None = None) -> BaseChatModel:
    """An expert's model as a model request takes it; see `ActingModel`."""
    return cast(BaseChatModel, ActingModel(expert, sampling))


def sampling_of(context: DERContext) -> dict[str, Any]:
    """What a run asks of the experts' models: how to sample.

    Raises:
        ChatModelError: If a setting is unknown, or for the agent to say: tools, and the form of its answer.
    """
    settings = check_settings(context.model_settings)
    for name in settings:
        if name not in SAMPLING:
            raise ChatModelError(
                f"model_settings has '{name}', which is for the agent to say: create_agent(tools=..., "
                f"response_format=...); allowed here: {', '.join(SAMPLING)}"
            )
    return settings


class ActingModel:
    """An expert's model with the methods that an agent calls, read with care; see `nodes/providers/chat.py`.

    To other middleware it is of its model's own class, as some act on models of one provider alone. What is
    not a method of this class is looked up at that model.

    Args:
        expert: Whose.
        sampling: What the run asks of it; see `sampling_of`. What the agent's request asks goes before it.
    """

    def __init__(self, expert: Expert, sampling: Mapping[str, Any] | None = None) -> None:
        self._expert = expert
        self._sampling = dict(sampling or {})

    @property  # type: ignore[misc]  # what isinstance asks, and can be set elsewhere
    def __class__(self) -> Any:
        return type(bare(self._expert.model))

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **settings: Any
    ) -> Runnable[Any, Any]:
        """Let it call tools, and keep what it is wrapped in."""
        model = with_tools(self._beside(settings), tools, tool_choice, **settings)
        return self._expert.carefully(model)

    def bind(self, **settings: Any) -> Runnable[Any, Any]:
        """Fix settings of its calls."""
        model = self._beside(settings)
        return self._expert.carefully(model.bind(**settings) if settings else model)

    def _beside(self, settings: Mapping[str, Any]) -> Runnable[Any, Any]:
        """The model as the run asks for it, save for what the request's own settings say."""
        said = {"max_tokens" if name in TOKEN_LIMITS else name for name in settings}
        rest = {name: value for name, value in self._sampling.items() if name not in said}
        return equipped(self._expert.model, rest)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_expert", "_sampling"):  # not set yet: being copied
            raise AttributeError(name)
        return getattr(bare(self._expert.model), name)


def with_system(system: str | None, message: SystemMessage | None) -> SystemMessage | None:
    """An expert's own system prompt before the agent's, whose content blocks are kept."""
    if system is None or message is None:
        return message if system is None else SystemMessage(system)
    if isinstance(message.content, str):
        return SystemMessage(f"{system}\n\n{message.content}")
    return SystemMessage([{"type": "text", "text": system}, *message.content])


def messages_to_check(
    messages: Sequence[AnyMessage], drafts: Sequence[Answer], template: KTPTemplate
) -> list[AnyMessage]:
    """The conversation with what other experts would do now, as a Knowledge Transfer Prompt.

    Args:
        messages: The conversation.
        drafts: The answers to it so far, in order.
        template: The wording.
    """
    told = [replace_text(draft) for draft in drafts]
    humans = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
    at = humans[-1] if humans else len(messages)
    question = messages[at].text if humans else ""
    if not humans or block_beside_text(messages[at]):
        return [*messages, HumanMessage(ktp_text(question, told, template))]
    before, after = messages[:at], messages[at + 1 :]
    return cast(list[AnyMessage], ktp_messages(before, question, told, template, tail=after))


def replace_text(answer: Answer) -> Answer:
    """An answer whose text says what it would call."""
    calls = answer.get("tool_calls") or []
    lines = [f"call {c['name']}({json.dumps(c['args'], sort_keys=True)})" for c in calls]
    told = Answer(**answer)
    told["text"] = "\n".join([answer["text"], *lines]).strip()
    return told


def with_cached_prices(
    experts: Sequence[Expert], cached_prices: Mapping[str, float]
) -> list[Expert]:
    """The experts, whose cached input tokens have these prices in place of their own.

    Args:
        experts: The pool.
        cached_prices: Price per million cached input tokens, by expert, in the pool's unit.

    Raises:
        PoolError: If a price is of an unknown expert, of one without token prices, or above its input price.
    """
    if not isinstance(cached_prices, Mapping):
        raise PoolError(
            f"cached_prices is {cached_prices!r}; give a price for each name: {{'large': 0.3}}"
        )
    found = {expert.name: expert for expert in experts}
    for name, price in cached_prices.items():
        expert = found.get(name)
        prices = None if expert is None else token_prices(expert.token_prices)
        if expert is None or prices is None:
            what = "is not in the pool" if expert is None else "has no token_prices"
            raise PoolError(f"cached_prices: expert '{name}' {what}")
        if not is_number(price) or not 0 <= price <= prices.input:
            raise PoolError(
                f"cached_prices: '{name}' has {price!r}; it must be from 0 to its input price, "
                f"{prices.input:g}"
            )
        found[name] = replace(expert, token_prices=prices._replace(cached_input=price))
    return list(found.values())


class PromptCache:
    """Prices of the next call, where a provider keeps the prompt of the last one.

    Args:
        experts: The pool.
        names: The experts that go on where their cache makes them the cheaper ones.
    """

    def __init__(self, experts: Sequence[Expert], names: Collection[str]) -> None:
        self._experts = {expert.name: expert for expert in experts}
        self._names = frozenset(names)

    def keeps(
        self, last: str, choice: str, messages: Sequence[AnyMessage], answers: Sequence[Answer]
    ) -> bool:
        """Should the last expert go on, although the agent chose another one?

        It should where the other is the cheaper one by the list, and so may have been chosen for its price,
        but not with what the last one's provider has in its cache. An expert that is dearer by the list was
        chosen for what it can do.

        Args:
            last: The last expert.
            choice: The agent's choice.
            messages: The next prompt.
            answers: The answers of the run so far, in order.
        """
        if last == choice or last not in self._names:
            return False
        seen = {answer["expert"]: answer for answer in answers if answer["error"] is None}
        if last not in seen or self._experts[choice].token_prices is None:
            return False
        read = seen[last]["input_tokens"] + seen[last]["output_tokens"]
        prompt = max(read, estimate_tokens("".join(message.text for message in messages)))
        written = seen[last]["output_tokens"]

        def price(name: str, *, by_list: bool) -> float:
            known = None if by_list else seen.get(name)
            kept = (
                0 if known is None else min(prompt, known["input_tokens"] + known["output_tokens"])
            )
            return self._experts[name].charge.of(CallSize(prompt, kept, written, 0.0))

        if price(choice, by_list=True) >= price(last, by_list=True):
            return False
        return price(last, by_list=False) < price(choice, by_list=False)
