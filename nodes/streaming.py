"""Who hears the tokens of an expert while it speaks, and the events of a route.

    stream_tokens="final"   the `messages` stream has the final answer only; drafts are `der.draft` events
    stream_tokens="live"    the same, sooner: an answer that nobody follows is shown as it comes
    stream_tokens="all"     it has every expert's tokens, with `der_expert` and `der_step`

With `final` what a reader has seen is the answer, always. So tokens are shown as they come only where nothing
could take their place: no earlier answer, and nobody else to ask; or a local model, which does not break off.
In `live` an expert that breaks off after its first words ends the stream with an error, where `invoke` gives
another answer.

Tokens are heard where something streams `messages`; elsewhere models answer in one piece. Of an expert the
tokens of its chat models are heard and nothing else: LangGraph would also show what any run gave that bears
the node's name.

Events of `stream_mode="custom"`, as they happen:

    {"type": "der.decision", **Decision}                       the agent has chosen
    {"type": "der.draft", "expert", "step", "text"}            a token of an answer that may not be the last
    {"type": "der.answer", "step": int, **Answer}              an expert has answered, or failed
    {"type": "der.final", "expert", "text", "message_id", "experts", "cost", "seconds"}   the route has ended
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_core.callbacks import (
    AsyncCallbackManager,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import set_config_context
from langchain_core.runnables.retry import RunnableRetry
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langgraph.config import get_stream_writer
from langgraph.constants import TAG_NOSTREAM

from der_graph.errors import PoolError
from der_graph.nodes.model_settings import schema_of
from der_graph.nodes.providers.characters import writable
from der_graph.nodes.providers.chat import says_something
from der_graph.nodes.reliability import Bounded, Fallback, StreamClosedError
from der_graph.nodes.reliability.threads import CLOSED, STOPS, check_open
from der_graph.nodes.rules import RouteRules
from der_graph.nodes.values.json_form import FENCE, opened, unfenced
from der_graph.state import (
    END_CHOICE,
    Answer,
    Audience,
    DERContext,
    StreamTokens,
    Task,
    blank_answer,
)

if TYPE_CHECKING:
    from der_graph.nodes.expert import Expert

TAG = "der"
"""Tag of the runs of decisions and experts, to filter traces by."""

DECISION = "der_decision"
"""Name of the runs of decisions."""


@dataclass(frozen=True)
class Audiences:
    """Decides who hears an expert.

    Attributes:
        rules: The rules of the route.
        stream_tokens: What holds where the request says nothing.
        token_priced: Experts whose calls may cost less than their price.
        votes: Does the agent choose among the answers at the end? Then none is the final one for certain.
        steady: Experts that do not break off in mid-answer: local models.
    """

    rules: RouteRules
    stream_tokens: StreamTokens = "final"
    token_priced: frozenset[str] = frozenset()
    votes: bool = False
    steady: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.stream_tokens not in get_args(StreamTokens):
            allowed = ", ".join(map(repr, get_args(StreamTokens)))
            raise PoolError(f"stream_tokens is {self.stream_tokens!r}; allowed: {allowed}")

    def of(
        self,
        choice: str,
        answers: Sequence[Answer],
        context: DERContext,
        *,
        fallback: Fallback,
        spent: float,
        elapsed: float,
        refused: Collection[str] = (),
        unavailable: Collection[str] = (),
        unable: Mapping[str, str] | None = None,
    ) -> Audience:
        """Who hears this expert; arguments as those of `RouteRules.mask`, and what there is if it fails.

        What is allowed only shrinks as a route goes on, but for experts that fail again and again: they may
        be back by then, and are asked where nobody else is left. So an expert that could not be followed by
        another even if those were there, it answered at once, and at the least that it may cost, is the last
        for certain.
        """
        mode = context.stream_tokens or self.stream_tokens
        if mode == "all" or choice == END_CHOICE:
            return "all"
        asked = {each["expert"] for each in answers if each.get("failure") != "open"}
        shut_out = {each["expert"] for each in answers} - asked
        waiting = (shut_out | set(unavailable)) - asked - {choice} - self.rules.barred(context)
        alone = fallback == "none" and not waiting
        certain = mode == "live" or alone or choice in self.steady
        if self.votes or not certain:
            return "draft"
        least = spent + (0.0 if choice in self.token_priced else self.rules.prices[choice])
        answered = [*answers, blank_answer(choice)]
        mask, _ = self.rules.mask(
            answered,
            context,
            spent=least,
            elapsed=elapsed,
            refused=refused,
            unable=unable,
        )
        return "draft" if any(mask[:-1]) else "final"


class Trimmed:
    """A growing text without the white space at its ends, as an answer has none.

    Args:
        most: Characters, at most: what goes on is cut off, as in the answer.

    Attributes:
        text: What there is of it.
    """

    def __init__(self, most: float = math.inf) -> None:
        self.text = ""
        self._held = ""
        self._most = most

    def add(self, text: str) -> str:
        """Add to it; gives what may be shown now."""
        self._held += text if self.text else text.lstrip()
        new = self._held.rstrip()
        self._held = self._held[len(new) :]
        if len(self.text) + len(new) > self._most:
            new = new[: max(0, int(self._most) - len(self.text))].rstrip()
            self._most = 0  # that is all
        self.text += new
        return new

    def whole(self, text: str) -> str:
        """What may be shown of a whole text."""
        return text.strip()


class Unfenced(Trimmed):
    """The same of JSON: without a code fence around it, as answers in a form that was asked for have none."""

    def __init__(self, most: float = math.inf) -> None:
        super().__init__(most)
        self._begun = ""
        self._fenced: bool | None = None  # not known yet
        self._end = ""

    def add(self, text: str) -> str:
        """Add to it; gives what may be shown now."""
        if self._fenced is None:
            self._begun = (self._begun + text).lstrip()
            if FENCE.startswith(self._begun.lower()):
                return ""
            text = opened(self._begun)
            self._fenced = text != self._begun
        if self._fenced:
            text = self._end + text
            kept = text.rstrip()
            marks = min(3, len(kept) - len(kept.rstrip("`")))
            kept = kept[: len(kept) - marks].rstrip()
            text, self._end = kept, text[len(kept) :]
        return super().add(text)

    def whole(self, text: str) -> str:
        """What may be shown of a whole text."""
        return unfenced(text)


class Listener(BaseCallbackHandler):
    """Hears the tokens of one call of an expert, and stops it when nobody waits for it any more.

    Args:
        task: The call.
        expert: Whom it asks.
        config: The node's configuration.
    """

    # In the thread that generates: tokens keep their order, and an error stops it.
    run_inline = True
    ignore_chain = True

    def __init__(self, task: Task, expert: Expert, config: RunnableConfig) -> None:
        self.expert, self.step = expert.name, task["decision"]["step"]
        self._cost = expert.cost
        self.audience: Audience = task.get("audience", "all")  # not in tasks of older checkpoints
        if self.audience == "final" and not speaks_once(expert.model):
            self.audience = "draft"
        self.closed, self._why = False, CLOSED
        self.spoken = False
        settings = task.get("settings") or {}
        shown = Trimmed if schema_of(settings) is None else Unfenced
        self._shown = shown(expert.max_answer_chars)
        self._node_config = config
        self._stops = STOPS.get()
        self._said: dict[str, str] = {}
        self._last_id: str | None = None
        self._streams = False

    @property
    def config(self) -> RunnableConfig:
        """What to call the model with: tags and metadata for traces and streams, and this listener."""
        manager = callbacks_of(self._node_config, self.step)
        told = {"der_expert": self.expert, "der_step": self.step, "der_cost": self._cost}
        manager.add_metadata(told)
        if self.audience == "draft":
            manager.add_tags([TAG_NOSTREAM])
        for handler in list(manager.handlers):
            if streams_messages(handler):
                self._streams = True
                manager.remove_handler(handler)
                manager.add_handler(_tokens_only(handler, self))
        manager.add_handler(self)
        # There too, where it takes precedence: another expert may be asked in this one's node.
        metadata = {**self._node_config.get("metadata", {}), **told}
        return {**self._node_config, "callbacks": manager, "metadata": metadata}

    def as_seen(self, answer: Answer) -> Answer:
        """An answer as the stream's readers know it: what they were shown, by the id of its message."""
        if not self._streams or self.audience == "draft":
            return answer
        text = answer["text"]
        if not text.startswith(self.shown):
            text = self.shown  # a thought after all, which nobody could know while it was shown
        changed = Answer(**{**answer, "text": text})
        seen = self._said.get(text)
        if (
            seen is None and text == self.shown
        ):  # its end was never reached, as that of one that is cut off
            seen = self._last_id
        if seen is not None:
            changed["message_id"] = seen
        return changed

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **_: Any) -> None:
        """Pass the token on.

        Raises:
            StreamClosedError: If the stream was closed, or the call was given up.
        """
        if self.closed and self._why != CLOSED:  # it comes before what followed from it
            raise StreamClosedError(self._why)
        check_open(self._stops)
        if self.closed:
            raise StreamClosedError(self._why)
        message = getattr(chunk, "message", None)
        text = str(token) if message is None else message.text
        self.spoken = self.spoken or bool(text if message is None else says_something(message))
        self._last_id = getattr(message, "id", None) or self._last_id
        if self.audience == "draft" and text:
            event = {"expert": self.expert, "step": self.step, "text": text}
            write_event(self._node_config, "der.draft", event)

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Remember what was said, and under which id."""
        message = getattr(_first(response), "message", None)
        if message is not None and message.id:
            self._said[self.whole(message.text)] = message.id

    def close(self, why: str | None = None) -> None:
        """Nobody waits any more: what is said from now on is not heard.

        Args:
            why: What traces say of the call if it goes on.
        """
        if not self.closed:
            self._why = why or CLOSED
            self.closed = True

    @property
    def shown(self) -> str:
        """What a reader has seen of a final answer."""
        return self._shown.text

    def whole(self, text: str) -> str:
        """What may be shown of a whole answer."""
        return self._shown.whole(text)

    def visible(self, text: str) -> str:
        """What may be shown of a token."""
        return self._shown.add(writable(text))


class _TokensOnly:
    """Put before LangGraph's handler of message streams: shows tokens, and nothing of an expert's chains."""

    der_listener: Listener
    ignore_chain = True

    def on_llm_new_token(self, token: str, *, chunk: Any = None, **more: Any) -> Any:
        if self.der_listener.closed:
            return None
        if self.der_listener.audience == "final" and isinstance(chunk, ChatGenerationChunk):
            chunk = _with_text(chunk, self.der_listener.visible)
        return super().on_llm_new_token(token, chunk=chunk, **more)  # type: ignore[misc]

    def on_llm_end(self, response: LLMResult, **more: Any) -> Any:
        if self.der_listener.closed:
            return None
        whole = _first(response)
        if self.der_listener.audience == "final" and isinstance(whole, ChatGeneration):
            response = LLMResult(generations=[[_with_text(whole, self.der_listener.whole)]])
        return super().on_llm_end(response, **more)  # type: ignore[misc]

    def on_stream_event(self, *given: Any, **more: Any) -> Any:
        if self.der_listener.closed:
            return None
        return super().on_stream_event(*given, **more)  # type: ignore[misc]


def _tokens_only(handler: BaseCallbackHandler, listener: Listener) -> BaseCallbackHandler:
    """A copy of LangGraph's handler, over the same stream and the same memory of what was shown."""
    twin: Any = copy.copy(handler)
    kind: Any = type(handler)
    twin.__class__ = _tokens_only_class(kind)
    twin.der_listener = listener
    return twin  # type: ignore[no-any-return]


