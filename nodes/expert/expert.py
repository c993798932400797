"""One member of the pool: a chat model with a name, a price and a way of receiving knowledge.

    question, answers ──ktp──> messages ──model──> Answer

One class serves one question in the graph and many at once in training, so both see the same expert. A
failing expert does not end a route: its answer says why it failed, and the agent goes on with another. How a
call is kept from doing harm is in `nodes/reliability`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphBubbleUp

from der_graph.errors import PoolError, plain
from der_graph.nodes.conversation import question_blocks
from der_graph.nodes.expert.attempt import Attempt
from der_graph.nodes.expert.fingerprint import fingerprint_of
from der_graph.nodes.expert.numbers import NUMBERS, check_numbers
from der_graph.nodes.expert.reading import Reader, price_of
from der_graph.nodes.ktp import KTPTemplate, ktp_messages, ktp_template
from der_graph.nodes.model_settings import (
    context_length_of,
    equipped,
    inputs_known,
    inputs_of,
    json_asked,
    schema_of,
    without_blocks,
    writes_json,
)
from der_graph.nodes.providers import THOUGHT_MARKS, Habit, ProviderChat, ThoughtMarks
from der_graph.nodes.reliability import (
    DEFAULT_TIMEOUT,
    Fallback,
    Health,
    bare,
    call_limit,
    limit_of,
    unless_late,
)
from der_graph.nodes.reliability.call_limits import can_be_bounded, no_longer_than, priced
from der_graph.nodes.reliability.calls import (
    acall,
    acall_task,
    call,
    configured,
    is_at_home,
    pause,
    runs_on_loop,
)
from der_graph.nodes.reliability.charge import Charge, TokenPrices, token_prices
from der_graph.nodes.reliability.concurrency import timed_calls
from der_graph.nodes.reliability.deadline import Limit
from der_graph.nodes.streaming import is_streamed
from der_graph.nodes.tools import calls_of, reads_tools, rebound, without_tools
from der_graph.state import END_CHOICE, Answer, Task, answers_of

ChatRunnable = Runnable[Any, Any]
"""Takes a list of messages, gives an `AIMessage`: any chat model, bare or wrapped (`with_retry` ...)."""

RESERVED_NAMES = frozenset(
    {END_CHOICE, "der_agent", "der_approval", "der_together", "answer", "__start__", "__end__"}
)
"""Names of the graph's own nodes and choices."""

MAX_ANSWER_CHARS = 100_000
"""Longest answer where nothing else is said: some 25,000 tokens."""

_BAD_NAME = re.compile(r"[|:\s]")
# More than in most texts: a provider's refusal costs nothing, a wrong mask does.
_BYTES_PER_TOKEN = 5.0


