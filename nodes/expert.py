"""An expert, and its node in the graph.

    question, answers ──ktp──> messages ──model──> Answer ──> the route, one step longer

`Expert` is a chat model with a name, a price and a way of receiving knowledge. One function turns a prompt
into an `Answer`, for one question in the graph and for many at once in training, so both see the same
expert. A failing expert does not end the route: its answer says why it failed, and the agent goes on with
another; how a call is kept from doing harm is in `nodes/reliability`. The node of an expert is one step of
the route.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.cache.base import BaseCache, FullKey
from langgraph.errors import GraphBubbleUp
from langgraph.types import CachePolicy

from der_graph.errors import AllExpertsFailedError, ExpertError, PoolError
from der_graph.nodes.fingerprint import fingerprint_of
from der_graph.nodes.ktp import TEMPLATES, KTPTemplate, knowledge_text, ktp_messages, ktp_template
from der_graph.nodes.model_settings import (
    FORMAT_ERROR,
    can_call_tools,
    context_length_of,
    equipped,
    inputs_known,
    inputs_of,
    json_asked,
    json_fault,
    modalities,
    schema_of,
    wants_tools,
    without_blocks,
    writes_json,
)
from der_graph.nodes.providers import (
    THOUGHT_MARKS,
    ProviderChat,
    ThoughtMarks,
    finish_reason_of,
    split_thought,
)
from der_graph.nodes.reliability import (
    DEFAULT_TIMEOUT,
    Failure,
    FailureKind,
    Fallback,
    Health,
    call_limit,
    failure_of,
    is_free,
    is_passing,
    is_stale,
    limit_of,
    unless_late,
)
from der_graph.nodes.reliability.calls import acall, acall_task, call, runs_on_loop
from der_graph.nodes.reliability.charge import CallSize, Charge, TokenPrices, token_prices
from der_graph.nodes.reliability.deadline import Limit, TimeLimitError
from der_graph.nodes.reliability.node import Node
from der_graph.nodes.reliability.redaction import mask_secrets
from der_graph.nodes.reliability.spending import (
    TooLongError,
    can_be_bounded,
    no_longer_than,
    priced,
)
from der_graph.nodes.streaming import Listener, is_streamed, write_event
from der_graph.nodes.tools import bare, calls_of, reads_tools, rebound, without_tools
from der_graph.nodes.values import extract_value, is_refusal, one_spelling
from der_graph.nodes.values.quoting import writable
from der_graph.state import END_CHOICE, Answer, RouteStep, Task, answers_of

ChatRunnable = Runnable[Any, Any]
"""Takes a list of messages, gives an `AIMessage`: any chat model, bare or wrapped (`with_retry` ...)."""

RESERVED_NAMES = frozenset(
    {END_CHOICE, "der_agent", "der_approval", "der_together", "answer", "__start__", "__end__"}
)
"""Names of the graph's own nodes and choices."""

MAX_ANSWER_CHARS = 100_000
"""Longest answer where nothing else is said: some 25,000 tokens."""