@lru_cache(maxsize=8)
def _tokens_only_class(kind: Any) -> type[Any]:
    return type(f"TokensOnly{kind.__name__}", (_TokensOnly, kind), {"__module__": kind.__module__})


def streams_messages(handler: BaseCallbackHandler) -> bool:
    """Is this the handler by which a graph streams messages?"""
    return type(handler).__module__.startswith("langgraph.pregel.")


def is_streamed(config: RunnableConfig) -> bool:
    """Does somebody around a call read its tokens as they come?"""
    callbacks = config.get("callbacks")
    handlers = callbacks if isinstance(callbacks, list) else getattr(callbacks, "handlers", None)
    return any(isinstance(each, _StreamingCallbackHandler) for each in handlers or ())


def _first(response: LLMResult) -> Any:
    return response.generations[0][0] if response.generations and response.generations[0] else None


def _with_text(generation: Any, change: Any) -> Any:
    """A generation whose text was changed, in all its blocks; as it is where nothing changes."""
    content = generation.message.content
    new: Any = (
        change(content)
        if isinstance(content, str)
        else [_block_with_text(block, change) for block in content]
    )
    if new == content:
        return generation
    return type(generation)(message=generation.message.model_copy(update={"content": new}))


def _block_with_text(block: Any, change: Any) -> Any:
    if isinstance(block, str):
        return change(block)
    if block.get("type") == "text" and isinstance(block.get("text"), str):
        return {**block, "text": change(block["text"])}
    return block


