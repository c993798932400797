"""An expert: a chat model with a name, a price and a way of receiving knowledge.

    question, answers ──ktp──> messages ──model──> Answer

One function turns a prompt into an `Answer`, for one question in the graph and for many at once in training,
so both see the same expert. A failing expert does not end the route: its answer says why it failed, and the
agent goes on with another. `expert_node.py` makes a node of it. Knows nothing of policies.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.cache.base import BaseCache, FullKey
from langgraph.errors import GraphBubbleUp
from langgraph.types import CachePolicy

from der_graph.errors import ExpertError, PoolError
from der_graph.nodes.fingerprints import fingerprint
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
    REFUSED,
    THOUGHT_MARKS,
    Failure,
    ProviderChat,
    ThoughtMarks,
    failure_of,
    finish_reason_of,
    split_thought,
)
from der_graph.nodes.quoting import writable
from der_graph.nodes.reliability import DeadlineError, call_limit, in_time, unless_late
from der_graph.nodes.streaming import Listener, write_event
from der_graph.nodes.tools import bare, calls_of, reads_tools, rebound, without_tools
from der_graph.nodes.values import extract_value, one_spelling
from der_graph.state import END_CHOICE, Answer, RouteStep, Task, answers_of

ChatRunnable = Runnable[Any, Any]
"""Takes a list of messages, gives an `AIMessage`: any chat model, bare or wrapped (`with_retry` ...)."""

RESERVED_NAMES = frozenset(
    {END_CHOICE, "der_agent", "der_approval", "answer", "__start__", "__end__"}
)
"""Names of the graph's own nodes and choices."""

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
        token_prices: Price per million input and output tokens, in the pool's unit, or None for a price
            per call.
        fingerprint: Identifies what the answers depend on (weights, generation settings), for caches.
        seconds: Usual time of one call, above 0, or None where it is not known: an expert that would not
            be done before a request's deadline is not asked.
        context_length: Most tokens that it reads, answer included for local models; None for what the
            model or its profile says. It is not asked what it cannot read.
        inputs: What it reads beside text: `image`, `audio`, `video`, `pdf`; what the model's profile says is
            added.
        thought_marks: What opens and closes a thought in its text; empty if it does not think aloud.

    Raises:
        PoolError: If the name or the cost cannot be used.
    """

    name: str
    model: ChatRunnable
    cost: float
    description: str = ""
    ktp: KTPTemplate | None = None
    system: str | None = None
    token_prices: tuple[float, float] | None = None
    fingerprint: str = ""
    seconds: float | None = None
    context_length: int | None = None
    inputs: frozenset[str] = frozenset()
    thought_marks: tuple[ThoughtMarks, ...] = THOUGHT_MARKS

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 0 <= self.cost < float("inf"):
            raise PoolError(f"expert '{self.name}': cost is {self.cost}; it must be a number >= 0")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise PoolError(
                f"expert '{self.name}': seconds is {self.seconds}; it must be a number above 0"
            )
        if self.context_length is not None and self.context_length < 1:
            raise PoolError(
                f"expert '{self.name}': context_length is {self.context_length}; it must be at least 1"
            )

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
            count_tokens=getattr(self.model, "count_tokens", None),
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

    @functools.cached_property
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
        if key not in self._called:
            if len(self._called) > 16:  # tools that are made anew for every call
                self._called.clear()
            model = equipped(self.model, settings or {})
            with contextlib.suppress(NotImplementedError):  # a function or a graph
                model = rebound(model, self._carefully)
            self._called[key] = model
        return self._called[key]

    def _carefully(self, chat: BaseChatModel) -> BaseChatModel:
        if getattr(chat, "reads_itself", False) or isinstance(chat, ProviderChat):
            return chat
        return ProviderChat(chat=chat, marks=self.thought_marks)

    @functools.cached_property
    def _called(self) -> dict[str, ChatRunnable]:
        return {}

    @functools.cached_property
    def identity(self) -> str:
        """What its answers depend on: its `fingerprint`, or that of its model where none was given."""
        return self.fingerprint or fingerprint(self.model)

    def charge(self, input_tokens: int, output_tokens: int) -> float:
        """What a call cost, in the pool's unit."""
        if self.token_prices is None:
            return self.cost
        per_input, per_output = self.token_prices
        return (input_tokens * per_input + output_tokens * per_output) / 1e6

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
        settings: Mapping[str, Any] | None = None,
    ) -> list[Answer]:
        """Ask one or many questions; many go to the model as one batch. Never raises for a failing model.

        Args:
            prompts: The prompts.
            config: Configuration of the call, or None.
            time_left: Seconds until the deadline; `nodes/reliability/deadline.py` says what is guaranteed.
            settings: What is asked of the model; see `der_graph.nodes.model_settings`.
        """
        start = time.perf_counter()
        model = self.called_with(settings)
        limit = call_limit(model, time_left)
        try:
            if len(prompts) == 1:
                results: list[Any] = [model.invoke(prompts[0], config, **limit)]
            else:
                results = model.batch(list(prompts), config, return_exceptions=True, **limit)
        except GraphBubbleUp:
            raise  # an interrupt inside a user's own expert, not a failure
        except Exception as error:
            results = [error] * len(prompts)
        seconds = (time.perf_counter() - start) / max(1, len(prompts))
        return [
            self.answer_from(unless_late(each, seconds, limit), seconds, settings)
            for each in results
        ]

    async def aask(
        self,
        prompt: list[BaseMessage],
        config: RunnableConfig | None = None,
        *,
        time_left: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Ask one question without blocking the event loop; see `ask`."""
        start = time.perf_counter()
        model = self.called_with(settings)
        limit = call_limit(model, time_left)
        try:
            call = model.ainvoke(prompt, config, **limit)
            result: Any = await in_time(call, None if limit else time_left)
        except GraphBubbleUp:
            raise
        except Exception as error:
            result = error
        seconds = time.perf_counter() - start
        return self.answer_from(unless_late(result, seconds, limit), seconds, settings)

    def answer_from(
        self, result: Any, seconds: float, settings: Mapping[str, Any] | None = None
    ) -> Answer:
        """Turn a model's result, or the exception that it raised, into an `Answer`."""
        if isinstance(result, Exception):
            late = isinstance(result, DeadlineError)
            failed = self._failed(str(result) if late else describe_error(result), seconds)
            kind, wait = Failure("timeout") if late else failure_of(result)
            failed["error_kind"] = kind
            if wait is not None:
                failed["retry_after"] = wait
            if kind in REFUSED:
                failed["cost"] = 0.0  # nobody began to answer
            return failed
        if result is None:  # a user's own function that forgot to return
            return self._failed("returned nothing", seconds)
        message = result if isinstance(result, BaseMessage) else AIMessage(str(result))
        text, fault = self._text_of(message)
        usage = getattr(message, "usage_metadata", None) or {}
        tokens_in = int(usage.get("input_tokens") or 0)
        tokens_out = int(usage.get("output_tokens") or 0)
        # Without a count of tokens the call is charged the most that it may have cost.
        cost = self.charge(tokens_in, tokens_out) if usage else self.cost
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
            value=extract_value(text) if known is None else one_spelling(str(known)) or None,
            cost=cost,
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
            answer["error_kind"] = "content_filter" if refused else "error"
        if (settings or {}).get("logprobs") and message.response_metadata.get("logprobs"):
            answer["logprobs"] = message.response_metadata["logprobs"]
        return answer

    def _text_of(self, message: BaseMessage) -> tuple[str, str | None]:
        """What a message says without its thought; and why it says nothing, where the thought took all."""
        text, thought = message.text.strip(), ""
        if not getattr(bare(self.model), "reads_itself", False):
            thought, text, _ = split_thought(text, self.thought_marks)
        thought = thought or str(message.additional_kwargs.get("reasoning_content") or "")
        return writable(text), _UNCLOSED if thought and not text else None

    def _failed(self, error: str, seconds: float) -> Answer:
        # A failed call is charged in full: the machine ran, or may have.
        return Answer(
            expert=self.name,
            text="",
            value=None,
            cost=self.cost,
            input_tokens=0,
            output_tokens=0,
            seconds=seconds,
            logprob=None,
            error=error,
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


def describe_error(error: BaseException) -> str:
    """One line about an exception, short enough for a log and without a traceback."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


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
    the route goes on, with today's decision and the price that the answer had. Failed answers are not kept.

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

    def put(self, key: FullKey, answer: Answer) -> None:
        """Keep an answer."""
        if answer["error"] is None:
            self.cache.set({key: (dict(answer), self.policy.ttl)})

    async def aput(self, key: FullKey, answer: Answer) -> None:
        """As `put`."""
        if answer["error"] is None:
            await self.cache.aset({key: (dict(answer), self.policy.ttl)})


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

    def how(task: Task) -> dict[str, Any]:
        return {"time_left": task.get("time_left"), "settings": task.get("settings")}

    def after(
        task: Task, answer: Answer, listener: Listener, config: RunnableConfig
    ) -> dict[str, Any]:
        if answer["error"] is not None and on_error == "raise":
            error = ExpertError(f"expert '{expert.name}': {answer['error']}")
            error.failure_kind = answer.get("error_kind")
            error.retry_after = answer.get("retry_after")
            raise error
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
            "shown": "" if answer["error"] is not None else listener.shown,
        }

    def call(task: Task, config: RunnableConfig) -> dict[str, Any]:
        listener, prompt = Listener(task, expert, config), before(task)
        key = None if kept is None else kept.key(task, expert, prompt)
        answer = None if kept is None or key is None else kept.get(key)
        if answer is None:
            (answer,) = expert.ask([prompt], listener.config, **how(task))
            if kept is not None and key is not None:
                kept.put(key, answer)
        return after(task, answer, listener, config)

    async def acall(task: Task, config: RunnableConfig) -> dict[str, Any]:
        listener, prompt = Listener(task, expert, config), before(task)
        key = None if kept is None else kept.key(task, expert, prompt)
        answer = None if kept is None or key is None else await kept.aget(key)
        if answer is None:
            answer = await expert.aask(prompt, listener.config, **how(task))
            if kept is not None and key is not None:
                await kept.aput(key, answer)
        return after(task, answer, listener, config)

    return RunnableLambda(call, acall, name=expert.name)


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
