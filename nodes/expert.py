"""An expert: a chat model with a name, a price and a way of receiving knowledge.

    question, answers ──ktp──> messages ──model──> Answer

One function turns a prompt into an `Answer`, for one question in the graph and for many at once in training,
so both see the same expert. A failing expert does not end the route: its answer says why it failed, and the
agent goes on with another. `expert_node.py` makes a node of it. Knows nothing of policies.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.errors import GraphBubbleUp

from der_graph.errors import ExpertError, PoolError
from der_graph.nodes.ktp import TEMPLATES, KTPTemplate, knowledge_text, ktp_messages, ktp_template
from der_graph.nodes.quoting import writable
from der_graph.nodes.reliability import DeadlineError, call_limit, in_time, unless_late
from der_graph.nodes.streaming import Listener, write_event
from der_graph.nodes.tools import calls_of, reads_tools, without_tools
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
        skill: How often it is right, from 0 to 1, in its owner's opinion; or that for each kind of question,
            by name. The planner begins with it.

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
    skill: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 0 <= self.cost < float("inf"):
            raise PoolError(f"expert '{self.name}': cost is {self.cost}; it must be a number >= 0")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise PoolError(
                f"expert '{self.name}': seconds is {self.seconds}; it must be a number above 0"
            )
        given = self.skill if isinstance(self.skill, Mapping) else {"": self.skill}
        for kind, skill in given.items():
            if skill is not None and not 0 <= skill <= 1:
                where = f" on '{kind}'" if kind else ""
                raise PoolError(
                    f"expert '{self.name}': skill{where} is {skill}; it is the share of questions that it "
                    "answers right, from 0 to 1"
                )

    def prompt(
        self,
        history: Sequence[BaseMessage],
        question: str,
        answers: Sequence[Answer],
        ktp: KTPTemplate,
        tail: Sequence[BaseMessage] = (),
    ) -> list[BaseMessage]:
        """The messages that the expert gets for a question and the answers so far.

        Args:
            history: The conversation before the question.
            question: The question.
            answers: Earlier answers of the route.
            ktp: The graph's template, used where the expert has none of its own.
            tail: Tool calls and results after the question; models that only read text get none of those.
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
        return messages

    def charge(self, input_tokens: int, output_tokens: int) -> float:
        """What a call cost, in the pool's unit."""
        if self.token_prices is None:
            return self.cost
        per_input, per_output = self.token_prices
        return (input_tokens * per_input + output_tokens * per_output) / 1e6

    def cache_key(self, messages: Sequence[BaseMessage]) -> str:
        """A digest of everything that a greedy answer depends on."""
        digest = hashlib.sha256(f"{self.name}\x00{self.fingerprint}".encode())
        for message in messages:
            digest.update(f"\x00{message.type}\x01{message.text}".encode())
        return digest.hexdigest()

    def ask(
        self,
        prompts: Sequence[list[BaseMessage]],
        config: RunnableConfig | None = None,
        *,
        time_left: float | None = None,
    ) -> list[Answer]:
        """Ask one or many questions; many go to the model as one batch. Never raises for a failing model.

        Args:
            prompts: The prompts.
            config: Configuration of the call, or None.
            time_left: Seconds until the deadline; `nodes/reliability/deadline.py` says what is guaranteed.
        """
        start = time.perf_counter()
        limit = call_limit(self.model, time_left)
        try:
            if len(prompts) == 1:
                results: list[Any] = [self.model.invoke(prompts[0], config, **limit)]
            else:
                results = self.model.batch(list(prompts), config, return_exceptions=True, **limit)
        except GraphBubbleUp:
            raise  # an interrupt inside a user's own expert, not a failure
        except Exception as error:
            results = [error] * len(prompts)
        seconds = (time.perf_counter() - start) / max(1, len(prompts))
        return [self.answer_from(unless_late(r, seconds, limit), seconds) for r in results]

    async def aask(
        self,
        prompt: list[BaseMessage],
        config: RunnableConfig | None = None,
        *,
        time_left: float | None = None,
    ) -> Answer:
        """Ask one question without blocking the event loop; see `ask`."""
        start = time.perf_counter()
        limit = call_limit(self.model, time_left)
        try:
            call = self.model.ainvoke(prompt, config, **limit)
            result: Any = await in_time(call, None if limit else time_left)
        except GraphBubbleUp:
            raise
        except Exception as error:
            result = error
        seconds = time.perf_counter() - start
        return self.answer_from(unless_late(result, seconds, limit), seconds)

    def answer_from(self, result: Any, seconds: float) -> Answer:
        """Turn a model's result, or the exception that it raised, into an `Answer`."""
        if isinstance(result, Exception):
            late = isinstance(result, DeadlineError)
            return self._failed(str(result) if late else describe_error(result), seconds)
        if result is None:  # a user's own function that forgot to return
            return self._failed("returned nothing", seconds)
        message = result if isinstance(result, BaseMessage) else AIMessage(str(result))
        text = writable(message.text.strip())
        usage = getattr(message, "usage_metadata", None) or {}
        tokens_in = int(usage.get("input_tokens") or 0)
        tokens_out = int(usage.get("output_tokens") or 0)
        # Without a count of tokens the call is charged the most that it may have cost.
        cost = self.charge(tokens_in, tokens_out) if usage else self.cost
        calls = calls_of(message)
        error = None if text or calls else "returned an empty answer"
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
        return answer

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


def expert_node(
    expert: Expert, ktp: KTPTemplate = TEMPLATES["default"], *, on_error: str = "continue"
) -> Runnable[Task, dict[str, Any]]:
    """Make the graph node of an expert.

    Args:
        expert: The expert.
        ktp: The graph's template.
        on_error: `continue` records a failure in the route and lets the agent choose again; `raise` raises
            `ExpertError`, for graphs whose owner prefers LangGraph's own retries (by default those leave
            out errors of this kind: `RetryPolicy(retry_on=ExpertError)`).

    Returns:
        A runnable from the edge's `Task` to a state update, synchronous and asynchronous.
    """

    def template(task: Task) -> KTPTemplate:
        return ktp if not task.get("ktp") else ktp_template(task["ktp"])

    def before(task: Task) -> list[BaseMessage]:
        answers = answers_of(task["route"])
        tail = task.get("tail", [])  # not in tasks of older checkpoints
        return expert.prompt(task["messages"], task["question"], answers, template(task), tail)

    def after(
        task: Task, answer: Answer, listener: Listener, config: RunnableConfig
    ) -> dict[str, Any]:
        if answer["error"] is not None and on_error == "raise":
            raise ExpertError(f"expert '{expert.name}': {answer['error']}")
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
        listener = Listener(task, expert, config)
        (answer,) = expert.ask([before(task)], listener.config, time_left=task.get("time_left"))
        return after(task, answer, listener, config)

    async def acall(task: Task, config: RunnableConfig) -> dict[str, Any]:
        listener = Listener(task, expert, config)
        answer = await expert.aask(before(task), listener.config, time_left=task.get("time_left"))
        return after(task, answer, listener, config)

    return RunnableLambda(call, acall, name=expert.name)