def callbacks_of(config: RunnableConfig, step: int) -> BaseCallbackManager:
    """Callbacks for a run that belongs to a step of the route, with what to filter traces by."""
    given = config.get("callbacks")
    manager = (
        given.copy() if isinstance(given, BaseCallbackManager) else CallbackManager.configure(given)
    )
    manager.add_tags([TAG])
    manager.add_metadata({"der_step": step})
    return manager


class DecisionRun:
    """A decision as a run of its own in every tracer; nothing where nobody traces.

    Args:
        config: The configuration that the edge was called with.
        situation: What there is to decide: the run's input.
        step: Of the route.
    """

    def __init__(self, config: RunnableConfig, situation: Mapping[str, Any], step: int) -> None:
        given: Any = config.get("callbacks")
        self._heard = bool(getattr(given, "handlers", given))
        self._config, self._situation, self._step = config, situation, step
        self._run: Any = None

    def _manager(self, kind: type[Any]) -> Any:
        manager = callbacks_of(self._config, self._step)
        return kind.configure(
            manager,
            inheritable_tags=self._config.get("tags"),
            inheritable_metadata=self._config.get("metadata"),
        )

    def start(self) -> None:
        """Begin."""
        if self._heard:
            manager = self._manager(CallbackManager)
            self._run = manager.on_chain_start(None, self._situation, name=DECISION)

    def end(self, decision: Mapping[str, Any]) -> None:
        """End with a decision."""
        if self._run is not None:
            self._run.on_chain_end(decision)

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if self._run is not None:
            self._run.on_chain_error(error)

    async def astart(self) -> None:
        """Begin."""
        if self._heard:
            manager = self._manager(AsyncCallbackManager)
            self._run = await manager.on_chain_start(None, self._situation, name=DECISION)

    async def aend(self, decision: Mapping[str, Any]) -> None:
        """End with a decision."""
        if self._run is not None:
            await self._run.on_chain_end(decision)

    async def afail(self, error: BaseException) -> None:
        """End with an error."""
        if self._run is not None:
            await self._run.on_chain_error(error)


def speaks_once(model: Any) -> bool:
    """Is it one chat model that speaks once? Only then is every token that it streams part of its answer."""
    while not isinstance(model, BaseChatModel):
        if isinstance(model, RunnableRetry):
            return False  # one that is asked again begins anew
        if not isinstance(model, (RunnableBindingBase, Bounded)):
            return False
        model = model.bound
    return True


EventKind = Literal["der.decision", "der.draft", "der.answer", "der.final"]


def write_event(config: RunnableConfig, kind: EventKind, content: Mapping[str, Any]) -> None:
    """Write one event; nothing happens where nobody listens.

    Args:
        config: The configuration that the node or edge was called with. Python 3.10 does not hand its
            context on to coroutines, so LangGraph's writer would not find its stream without it.
        kind: Type of the event.
        content: What happened.
    """
    with set_config_context(config) as context:
        context.run(lambda: get_stream_writer()({"type": kind, **content}))