_BAD_NAME = re.compile(r"[|:\s]")


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
        PoolError: If the name, the cost or a time cannot be used.
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
        self.health.breaker.name = self.name
        if not 0 <= self.cost < float("inf"):
            raise PoolError(f"expert '{self.name}': cost is {self.cost}; it must be a number >= 0")
        if self.max_answer_chars < 1:
            raise PoolError(
                f"expert '{self.name}': max_answer_chars is {self.max_answer_chars}; it must be at least 1"
            )
        prices = token_prices(self.token_prices)
        if prices is not None:
            # Frozen: the only place where a call can be kept within its price.
            object.__setattr__(self, "model", priced(self.model, prices[:2], self.cost))
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise PoolError(
                f"expert '{self.name}': seconds is {self.seconds}; it must be a number above 0"
            )
        if not 0 <= self.second_price < float("inf"):
            raise PoolError(
                f"expert '{self.name}': second_price is {self.second_price}; it must be a number >= 0"
            )
        if self.timeout is not None and not self.timeout > 0:
            raise PoolError(
                f"expert '{self.name}': timeout is {self.timeout}; it must be a number of seconds above 0, "
                "or infinity for no limit"
            )
        given = self.skill if isinstance(self.skill, Mapping) else {"": self.skill}
        for kind, skill in given.items():
            if skill is not None and not 0 <= skill <= 1:
                where = f" on '{kind}'" if kind else ""
                raise PoolError(
                    f"expert '{self.name}': skill{where} is {skill}; it is the share of questions that it "
                    "answers right, from 0 to 1"
                )
        if self.context_length is not None and self.context_length < 1:
            raise PoolError(
                f"expert '{self.name}': context_length is {self.context_length}; it must be at least 1"
            )

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

    def _limit(self, time_left: float | None, fallback: Fallback) -> Limit:
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
            text = messages[at].text
            words = [{"type": "text", "text": text}] if text.strip() else []
            messages[at] = HumanMessage([*words, *map(dict, attachments)])
        if schema_of(settings) is not None:
            messages[-1] = json_asked(messages[-1], settings, answers, writes_json(self.model))
        return messages

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
        size = size_of(answer)
        if size.input or size.output or self.token_prices is None:
            return self.charge.of(size)
        return Charge(self.cost, None, self.second_price).of(size)

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
        local = bare(self.model)
        limit = self.longest_prompt
        size = sum(len(message.text.encode()) + 16 for message in messages)
        if limit is None or size < limit // 2:
            return True  # no tokenizer makes more tokens than there are bytes
        count = getattr(local, "count_prompt", None)
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
            model = equipped(self.model, settings or {})
            with contextlib.suppress(NotImplementedError):  # a function or a graph
                model = rebound(model, self._carefully)
            # The settings stay alive: the key may name objects of theirs by their address.
            known = self._called[key] = (settings, model)
        return known[1]

    def _carefully(self, chat: BaseChatModel) -> BaseChatModel:
        if getattr(chat, "reads_itself", False) or isinstance(chat, ProviderChat):
            return chat
        return ProviderChat(chat=chat, marks=self.thought_marks)

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
        attempt = _Attempt(self, time_left, fallback, insist, spoken, settings)
        # It has a thread of its own, and ends in time.
        inline = self.is_local and self.timeout is None
        while True:
            with attempt:
                work = partial(model.invoke, prompts[0], config, **attempt.told)
                if inline:
                    result = attempt.made(work)
                else:
                    result = call(partial(attempt.made, work), self.health.bulkhead, attempt.limit)
            answer, wait = attempt.answer(result)
            if wait is None:
                return [answer]
            time.sleep(wait)

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
        try:
            results = model.batch(list(prompts), config, return_exceptions=True, **told)
        except GraphBubbleUp:
            raise
        except Exception as error:
            results = [error] * len(prompts)
        seconds = (time.perf_counter() - start) / max(1, len(prompts))
        return [
            self.answer_from(unless_late(each, seconds, told), seconds, settings=settings)
            for each in results
        ]

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
        attempt = _Attempt(self, time_left, fallback, insist, spoken, settings)
        bulkhead = self.health.bulkhead
        on_loop = self._streams_on_loop if is_streamed(config) else self._runs_on_loop
        while True:
            with attempt:
                if on_loop:
                    later = partial(model.ainvoke, prompt, config, **attempt.told)
                    # Local ones have a line of their own.
                    place = None if self.is_local else bulkhead
                    result = await acall_task(partial(attempt.amade, later), place, attempt.limit)
                else:
                    work = partial(model.invoke, prompt, config, **attempt.told)
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
        """Turn a model's result, or the exception that it raised, into an `Answer`.

        Args:
            result: What the model gave or raised.
            seconds: How long it took.
            spoken: Had a first token come?
            settings: What was asked of the model.
        """
        if isinstance(result, TooLongError):
            result = AIMessage(result.text)
        if isinstance(result, BaseException):
            failure = failure_of(result)
            if isinstance(result, TimeLimitError):
                failure = failure._replace(text=str(result))
            return self._failed(failure, seconds, spoken=spoken)
        if result is None:  # a user's own function that forgot to return
            return self._failed(Failure("empty", "returned nothing"), seconds)
        message = result if isinstance(result, BaseMessage) else AIMessage(str(result))
        text, fault = self._text_of(message)
        usage = getattr(message, "usage_metadata", None) or {}
        tokens_in = int(usage.get("input_tokens") or 0)
        tokens_out = int(usage.get("output_tokens") or 0)
        cached = int((usage.get("input_token_details") or {}).get("cache_read") or 0)
        calls = calls_of(message)
        finish = finish_reason_of(message)
        error = None if text or calls else fault or "returned an empty answer"
        schema = schema_of(settings or {})
        if error is None and schema is not None and not calls and finish != "length":
            text, wrong = json_fault(text, schema)
            error = None if wrong is None else f"{FORMAT_ERROR} ({wrong})"
        known = message.response_metadata.get("der_value")  # recorded experts know what counts
        answer = Answer(
            expert=self.name,
            text=text,
            value=_value_of(text) if known is None else one_spelling(str(known)) or None,
            cost=0.0,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            seconds=seconds,
            logprob=mean_logprob(message),
            error=error,
        )
        if calls:
            answer["tool_calls"] = calls
        if finish is not None:
            answer["finish_reason"] = finish
        if error is not None:
            refused = not text and finish == "content_filter"
            answer["failure"] = "content_filter" if refused else "error" if text else "empty"
        if (settings or {}).get("logprobs") and message.response_metadata.get("logprobs"):
            answer["logprobs"] = message.response_metadata["logprobs"]
        if cached:
            answer["cached_tokens"] = cached
        version = model_version(message)
        if version:
            answer["version"] = version
        answer["cost"] = self.cost_of(answer)
        return answer

    def _text_of(self, message: BaseMessage) -> tuple[str, str | None]:
        """What a message says without its thought; and why it says nothing, where the thought took all."""
        text, thought = message.text.strip(), ""
        if not getattr(bare(self.model), "reads_itself", False):
            thought, text, _ = split_thought(text, self.thought_marks)
        thought = thought or str(message.additional_kwargs.get("reasoning_content") or "")
        text = writable(text)[: self.max_answer_chars].strip()
        return text, _UNCLOSED if thought and not text else None

    def _failed(self, failure: Failure, seconds: float, *, spoken: bool = False) -> Answer:
        # Charged in full where the machine ran, or may have.
        free = is_free(failure.kind, spoken=spoken or self.is_local)
        answer = Answer(
            expert=self.name,
            text="",
            value=None,
            cost=0.0 if free else self.cost,
            input_tokens=0,
            output_tokens=0,
            seconds=seconds,
            logprob=None,
            error=mask_secrets(failure.text),  # providers repeat keys in their errors
            failure=failure.kind,
        )
        if failure.retry_after is not None:
            answer["retry_after"] = failure.retry_after
        return answer