@dataclass(frozen=True)
class Expert:
    """One member of the pool.

    Attributes:
        name: Unique in the pool; also the node's name, so without `|`, `:` or white space.
        model: Takes messages, gives an `AIMessage`. Loaded when first asked.
        cost: Price of one call, in the pool's unit (default: billions of parameters run), >= 0. With
            `token_prices` it is the most that one call may cost, which budgets are checked against.
        description: What it is good at, in a few words; agents that know experts by profile read it.
        ktp: How it receives earlier answers; None for the graph's template.
        system: A system prompt of its own, put before the conversation's.
        token_prices: Prices of tokens, in the pool's unit, or None for a price per call; a pair is the prices
            per million input and output tokens.
        fingerprint: Identifies what the answers depend on (weights, generation settings), for caches; empty
            where nobody can tell, and then answers are not kept.
        seconds: Usual time of one call, above 0, or None where it is not known: an expert that would not
            be done before a request's deadline is not asked.
        max_answer_chars: Longest answer, in characters; what goes on is cut off there.
        second_price: Price of a second of a call, in the pool's unit, added to what else it costs.
        timeout: Seconds for one call, above 0; infinity for no limit. None for 120, and for no limit of ours
            on models that run in this process.
        health: What is known of its failures, its usual time and its threads; shared by all copies.
        skill: How often it is right, from 0 to 1, in its owner's opinion; or that for each kind of question,
            by name. The planner begins with it.
        context_length: Most tokens that it reads, answer included for local models; None for what the
            model or its profile says. It is not asked what it cannot read.
        inputs: What it reads beside text: `image`, `audio`, `video`, `pdf`; what the model's profile says is
            added.
        thought_marks: What opens and closes a thought in its text; empty if it does not think aloud.

    Raises:
        PoolError: If the name, the model, the cost or a time cannot be used.
    """

    name: str
    model: ChatRunnable
    cost: float
    description: str = ""
    ktp: KTPTemplate | None = None
    system: str | None = None
    token_prices: TokenPrices | tuple[float, float] | None = None
    fingerprint: str = ""
    seconds: float | None = None
    max_answer_chars: int = MAX_ANSWER_CHARS
    second_price: float = 0.0
    timeout: float | None = None
    health: Health = field(default_factory=Health, compare=False, repr=False)
    skill: float | Mapping[str, float] | None = None
    context_length: int | None = None
    inputs: frozenset[str] = frozenset()
    thought_marks: tuple[ThoughtMarks, ...] = THOUGHT_MARKS

    def __post_init__(self) -> None:
        check_name(self.name)
        if not hasattr(self.model, "invoke"):  # told now, and not as the failure of every call
            raise PoolError(
                f"expert '{self.name}': its model is a {type(self.model).__name__}, and must be a chat model "
                "or a Runnable; as_expert(...) takes functions and model strings"
            )
        self.health.breaker.name = self.name
        prices = check_numbers(self.name, self.__dict__)
        for name in NUMBERS:
            object.__setattr__(self, name, plain(getattr(self, name)))
        if prices is not None:
            # Frozen: the only place where a call can be kept within its price.
            object.__setattr__(self, "model", priced(self.model, prices[:2], self.cost))

    def __deepcopy__(self, memo: dict[int, Any]) -> Expert:
        """Itself: nothing in it changes, and clients of models cannot be copied."""
        return self

    @cached_property
    def is_local(self) -> bool:
        """Does its model run in this process, in batches, and stop by itself when its time is over?"""
        return bool(getattr(bare(self.model), "keeps_max_time", False))

    @cached_property
    def counts_tokens(self) -> bool:
        """Does its model count tokens itself, by a tokenizer that takes its time?"""
        return hasattr(bare(self.model), "count_tokens")

    @cached_property
    def _runs_on_loop(self) -> bool:
        return runs_on_loop(self.model)

    @cached_property
    def _streams_on_loop(self) -> bool:
        return runs_on_loop(self.model, streamed=True)

    def time_limit(self, time_left: float | None, fallback: Fallback) -> Limit:
        """How long a call may take; see `ask`."""
        timeout = self.timeout
        if self.is_local:
            fallback = "none"  # it ends in time, and what it has said by then is an answer
        elif timeout is None:
            timeout = DEFAULT_TIMEOUT
        return limit_of(timeout, time_left, fallback, self.seconds or self.health.usual)

    def prompt(
        self,
        history: Sequence[BaseMessage],
        question: str,
        answers: Sequence[Answer],
        ktp: KTPTemplate,
        tail: Sequence[BaseMessage] = (),
        *,
        attachments: Sequence[Mapping[str, Any]] = (),
        settings: Mapping[str, Any] | None = None,
        asker: str | None = None,
    ) -> list[BaseMessage]:
        """The messages that the expert gets for a question and the answers so far.

        Args:
            history: The conversation before the question.
            question: The question.
            answers: Earlier answers of the route.
            ktp: The graph's template, used where the expert has none of its own.
            tail: Tool calls and results after the question; models that only read text get none of those.
            attachments: Content blocks of the question beside its text.
            settings: What is asked of the model; see `der_graph.nodes.model_settings`.
            asker: Name of the person who asks.
        """
        if not reads_tools(self.model):
            history, tail = without_tools(history), ()
        messages = ktp_messages(
            _with_system(self.system, history),
            question,
            answers,
            self.ktp or ktp,
            count_tokens=getattr(bare(self.model), "count_tokens", None),
            tail=tail,
        )
        if inputs_known(self.model):
            messages = without_blocks(messages, self.reads)
        settings = settings or {}
        at = len(_with_system(self.system, history))  # of the question
        if attachments:
            messages[at] = HumanMessage([*question_blocks(messages[at].text, attachments)])
        if asker:
            messages[at].name = asker
        if schema_of(settings) is not None:
            messages[-1] = json_asked(messages[-1], settings, answers, writes_json(self.model))
        return messages

    def alone(self, ktp: KTPTemplate) -> Expert:
        """The same expert, asked as it would be asked first, and never shown an earlier answer.

        Args:
            ktp: The graph's template, used where the expert has none of its own.
        """
        own = self.ktp or ktp
        return replace(self, ktp=replace(own, name=f"{own.name}-alone", transfer=own.first))

    def prompt_for(self, task: Task, ktp: KTPTemplate) -> list[BaseMessage]:
        """The messages for a task of the graph; `ktp` is the graph's template."""
        return self.prompt(
            task["messages"],
            task["question"],
            answers_of(task["route"]),
            ktp_template(task.get("ktp") or ktp),
            task.get("tail", []),  # not in tasks of older checkpoints
            attachments=task.get("attachments", ()),
            settings=task.get("settings"),
            asker=task.get("asker"),
        )

    @property
    def unbounded(self) -> bool:
        """Is it charged by tokens that nothing bounds? Then it may cost more than `cost`."""
        return self.token_prices is not None and not can_be_bounded(self.model)

    @property
    def charge(self) -> Charge:
        """How its calls are charged."""
        return Charge(self.cost, token_prices(self.token_prices), self.second_price)

    def cost_of(self, answer: Answer) -> float:
        """What a call cost, at the prices of today; without a count of tokens the most that it may cost."""
        return price_of(answer, self.charge)

    @cached_property
    def reads(self) -> frozenset[str]:
        """What it reads beside text."""
        return self.inputs | inputs_of(self.model)

    @property
    def longest_prompt(self) -> int | None:
        """Most tokens that it reads, where that is known."""
        return self.context_length or context_length_of(self.model)

    def can_read(self, messages: Sequence[BaseMessage]) -> bool:
        """Is a prompt short enough? Counted by the model where it can, else by a cautious estimate."""
        limit = self.longest_prompt
        if limit is None:
            return True
        size = sum(len(message.text.encode()) + 16 for message in messages)
        if size < limit // 2:
            return True  # no tokenizer makes more tokens than there are bytes
        count = getattr(bare(self.model), "count_prompt", None)
        if count is not None:
            return bool(count(messages) < limit)
        return size / _BYTES_PER_TOKEN <= limit

    def called_with(self, settings: Mapping[str, Any] | None) -> ChatRunnable:
        """Its model as a request wants it called, read with care; see `nodes/providers/chat.py`."""
        key = json.dumps(settings or {}, sort_keys=True, default=repr)
        known = self._called.get(key)
        if known is None:
            if len(self._called) > 16:  # tools that are made anew for every call
                self._called.clear()
            model = self.carefully(equipped(self.model, settings or {}))
            # The settings stay alive: the key may name objects of theirs by their address.
            known = self._called[key] = (settings, model)
        return known[1]

    def carefully(self, model: ChatRunnable) -> ChatRunnable:
        """Its model, whatever that is wrapped in, read with care; see `nodes/providers/chat.py`."""
        with contextlib.suppress(NotImplementedError):  # a function or a graph
            return rebound(model, self._read_by_us)
        return model

    def _read_by_us(self, chat: BaseChatModel) -> BaseChatModel:
        if getattr(chat, "reads_itself", False) or isinstance(chat, ProviderChat):
            return chat
        known = self._readers.get(id(chat))
        if known is None or known.chat is not chat:
            if len(self._readers) > 16:  # models that are made anew for every call
                self._readers.clear()
            known = ProviderChat(chat=chat, marks=self.thought_marks, habit=self._habit)
            self._readers[id(chat)] = known
        return known

    @cached_property
    def _readers(self) -> dict[int, ProviderChat]:
        return {}

    @cached_property
    def _habit(self) -> Habit:
        return Habit()

    @cached_property
    def _called(self) -> dict[str, tuple[Mapping[str, Any] | None, ChatRunnable]]:
        return {}

    @cached_property
    def identity(self) -> str:
        """What its answers depend on: its `fingerprint`, or that of its model where none was given."""
        own = self.fingerprint or fingerprint_of(self.model, {})
        return own or f"unknown, in this process alone: {id(self.model)}"

    def cache_key(
        self, messages: Sequence[BaseMessage], settings: Mapping[str, Any] | None = None
    ) -> str:
        """A digest of everything that a greedy answer depends on."""
        digest = hashlib.sha256(f"{self.name}\x00{self.identity}".encode())
        for message in messages:
            digest.update(f"\x00{message.type}\x01{message.text}".encode())
            more = [message.name, calls_of(message), getattr(message, "tool_call_id", None)]
            if isinstance(message.content, list):
                more.append(message.content)
            if any(more):
                digest.update(f"\x02{json.dumps(more, sort_keys=True, default=repr)}".encode())
        if settings:
            digest.update(f"\x03{json.dumps(settings, sort_keys=True, default=repr)}".encode())
        read = (self.thought_marks, self.max_answer_chars)
        if read != (THOUGHT_MARKS, MAX_ANSWER_CHARS):
            digest.update(f"\x04{read}".encode())
        return digest.hexdigest()

    def ask(
        self,
        prompts: Sequence[list[BaseMessage]],
        config: RunnableConfig | None = None,
        *,
        time_left: float | None = None,
        fallback: Fallback = "none",
        insist: bool = True,
        spoken: Callable[[], bool] = lambda: False,
        settings: Mapping[str, Any] | None = None,
    ) -> list[Answer]:
        """Ask one or many questions; many go to the model as one batch. Never raises for a failing model.

        Args:
            prompts: The prompts.
            config: Configuration of the call, or None.
            time_left: Seconds until the deadline; `nodes/reliability/deadline.py` says what is guaranteed.
            fallback: What there is if the call fails; without any, a failure that passes is tried once more.
            insist: Ask it even though it fails again and again?
            spoken: Tells whether a token was heard.
            settings: What is asked of the model; see `der_graph.nodes.model_settings`.
        """
        if len(prompts) != 1:
            return self._ask_many(prompts, config, time_left, settings)
        config = no_longer_than(self.max_answer_chars, config)
        model = self.called_with(settings)
        attempt = Attempt(self, time_left, fallback, insist, spoken, settings)
        # It has a thread of its own, and ends in time.
        inline = self.is_local and self.timeout is None
        while True:
            with attempt:
                work = partial(_invoke, model, prompts[0], config, **attempt.told)
                if inline:
                    result = attempt.made(work)
                else:
                    result = call(partial(attempt.made, work), self.health.bulkhead, attempt.limit)
            answer, wait = attempt.answer(result)
            if wait is None:
                return [answer]
            pause(wait)

    def _ask_many(
        self,
        prompts: Sequence[list[BaseMessage]],
        config: RunnableConfig | None,
        time_left: float | None,
        settings: Mapping[str, Any] | None = None,
    ) -> list[Answer]:
        start = time.perf_counter()
        config = no_longer_than(self.max_answer_chars, config)
        model = self.called_with(settings)
        told = call_limit(model, time_left)
        with timed_calls() as own:
            try:
                results = model.batch(list(prompts), config, return_exceptions=True, **told)
            except GraphBubbleUp:
                raise
            except Exception as error:
                results = [error] * len(prompts)
        share = (time.perf_counter() - start) / max(1, len(prompts))
        took = [own.get(id(prompt), share) for prompt in prompts]
        answers = [
            self.answer_from(unless_late(each, seconds, told), seconds, settings=settings)
            for each, seconds in zip(results, took, strict=True)
        ]
        if any(answer["error"] is None for answer in answers):
            self.health.bulkhead.trust()
        return answers

    async def aask(
        self,
        prompt: list[BaseMessage],
        config: RunnableConfig | None = None,
        *,
        time_left: float | None = None,
        fallback: Fallback = "none",
        insist: bool = True,
        spoken: Callable[[], bool] = lambda: False,
        settings: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Ask one question without blocking the event loop; see `ask`."""
        config = no_longer_than(self.max_answer_chars, config)
        model = self.called_with(settings)
        attempt = Attempt(self, time_left, fallback, insist, spoken, settings)
        bulkhead = self.health.bulkhead
        on_loop = self._streams_on_loop if is_streamed(config) else self._runs_on_loop
        while True:
            with attempt:
                if on_loop and is_at_home(model):
                    later = partial(_ainvoke, model, prompt, config, **attempt.told)
                    # Local ones have a line of their own.
                    place = None if self.is_local else bulkhead
                    result = await acall_task(partial(attempt.amade, later), place, attempt.limit)
                else:
                    work = partial(_invoke, model, prompt, config, **attempt.told)
                    result = await acall(partial(attempt.made, work), bulkhead, attempt.limit)
            answer, wait = attempt.answer(result)
            if wait is None:
                return answer
            await asyncio.sleep(wait)

    def answer_from(
        self,
        result: Any,
        seconds: float,
        *,
        spoken: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Turn a model's result, or the exception that it raised, into an `Answer`; see `Reader.answer`."""
        return self._reader.answer(result, seconds, spoken=spoken, settings=settings)

    @cached_property
    def _reader(self) -> Reader:
        read_already = getattr(bare(self.model), "reads_itself", False)
        marks = () if read_already else self.thought_marks
        return Reader(self.name, self.charge, marks, self.max_answer_chars, self.is_local)


def asked_alone(
    experts: Sequence[Expert], names: Collection[str], ktp: KTPTemplate
) -> list[Expert]:
    """The experts, of whom some are never shown an earlier answer.

    Args:
        experts: The pool's.
        names: Who is asked alone; whoever has a template of its own keeps it.
        ktp: The graph's template.
    """
    return [e.alone(ktp) if e.name in names and e.ktp is None else e for e in experts]


def check_name(name: str) -> None:
    """Check that a name can be a node's.

    Raises:
        PoolError: If it cannot.
    """
    if not name or _BAD_NAME.search(name):
        fit = re.sub(r"[|:_\s]+", "-", name.strip()) or "expert-1"
        raise PoolError(
            f"expert name {name!r}: a name is not empty and has no '|', ':' or white space "
            f"(LangGraph reserves them); try {fit!r}"
        )
    if not name.isprintable():
        raise PoolError(f"expert name {name!r}: a name has no characters that cannot be seen")
    if name in RESERVED_NAMES or (name.startswith("__") and name.endswith("__")):
        raise PoolError(f"expert name {name!r} is reserved by the graph; choose another")


def _with_system(system: str | None, history: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Put the expert's system prompt before the conversation's, as one message: templates take one."""
    if system is None:
        return list(history)
    if history and isinstance(history[0], SystemMessage):
        return [SystemMessage(f"{system}\n\n{history[0].text}"), *history[1:]]
    return [SystemMessage(system), *history]


def _invoke(model: ChatRunnable, prompt: Any, config: RunnableConfig, **told: Any) -> Any:
    with configured(config):
        return model.invoke(prompt, config, **told)


async def _ainvoke(model: ChatRunnable, prompt: Any, config: RunnableConfig, **told: Any) -> Any:
    with configured(config):
        return await model.ainvoke(prompt, config, **told)
