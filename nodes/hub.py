"""The hub and the edge out of it: the edge asks the agent, and `Send` carries the decision.

The conditional edge runs in the hub's task and not in an expert's, so a policy error, an interrupt, a retry
or a cache hit never re-runs an expert and never replays an old decision. The hub itself writes nothing: where
an edge raises, LangGraph keeps what its node wrote and takes the node for finished, and a resumed run would
then end without having chosen. An edge cannot write state either, so question and decision travel with the
task to the chosen node, which records them together with the answer.

Agents of one's own are written with `Choice` and `RoutingAgent`, which can be imported from here too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple, cast

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.runtime import get_runtime
from langgraph.types import Send

from der_graph.errors import QuestionError
from der_graph.nodes.conversation import (
    attachments_of,
    block_beside_text,
    conversation_text,
    find_question,
    history_for_experts,
    last_experts,
    without_handovers,
)
from der_graph.nodes.decision import Choice as Choice
from der_graph.nodes.decision import Decider, situation_of
from der_graph.nodes.decision import RoutingAgent as RoutingAgent
from der_graph.nodes.decision import agent_for_pool as agent_for_pool
from der_graph.nodes.ktp import ktp_template
from der_graph.nodes.model_settings import check_settings
from der_graph.nodes.parallel import TOGETHER_NODE, Tasks, asked_together, backup_of
from der_graph.nodes.reliability import Bulkhead, Fallback
from der_graph.nodes.reliability.bulkhead import SIZE
from der_graph.nodes.reliability.calls import acall, call
from der_graph.nodes.reliability.deadline import Limit
from der_graph.nodes.reliability.graph_node import Node
from der_graph.nodes.rules import RouteRules
from der_graph.nodes.streaming import Audiences, write_event
from der_graph.state import (
    END_CHOICE,
    Decision,
    DERContext,
    DERState,
    RouteStep,
    Situation,
    Task,
    answers_of,
    as_context,
    elapsed,
    good_answers,
)

Unable = Callable[[Task], dict[str, str]]
"""Experts that cannot answer a task, by name, and why: `no_tools`, `no_inputs`, `context_length`."""

ANSWER_NODE = "answer"
APPROVAL_NODE = "der_approval"
HUB_NODE = "der_agent"


def der_agent(state: DERState, config: RunnableConfig) -> None:
    """The hub: every route passes here between two experts, and the edge out of it asks the agent."""


DECISION_TIMEOUT = 30.0
"""Seconds after which an agent that has not decided is taken to hang."""


class Asked(NamedTuple):
    """What there is to decide.

    Attributes:
        situation: For the agent, and for whoever reads the trace.
        task: What the chosen node gets, without the decision.
    """

    situation: dict[str, Any]
    task: dict[str, Any]


class DecisionEdge:
    """The conditional edge: calls the agent and sends the task to the node that it chose.

    Args:
        agent: Chooses.
        rules: What is allowed.
        stickiness: How much less probable than the best an expert of the last turn may be and still open
            this turn, where the request says nothing else.
        approve_above: Dearer experts are sent to the approval node first; None for none.
        audiences: Decides who hears an expert; everybody if left out.
        unavailable: Gives the experts that fail again and again.
        unable: Says which experts cannot answer, and why; nobody if left out.
        counts_tokens: Does `unable` count tokens, and so takes too long for an event loop?
        on_error: `continue`: where the agent fails, the answer that is there counts, or a rule decides;
            `raise`: its error ends the run.
        parallel: How many experts the first step of a route asks at once, where the bounds allow it.
        hedged: Do the experts' nodes ask another one too where an expert takes its time?
    """

    def __init__(
        self,
        agent: RoutingAgent,
        rules: RouteRules,
        *,
        stickiness: float = 0.0,
        approve_above: float | None = None,
        audiences: Audiences | None = None,
        unavailable: Callable[[], Collection[str]] = frozenset,
        unable: Unable | None = None,
        counts_tokens: bool = False,
        on_error: str = "continue",
        parallel: int = 1,
        hedged: bool = False,
    ) -> None:
        self.rules = rules
        self.decider = Decider(agent, rules, on_error)
        self.stickiness = stickiness
        self.approve_above = approve_above
        self.audiences = audiences or Audiences(rules)
        self.unavailable = unavailable
        self.unable = unable
        self.counts_tokens = counts_tokens
        self.parallel = parallel
        self.hedged = hedged
        self.bulkhead = Bulkhead(untried=SIZE)
        self._readers = Bulkhead(untried=SIZE)  # apart: an agent that hangs takes none of these

    def node(self) -> Node:
        """The edge in the form in which LangGraph calls it."""
        return Node("next_expert", self.call, self.acall)

    def call(self, state: DERState, config: RunnableConfig) -> Send | list[Send]:
        """Decide, and say where to go."""
        if _runtime(config) is None:
            return _left_for_later(state)
        asked = self._read(state, config)
        decision = self.decider.decide(asked.situation, config, self._in_thread)
        return self._send(decision, asked, config)

    async def acall(self, state: DERState, config: RunnableConfig) -> Send | list[Send]:
        """Decide without blocking the event loop; see `call`."""
        if _runtime(config) is None:
            return _left_for_later(state)
        read = partial(self._read, state, config)
        asked = await asyncio.wrap_future(self._readers.run(read)) if self.counts_tokens else read()
        decision = await self.decider.adecide(asked.situation, config, self._off_loop)
        return self._send(decision, asked, config)

    def _in_thread(self, work: Callable[[], Any], seen: Situation) -> Any:
        return work() if self.decider.at_once else call(work, self.bulkhead, _patience(seen))

    async def _off_loop(self, work: Callable[[], Any], seen: Situation) -> Any:
        if self.decider.at_once:
            return work()
        return await acall(work, self.bulkhead, _patience(seen))

    def _read(self, state: DERState, config: RunnableConfig) -> Asked:
        before, message, tail = find_question(without_handovers(state["messages"]))
        history = history_for_experts(before)
        question, question_id = message.text.strip(), message.id or ""
        route, spent, refused = open_route(state, question_id)
        context = as_context(_runtime(config).context)
        if context.ktp is not None:
            ktp_template(context.ktp)  # a wrong name is said now, and not after a decision
        task: dict[str, Any] = {
            "messages": history,
            "tail": tail,
            "question": question,
            "question_id": question_id,
            "route": route,
            "refused": refused,
            "ktp": context.ktp,
        }
        if asked := check_settings(context.model_settings):
            task["settings"] = asked
        if attachments := attachments_of(message):
            task["attachments"] = attachments
        if message.name:
            task["asker"] = message.name
        unable = {} if self.unable is None else self.unable(cast(Task, task))
        if attachments and all(unable.get(name) == "no_inputs" for name in self.rules.names):
            raise QuestionError(
                f"the question holds a block of type '{block_beside_text(message)}', and the experts "
                "read its text only; send a text, or blocks of type 'text', that say all that is asked, or "
                "say in the pool which expert reads more (inputs: [image])"
            )
        answers = answers_of(route)
        situation = situation_of(
            self.rules,
            context,
            question=question,
            conversation=conversation_text(history, question),
            answers=answers,
            spent=spent,
            elapsed=elapsed(route),
            refused=refused,
            unavailable=sorted(self.unavailable()),
            unable=unable,
            last_experts=last_experts(history),
            stickiness=self.stickiness,
            steps_left=self.rules.steps(context.max_steps) - len(good_answers(answers)),
        )
        return Asked(situation, task)

    def _send(self, decision: Decision, asked: Asked, config: RunnableConfig) -> Send:
        seen, together = asked.situation, [decision]
        if self.parallel > 1 and not asked.task["route"]:
            bounds: DERContext = seen["context"]
            together = asked_together(
                decision, self.rules, bounds, self.parallel, self.approve_above
            )
            decision = together[-1]
        for each in together:
            write_event(config, "der.decision", each)
        choice = decision["choice"]
        fallback = _fallback(decision)
        left = seen["time_left"]
        task = Task(
            **asked.task,  # type: ignore[typeddict-item]
            decision=decision,
            time_left=None if left is None else left - decision["seconds"],
            audience=self.audiences.of(
                choice,
                seen["answers"],
                seen["context"],
                fallback=fallback,
                spent=seen["spent"],
                elapsed=seen["elapsed"],
                refused=seen["refused"],
                unavailable=seen["unavailable"],
                unable=seen["unable"],
            ),
            fallback=fallback,
            insist=choice in seen["unavailable"],
        )
        # What is shown as it comes cannot be replaced any more.
        if self.hedged and len(together) == 1 and task["audience"] != "final":
            backup = backup_of(decision, self.rules, seen["context"], self.approve_above)
            if backup is not None:
                task["backup"] = backup
        if len(together) > 1:
            heard = task["audience"] if task["audience"] == "all" else "draft"
            tasks: list[Any] = [
                {
                    **task,
                    "decision": d,
                    "audience": heard,
                    "insist": d["choice"] in seen["unavailable"],
                }
                for d in together
            ]
            return Send(TOGETHER_NODE, Tasks(tasks=tasks))
        return Send(_node(choice, self.rules.prices, self.approve_above), task)


def _runtime(config: RunnableConfig) -> Any:
    """LangGraph's runtime, with the request's context; None in `update_state`, which is no run.

    Edges are not called with it in place, as nodes are.
    """
    with set_config_context(config) as context:
        return context.run(lambda: get_runtime(DERContext))


def _left_for_later(state: DERState) -> list[Send]:
    """Where `update_state` leaves a thread: at the hub while a question is open, else at its end.

    Without `as_node`, LangGraph takes the hub for the node that ran last, and calls its edge. Only the run
    that goes on knows its bounds, so nothing is decided here.
    """
    try:
        _, message, _ = find_question(without_handovers(state["messages"]))
    except QuestionError:
        return []
    route = state.get("route") or []
    ended = bool(route) and route[-1]["choice"] == END_CHOICE
    return [] if ended and state.get("question_id") == message.id else [Send(HUB_NODE, {})]


def _patience(seen: Situation) -> Limit:
    """How long the agent may think."""
    left = seen.deadline_left
    return Limit(DECISION_TIMEOUT if left is None else min(DECISION_TIMEOUT, max(0.0, left / 2)))


def _fallback(decision: Decision) -> Fallback:
    """What there is if the chosen expert fails."""
    mask = decision["mask"]
    if mask[END_CHOICE]:
        return "answer"
    others = any(free for name, free in mask.items() if name != decision["choice"])
    return "expert" if others else "none"


def _node(choice: str, prices: dict[str, float], approve_above: float | None) -> str:
    """Where a choice leads: to its expert, to the answer, or to a person first."""
    if choice == END_CHOICE:
        return ANSWER_NODE
    dear = approve_above is not None and prices[choice] > approve_above
    return APPROVAL_NODE if dear else choice


def open_route(state: DERState, question_id: str) -> tuple[list[RouteStep], float, list[str]]:
    """The route so far, what it cost, and whom a person refused on it: an empty one for a new question.

    Threads keep their state: another message, or a route that has ended, means a new question.
    """
    route = state.get("route") or []
    if state.get("question_id") != question_id or (route and route[-1]["choice"] == END_CHOICE):
        return [], 0.0, []
    return route, float(state.get("cost") or 0.0), list(state.get("refused") or [])