def _value_of(text: str) -> str | None:
    """The part that counts; "I do not know" agrees with nobody."""
    return None if is_refusal(text) else extract_value(text)


def model_version(message: BaseMessage) -> str:
    """What a provider says of the model that answered: its dated name and its system's fingerprint."""
    said = (
        message.response_metadata.get(key) for key in ("model_name", "model", "system_fingerprint")
    )
    return " ".join(dict.fromkeys(str(part) for part in said if part))


def size_of(answer: Answer) -> CallSize:
    """What the call of an answer used."""
    return CallSize(
        answer["input_tokens"],
        answer.get("cached_tokens", 0),
        answer["output_tokens"],
        answer["seconds"],
    )


_BYTES_PER_TOKEN = (
    5.0  # more than in most texts: a provider's refusal costs nothing, a wrong mask does
)
_UNCLOSED = "thought to the end and gave no answer; allow it more tokens"


def check_name(name: str) -> None:
    """Check that a name can be a node's.

    Raises:
        PoolError: If it cannot.
    """
    if not name or _BAD_NAME.search(name):
        raise PoolError(
            f"expert name {name!r}: a name is not empty and has no '|', ':' or white space "
            f"(LangGraph reserves them); try {re.sub(r'[|:_ ]+', '-', name.strip()) or 'expert-1'!r}"
        )
    if name in RESERVED_NAMES:
        raise PoolError(f"expert name {name!r} is reserved by the graph; choose another")


_RETRY_WAIT = 0.5
_LONGEST_RETRY_WAIT = 5.0


