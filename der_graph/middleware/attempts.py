"""One model call in attempts, which the synchronous and the asynchronous hook carry out alike.

    route ──Attempt: this expert, so configured──> the hook calls its model ──Given──> route ──> ... ──> Done

Knows nothing of how experts are chosen.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from langchain.agents.middleware import ModelRequest, ModelResponse
from langchain.agents.middleware.types import ModelCallResult
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from langgraph.constants import TAG_NOSTREAM

from der_graph.errors import ExpertError
from der_graph.nodes.conversation import EXPERTS
from der_graph.nodes.decision import Choice, RoutingAgent
from der_graph.nodes.expert import Expert
from der_graph.nodes.reliability.failures import failure_of
from der_graph.nodes.streaming import TAG
from der_graph.state import Answer, LoopState, Situation


class Attempt(NamedTuple):
    """An expert is to act."""

    request: ModelRequest[Any]
    config: RunnableConfig
    time_left: float | None


class Given(NamedTuple):
    """What came of an attempt."""

    result: ModelResponse[Any] | Exception
    seconds: float


@dataclass(frozen=True)
class Done:
    """The call is over."""

    result: ModelCallResult[Any]


Route = Generator[Attempt, Given, ModelCallResult[Any]]


def advance(route: Route, given: Given | None) -> Attempt | Done:
    """Go on with a route, to its next attempt or to its end."""
    # StopIteration cannot leave a thread by its future.
    try:
        return next(route) if given is None else route.send(given)
    except StopIteration as end:
        return Done(end.value)


@contextmanager
def ended(route: Route) -> Iterator[None]:
    """End a route with the block, also one that is given up on the way: its expert then is not held by it."""
    try:
        yield
    finally:
        with suppress(ValueError):  # a thread is still at it, and ends it by letting go of it
            route.close()


def carried_out(
    attempt: Attempt, expert: Expert, *, insist: bool, settings: Mapping[str, Any]
) -> Generator[Attempt, Given, tuple[Given, Answer]]:
    """Have an attempt made where the expert's breaker lets it through; its health is told what came of it.

    Args:
        attempt: The attempt.
        expert: Who is to act.
        insist: Make it whatever the breaker says?
        settings: What is asked of the model.
    """
    breaker = expert.health.breaker
    try:
        may = breaker.enter(insist=insist)
        given = (yield attempt) if may else Given(breaker.refused(), 0.0)
        said = message_of(given.result)
        answer = expert.answer_from(said, given.seconds, settings=settings)
        tell_health(expert, answer, attempt.time_left)
    except BaseException:
        breaker.leave()  # not the expert's: the caller has left, or the run is interrupted
        raise
    return given, answer


def tell_health(expert: Expert, answer: Answer, limit: float | None) -> None:
    """Tell an expert's health what came of a call.

    Args:
        expert: Who was asked.
        answer: What came of it.
        limit: Seconds that the call had, or None for any number.
    """
    if "failure" not in answer:
        expert.health.answered(answer["seconds"])
        return
    kind: Any = answer["failure"]
    expert.health.failed(kind, limit=limit, retry_after=answer.get("retry_after"))


def config_of(config: RunnableConfig, expert: Expert, step: int, *, draft: bool) -> RunnableConfig:
    """What an expert is called with: drafts are not heard in the stream of messages."""
    own: RunnableConfig = {
        "tags": [TAG, TAG_NOSTREAM] if draft else [TAG],
        "metadata": {"der_expert": expert.name, "der_cost": expert.cost, "der_step": step},
    }
    return merge_configs(config, own)


def as_failure(error: BaseException) -> Exception:
    """What a model raised, also where it cancelled its own call: that is no reason to cancel the run."""
    if isinstance(error, Exception):
        return error
    failure = failure_of(error)
    told = ExpertError(failure.text)
    told.failure_kind = failure.kind
    return told


def message_of(result: ModelResponse[Any] | Exception) -> AIMessage | Exception:
    """The message of a response, or what was raised in its place."""
    if isinstance(result, Exception):
        return result
    messages = (message for message in result.result if isinstance(message, AIMessage))
    return next(messages, ExpertError("gave no message"))


def marked_with(
    response: ModelResponse[Any], names: Sequence[str], cost: float
) -> ModelResponse[Any]:
    """The response, whose message names its experts as the graph's answers do."""
    marked: list[Any] = []
    for message in response.result:
        if isinstance(message, AIMessage):
            more = {**message.response_metadata, EXPERTS: list(names), "der_cost": cost}
            message = message.model_copy(update={"response_metadata": more})
        marked.append(message)
    return ModelResponse(result=marked, structured_response=response.structured_response)


class InLoop:
    """An agent that sees where the loop stands."""

    def __init__(self, agent: RoutingAgent, loop: LoopState) -> None:
        self._agent = agent
        self._loop = loop

    def check_pool(self, names: Sequence[str]) -> None:
        """As the agent's own."""
        self._agent.check_pool(names)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """As the agent's own, with the loop in view."""
        return self._agent.decide([replace(each, loop=self._loop) for each in situations])
