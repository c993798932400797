"""Who hears the tokens of an expert while it speaks.

    stream_tokens="all"     the `messages` stream has every expert's tokens, with `der_expert` and `der_step`
    stream_tokens="final"   it has the final answer only; drafts are `der.draft` events of the `custom` stream

An expert that cannot be followed by another (the longest route is reached, or nothing else is allowed) speaks
the final answer, so its tokens are in the `messages` stream as they come. Any other answer may be a draft:
whether it was the last is known when the agent has chosen END, and the answer then comes in one piece.

Tokens are heard where something streams `messages`; elsewhere models answer in one piece. Knows nothing of
graphs and agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs, set_config_context
from langgraph.config import get_stream_writer
from langgraph.constants import TAG_NOSTREAM

from der_graph.errors import PoolError
from der_graph.nodes.reliability.threads import STOPS
from der_graph.nodes.rules import RouteRules
from der_graph.nodes.tools import bare
from der_graph.state import END_CHOICE, Answer, Audience, DERContext, StreamTokens, Task

if TYPE_CHECKING:
    from der_graph.nodes.expert import Expert

TAG = "der"
"""Tag of the runs of decisions and experts, to filter traces by."""


@dataclass(frozen=True)
class Audiences:
    """Decides who hears an expert.

    Attributes:
        rules: The rules of the route.
        stream_tokens: What holds where the request says nothing.
        token_priced: Experts whose calls may cost less than their price.
        votes: Does the agent choose among the answers at the end? Then none is the final one for certain.
    """

    rules: RouteRules
    stream_tokens: StreamTokens = "all"
    token_priced: frozenset[str] = frozenset()
    votes: bool = False

    def __post_init__(self) -> None:
        if self.stream_tokens not in get_args(StreamTokens):
            raise PoolError(f"stream_tokens is {self.stream_tokens!r}; allowed: 'all', 'final'")

    def of(
        self,
        choice: str,
        answers: Sequence[Answer],
        context: DERContext,
        *,
        spent: float,
        elapsed: float,
        refused: Collection[str],
        unable: Mapping[str, str] | None = None,
    ) -> Audience:
        """Who hears this expert; arguments as those of `RouteRules.mask`.

        What is allowed only shrinks as a route goes on, so an expert that could not be followed by another
        even if it answered at once, and at the least that it may cost, is the last for certain.
        """
        if (context.stream_tokens or self.stream_tokens) == "all" or choice == END_CHOICE:
            return "all"
        if self.votes:
            return "draft"
        price = dict(zip(self.rules.names, self.rules.costs, strict=True))[choice]
        least = spent + (0.0 if choice in self.token_priced else price)
        answered = [*answers, _answered(choice)]
        mask, _ = self.rules.mask(
            answered, context, spent=least, elapsed=elapsed, refused=refused, unable=unable
        )
        return "draft" if any(mask[:-1]) else "final"


def _answered(expert: str) -> Answer:
    """An answer of which only the giver is known."""
    return Answer(
        expert=expert,
        text="",
        value=None,
        cost=0.0,
        input_tokens=0,
        output_tokens=0,
        seconds=0.0,
        logprob=None,
        error=None,
    )


class Listener(BaseCallbackHandler):
    """Hears the tokens of one call of an expert, and stops it when the stream's reader has left.

    Args:
        task: The call.
        expert: Whom it asks.
        config: The node's configuration.
    """

    run_inline = (
        True  # in the thread that generates: tokens keep their order, and an error stops it
    )

    def __init__(self, task: Task, expert: Expert, config: RunnableConfig) -> None:
        self.expert, self.step = expert.name, task["decision"]["step"]
        self.audience: Audience = task.get("audience", "all")  # not in tasks of older checkpoints
        if self.audience == "final" and not speaks_once(expert.model):
            self.audience = "draft"
        self._node_config = config
        self._stops = STOPS.get()
        self._message_id: str | None = None

    @property
    def config(self) -> RunnableConfig:
        """What to call the model with: tags and metadata for traces and streams, and this listener."""
        own: RunnableConfig = {
            "tags": [TAG_NOSTREAM] if self.audience == "draft" else [],
            "metadata": {"der_expert": self.expert},
            "callbacks": [self],
        }
        return merge_configs(traced(self._node_config, self.step), own)

    @property
    def shown(self) -> str:
        """Id of the message that was streamed as the final answer; empty if none was."""
        return (self._message_id or "") if self.audience == "final" else ""

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **_: Any) -> None:
        """Pass the token on.

        Raises:
            CancelledError: If the stream was closed. Not an error that the expert is blamed for: the route
                records no answer, and a checkpointed run asks the expert again.
        """
        if any(stop.is_set() for stop in self._stops):
            raise asyncio.CancelledError("the stream was closed")
        message = getattr(chunk, "message", None)
        self._message_id = getattr(message, "id", None)
        text = str(token) if message is None else message.text
        if self.audience == "draft" and text:
            event = {"expert": self.expert, "step": self.step, "text": text}
            write_event(self._node_config, "der.draft", event)


def traced(config: RunnableConfig, step: int) -> RunnableConfig:
    """A configuration for a run that belongs to a step of the route, with what to filter traces by."""
    return merge_configs(config, {"tags": [TAG], "metadata": {"der_step": step}})


def speaks_once(model: Any) -> bool:
    """Is an expert one chat model, bare or bound? Only then is every token it streams part of its answer."""
    return isinstance(bare(model), BaseChatModel)


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