class _Attempt:
    """One question to one expert: at most two calls, their limit, and what its health is told of them.

    Entered once for every call, which then has what is left of the time. Calls are numbered, and health is
    told once of each: a call that was given up may still fail later.

    Args:
        expert: Who is asked.
        time_left: As in `Expert.ask`.
        fallback: As in `Expert.ask`.
        insist: As in `Expert.ask`.
        spoken: As in `Expert.ask`.
    """

    def __init__(
        self,
        expert: Expert,
        time_left: float | None,
        fallback: Fallback,
        insist: bool,
        spoken: Callable[[], bool],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = settings
        self._expert, self._health = expert, expert.health
        self._insist, self._spoken = insist, spoken
        self._time_left, self._fallback = time_left, fallback
        self._start = self._began = time.perf_counter()
        self._may_retry = fallback == "none"
        self._lock = threading.Lock()
        # Numbers: of this call, and of the last that health was told of.
        self._call = self._told_call = 0
        self.told: dict[str, Any] = {}
        self.limit = Limit(None)

    def __enter__(self) -> None:
        self._call += 1
        self._began = time.perf_counter()
        left = self._time_left
        if left is not None:
            left -= self._began - self._start
        expert = self._expert
        limit = expert._limit(left, self._fallback)
        self.told = call_limit(expert.model, limit.seconds if limit.deadline else None)
        # A model that was told the time left ends in time by itself.
        self.limit = Limit(None) if self.told and expert.timeout is None else limit

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Not the expert's: the caller has left, or the graph is interrupted.
        if error is not None and self._first_told(self._call):
            self._health.breaker.leave()

    def made(self, work: Callable[[], Any]) -> Any:
        """Make the call where the breaker lets it through; gives what the model gave or raised."""
        number = self._call
        if not self._health.breaker.enter(insist=self._insist):
            return self._shut(number)
        try:
            return work()
        except Exception as error:
            return self._raised(error, number)

    async def amade(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """As `made`."""
        number = self._call
        if not self._health.breaker.enter(insist=self._insist):
            return self._shut(number)
        try:
            try:
                return await work()
            except RuntimeError as error:
                if self._spoken() or not is_stale(error):
                    raise
                return await work()
        except Exception as error:
            return self._raised(error, number)

    def _first_told(self, number: int) -> bool:
        """Is this the first that health is told of a call?"""
        with self._lock:
            first, self._told_call = number > self._told_call, max(number, self._told_call)
            return first

    def _raised(self, error: Exception, number: int) -> Any:
        if isinstance(error, TooLongError):  # not a failure: what it said until then is the answer
            return AIMessage(error.text)
        # At once, and not when the caller's turn comes: others may be about to make the same call.
        if not isinstance(error, GraphBubbleUp) and self._first_told(number):
            failure = failure_of(error)
            self._health.failed(
                failure.kind, limit=self.limit.seconds, retry_after=failure.retry_after
            )
        return error

    def _shut(self, number: int) -> ExpertError:
        self._first_told(number)
        seen = self._health.breaker.view()
        error: Any = ExpertError(
            f"not asked: it failed {seen.failures} times in a row ({seen.kind})"
        )
        error.failure_kind = "open"
        return error  # type: ignore[no-any-return]

    def answer(self, result: Any) -> tuple[Answer, float | None]:
        """The answer, and the seconds after which the call should be made once more; None for not at all."""
        if isinstance(result, GraphBubbleUp):
            raise result
        now = time.perf_counter()
        seconds = now - self._start
        result = unless_late(result, now - self._began, self.told)
        try:
            answer = self._expert.answer_from(
                result, seconds, spoken=self._spoken(), settings=self._settings
            )
        except Exception as error:  # a message with odd metadata
            answer = self._expert.answer_from(error, seconds)
        first = self._first_told(self._call)
        if "failure" not in answer:
            self._health.answered(seconds)
            return answer, None
        kind: Any = answer["failure"]
        if first:
            self._health.failed(kind, limit=self.limit.seconds)
        wait = self._pause(kind, result, seconds)
        self._may_retry = False
        return answer, wait

    def _pause(self, kind: FailureKind, result: Any, spent: float) -> float | None:
        if not self._may_retry or not is_passing(kind) or self._spoken():
            return None
        asked = failure_of(result).retry_after if isinstance(result, BaseException) else None
        wait = _RETRY_WAIT if asked is None else max(asked, 0.1)
        late = self.limit.seconds is not None and spent + wait >= self.limit.seconds
        return None if late or wait > _LONGEST_RETRY_WAIT else wait


def mean_logprob(message: BaseMessage) -> float | None:
    """Mean log-probability of the generated tokens, where the backend reports it.

    Reads this package's own `mean_logprob`, or the token list of OpenAI-compatible servers (`logprobs=True`).
    """
    metadata = message.response_metadata
    own = metadata.get("mean_logprob")
    if own is not None:
        return float(own)
    given = metadata.get("logprobs")
    tokens = (given.get("content") or []) if isinstance(given, Mapping) else []
    values = [float(token["logprob"]) for token in tokens if token.get("logprob") is not None]
    return sum(values) / len(values) if values else None


def _with_system(system: str | None, history: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Put the expert's system prompt before the conversation's, as one message: templates take one."""
    if system is None:
        return list(history)
    if history and isinstance(history[0], SystemMessage):
        return [SystemMessage(f"{system}\n\n{history[0].text}"), *history[1:]]
    return [SystemMessage(system), *history]


_BY_TASK: Any = (
    CachePolicy().key_func
)  # LangGraph's own, which finds no task twice: they hold times


@dataclass(frozen=True)
class NodeCache:
    """LangGraph's node cache, for experts: what is kept is the answer, and not what the node wrote.

    A node that LangGraph itself skips writes what it wrote then: an old route with an old decision. Here
    the route goes on, with today's decision and the price that the answer had. Failed answers are not kept,
    nor are those that a deadline may have cut short.

    Attributes:
        cache: The graph's cache.
        policy: The node's. Without a `key_func` of one's own, answers are found by the whole prompt and the
            request's settings; one that takes the task may say less, such as `lambda task: task["question"]`.
    """

    cache: BaseCache[Any]
    policy: CachePolicy[Any]

    def key(self, task: Task, expert: Expert, prompt: Sequence[BaseMessage]) -> FullKey:
        """Where an answer is kept: apart for every expert and whatever its answers depend on."""
        own = self.policy.key_func
        text = expert.cache_key(prompt, task.get("settings"))
        if own is not _BY_TASK:
            given = own(task)
            text = given if isinstance(given, str) else given.hex()
        return ("der_graph", expert.name, expert.identity), text

    def get(self, key: FullKey) -> Answer | None:
        """The answer that was kept."""
        return _again(self.cache.get([key]).get(key))

    async def aget(self, key: FullKey) -> Answer | None:
        """As `get`."""
        return _again((await self.cache.aget([key])).get(key))

    def put(self, key: FullKey, answer: Answer, time_left: float | None = None) -> None:
        """Keep an answer, if it is worth it; see `worth_keeping`."""
        if worth_keeping(answer, time_left):
            self.cache.set({key: (dict(answer), self.policy.ttl)})

    async def aput(self, key: FullKey, answer: Answer, time_left: float | None = None) -> None:
        """As `put`."""
        if worth_keeping(answer, time_left):
            await self.cache.aset({key: (dict(answer), self.policy.ttl)})


def worth_keeping(answer: Answer, time_left: float | None) -> bool:
    """Is an answer worth keeping in a cache? Not if it failed, or may have been cut short by a deadline.

    Args:
        answer: The answer.
        time_left: Seconds that there were until the request's deadline, or None.
    """
    return answer["error"] is None and (time_left is None or answer["seconds"] < 0.9 * time_left)


def _again(found: Any) -> Answer | None:
    """An answer that took no time now."""
    return None if found is None else cast(Answer, {**found, "seconds": 0.0})


def expert_node(
    expert: Expert,
    ktp: KTPTemplate = TEMPLATES["default"],
    *,
    on_error: str = "continue",
    kept: NodeCache | None = None,
) -> Runnable[Task, dict[str, Any]]:
    """Make the graph node of an expert.

    Args:
        expert: The expert.
        ktp: The graph's template.
        on_error: `continue` records a failure in the route and lets the agent choose again; `raise` raises
            `ExpertError`, for graphs whose owner prefers LangGraph's own retries (by default those leave
            out errors of this kind: `RetryPolicy(retry_on=ExpertError)`).
        kept: Answers that were given before, where LangGraph's node cache is used; see `NodeCache`.

    Returns:
        A runnable from the edge's `Task` to a state update, synchronous and asynchronous.
    """

    def template(task: Task) -> KTPTemplate:
        return ktp if not task.get("ktp") else ktp_template(task["ktp"])

    def before(task: Task) -> list[BaseMessage]:
        answers = answers_of(task["route"])
        return expert.prompt(
            task["messages"],
            task["question"],
            answers,
            template(task),
            task.get("tail", []),  # not in tasks of older checkpoints
            attachments=task.get("attachments", ()),
            settings=task.get("settings"),
        )

    def after(
        task: Task, answer: Answer, listener: Listener, config: RunnableConfig
    ) -> dict[str, Any]:
        listener.close()
        if answer["error"] is not None and on_error == "raise":
            error = ExpertError(f"expert '{expert.name}': {answer['error']}")
            error.failure_kind = answer.get("failure")
            error.retry_after = answer.get("retry_after")
            raise error
        if answer["error"] is not None and listener.shown:
            raise _broken_off(expert.name, answer["error"], task.get("fallback", "none"))
        if answer["error"] is None and (seen := listener.message_id(answer["text"])):
            answer = Answer(**{**answer, "message_id": seen})
        step = RouteStep(**task["decision"], answer=answer)
        write_event(config, "der.answer", {"step": step["step"], **answer})
        route = [*task["route"], step]
        return {
            "question": task["question"],
            "question_id": task["question_id"],
            "route": route,
            "knowledge": knowledge_text(task["question"], answers_of(route), template(task)),
            "cost": step["spent"] + answer["cost"],
            "answer": "",
            "refused": task.get("refused", []),
        }

    def terms(task: Task, listener: Listener) -> dict[str, Any]:
        return {
            "time_left": task.get("time_left"),
            "fallback": task.get("fallback", "none"),
            "insist": task.get("insist", True),
            "spoken": lambda: listener.spoken,
            "settings": task.get("settings"),
        }

    def ask(task: Task, config: RunnableConfig) -> dict[str, Any]:
        listener = Listener(task, expert, config)
        try:
            prompt = before(task)
            key = None if kept is None else kept.key(task, expert, prompt)
            answer = None if kept is None or key is None else kept.get(key)
            if answer is None:
                (answer,) = expert.ask([prompt], listener.config, **terms(task, listener))
                if kept is not None and key is not None:
                    kept.put(key, answer, task.get("time_left"))
        finally:
            listener.close()
        return after(task, answer, listener, config)

    async def aask(task: Task, config: RunnableConfig) -> dict[str, Any]:
        listener = Listener(task, expert, config)
        try:
            if expert.counts_tokens:  # not on the event loop
                prompt = await asyncio.wrap_future(
                    expert.health.bulkhead.run(partial(before, task))
                )
            else:
                prompt = before(task)
            key = None if kept is None else kept.key(task, expert, prompt)
            answer = None if kept is None or key is None else await kept.aget(key)
            if answer is None:
                answer = await expert.aask(prompt, listener.config, **terms(task, listener))
                if kept is not None and key is not None:
                    await kept.aput(key, answer, task.get("time_left"))
        finally:
            listener.close()
        return after(task, answer, listener, config)

    return Node(expert.name, ask, aask)


def _broken_off(name: str, error: str, fallback: Fallback) -> ExpertError:
    """What ends a stream whose reader has seen the beginning of an answer that never came."""
    if fallback == "none":
        return AllExpertsFailedError(f"no expert could answer ({name}: {error})")
    return ExpertError(
        f"expert '{name}' broke off in mid-answer, when its first words had been streamed ({error}); ask "
        "again without stream_tokens='live' to get another answer in its place"
    )


def unable_experts(experts: Sequence[Expert], ktp: KTPTemplate, task: Task) -> dict[str, str]:
    """The experts that need not be asked, by name, and why: `no_tools`, `no_inputs` or `context_length`.

    Args:
        experts: The pool.
        ktp: The graph's template.
        task: What is asked; its decision is not looked at.
    """
    settings, attachments = task.get("settings") or {}, task.get("attachments") or []
    wants = modalities([HumanMessage(list(attachments))]) if attachments else set()
    answers = answers_of(task["route"])
    texts = [task["question"], *(answer["text"] for answer in answers)]
    texts += [message.text for message in (*task["messages"], *task["tail"])]
    size = sum(map(len, texts))
    found = {}
    for expert in experts:
        limit = expert.longest_prompt
        if wants_tools(settings) and not can_call_tools(expert.model):
            found[expert.name] = "no_tools"
        elif wants - expert.reads:
            found[expert.name] = "no_inputs"
        elif limit is not None and 4 * size > limit // 4:  # else there is nothing to count
            template = ktp if not task.get("ktp") else ktp_template(task["ktp"])
            prompt = expert.prompt(
                task["messages"],
                task["question"],
                answers,
                template,
                task["tail"],
                attachments=attachments,
                settings=settings,
            )
            if not expert.can_read(prompt):
                found[expert.name] = "context_length"
    return found
