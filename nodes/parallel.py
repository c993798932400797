"""Steps of a route in which more than one expert is asked.

`parallel`, the first step:

    hub ──Send──> der_together ──┬──> expert, as its own node would run ──┬──> hub, with all their answers
                                 └──> expert                             ─┘

The agent chooses one expert, as always; with it are asked those that it found most probable beside it, as
many as `parallel` and the request's bounds allow. None of them sees another's answer. The agent's choice
is the last of the answers, so that a route that ends here gives it. Each is a call as any other for
budget and longest route; the route's time is that of the slowest. One node runs them all, so a run that
is resumed after a crash in the middle of this step asks all of them again. For the same reason none of them
can wait for a person here: LangGraph hands what the person says to whichever call of the node asks first.
The agent's choice is then asked again in its own node, after those that have answered, and sees their last
answer; another one is left out of the step.

`hedge`, any step:

    hub ──Send──> expert ──longer than usual──> the expert's node asks another one too ──> hub

The next best is asked beside an expert that takes its time, and the first good answer is taken. The other
call is given up: it is in the route as one that failed (`overtaken`), at its full price, since nobody knows
what its provider charges. The graph stays as it is, and an expert that answers in time is a step as any
other. One that a person has told what it asked goes on alone. Knows nothing of agents.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from threading import Event
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_executor_for_config
from langgraph.errors import GraphInterrupt
from langgraph.types import Command, Send
from typing_extensions import TypedDict

from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES, KTPTemplate, knowledge_text, ktp_template
from der_graph.nodes.reliability import Hedge, arace, patience, race
from der_graph.nodes.reliability.graph_node import Node
from der_graph.nodes.reliability.hedging import OvertakenError, Raced, give_up
from der_graph.nodes.reliability.threads import STOPS
from der_graph.nodes.rules import COST_TOLERANCE, RouteRules
from der_graph.nodes.streaming import write_event
from der_graph.state import (
    END_CHOICE,
    Decision,
    DERContext,
    RouteStep,
    Task,
    answers_of,
    blank_answer,
    good_answers,
)

TOGETHER_NODE = "der_together"
PARALLEL, HEDGE = "parallel", "hedge"
"""The `reason` of those that were asked at once with the agent's choice, or beside it as it took its time."""


class Tasks(TypedDict):
    """What the edge sends: one task for each expert, the agent's choice last."""

    tasks: list[Task]


def asked_together(
    decision: Decision, rules: RouteRules, context: DERContext, parallel: int, most: float | None
) -> list[Decision]:
    """The decisions of a first step.

    Args:
        decision: The agent's first decision of the route.
        rules: What is allowed.
        context: The bounds of the request.
        parallel: How many to ask at once.
        most: Experts above this price are not asked beside another, as a person is asked about them first.

    Returns:
        One decision for each expert, the agent's own last; that one alone if nobody may be asked beside it.
    """
    choice = decision["choice"]
    if choice == END_CHOICE or (most is not None and rules.prices[choice] > most):
        return [decision]
    room = min(parallel, rules.steps(context.max_steps)) - 1
    beside = _next_best(decision, rules, context, room, most)
    first = decision["step"]
    decisions = [
        Decision(
            **{**decision, "step": first + i, "choice": name, "reason": PARALLEL, "seconds": 0.0}
        )
        for i, name in enumerate(reversed(beside))
    ]
    return [*decisions, Decision(**{**decision, "step": first + len(beside)})]


def backup_of(
    decision: Decision, rules: RouteRules, context: DERContext, most: float | None
) -> Decision | None:
    """Whom to ask beside an expert that takes its time; arguments as those of `asked_together`.

    Returns:
        The decision; None if nobody may be asked beside it.
    """
    if decision["choice"] == END_CHOICE:
        return None
    for name in _next_best(decision, rules, context, 1, most):
        changes = {"step": decision["step"] + 1, "choice": name, "reason": HEDGE, "seconds": 0.0}
        backup = Decision(**{**decision, **changes})  # type: ignore[typeddict-item]
        backup.pop("explanation", None)  # of the other choice
        return backup
    return None


def _next_best(
    decision: Decision, rules: RouteRules, context: DERContext, room: int, most: float | None
) -> list[str]:
    """The most probable experts beside the chosen one, as many as there is room and budget for."""
    prices, choice, chances = rules.prices, decision["choice"], decision["probabilities"]
    budget = float("inf") if context.max_cost is None else context.max_cost * (1 + COST_TOLERANCE)
    spent = decision["spent"] + prices[choice]
    beside: list[str] = []
    # Agents that are certain find all others equally improbable: the cheapest then.
    for name in sorted(prices, key=lambda name: (-chances[name], prices[name])):
        allowed = name != choice and decision["mask"][name]
        if len(beside) < room and allowed and spent + prices[name] <= budget:
            if most is not None and prices[name] > most:
                continue
            spent += prices[name]
            beside.append(name)
    return beside


def together_node(
    nodes: Mapping[str, Runnable[Task, dict[str, Any]]],
    back: str,
    ktp: KTPTemplate = TEMPLATES["default"],
) -> Runnable[Tasks, Command[Any]]:
    """Make the node that runs several experts' nodes at once.

    Args:
        nodes: The experts' nodes by name.
        back: The node that decides what is next.
        ktp: The graph's template.
    """

    def call(given: Tasks, config: RunnableConfig) -> Command[Any]:
        start = time.perf_counter()

        def ask(task: Task) -> Update:
            try:
                return nodes[task["decision"]["choice"]].invoke(task, config)
            except GraphInterrupt:
                return _LEFT_OUT

        stop = Event()
        token = STOPS.set((*STOPS.get(), stop))
        try:
            with get_executor_for_config(config) as executor:
                try:
                    calls = [executor.submit(ask, task) for task in given["tasks"]]
                    first = wait(calls, return_when=FIRST_EXCEPTION).done
                    updates = [each.result() for each in sorted(first, key=calls.index)]
                finally:
                    stop.set()  # Ctrl-C, or an error of one: leaving the executor waits for the others
        finally:
            STOPS.reset(token)
        return settled(given["tasks"], updates, config, start)

    async def acall(given: Tasks, config: RunnableConfig) -> Command[Any]:
        start = time.perf_counter()

        async def ask(task: Task) -> Update:
            try:
                return await nodes[task["decision"]["choice"]].ainvoke(task, config)
            except GraphInterrupt:
                return _LEFT_OUT

        asked = [asyncio.ensure_future(ask(task)) for task in given["tasks"]]
        try:
            updates = await asyncio.gather(*asked)
        finally:
            give_up(asked)
        return settled(given["tasks"], updates, config, start)

    def settled(
        tasks: Sequence[Task], updates: Sequence[Update], config: RunnableConfig, start: float
    ) -> Command[Any]:
        own = tasks[-1]
        joined = _joined(own, [each["route"][-1] for each in updates if each is not _LEFT_OUT], ktp)
        if updates[-1] is not _LEFT_OUT:
            return Command(goto=back, update=joined)
        route, spent = joined["route"], joined["cost"]
        alone = Decision(**{**own["decision"], "step": len(route), "spent": spent})
        write_event(config, "der.decision", alone)
        task = Task(**{**own, "route": route, "decision": alone})
        if (left := task.get("time_left")) is not None:
            task["time_left"] = left - (time.perf_counter() - start)
        if good_answers(answers_of(route)):
            task["fallback"] = "answer"
        return Command(goto=Send(alone["choice"], task))

    return Node(TOGETHER_NODE, call, acall)


Update = dict[str, Any]
_LEFT_OUT: Update = {}
"""Of one that was asked beside another, and wanted to ask a person."""


def _joined(task: Task, steps: Sequence[RouteStep], ktp: KTPTemplate) -> Update:
    """One update of the state from the steps of all experts that answered."""
    route, spent = list(task["route"]), task["decision"]["spent"]
    for step in steps:
        route.append(RouteStep(**{**step, "step": len(route), "spent": spent}))
        spent += sum(answer["cost"] for answer in answers_of([step]))
    template = ktp_template(task.get("ktp") or ktp)
    return {
        "question": task["question"],
        "question_id": task["question_id"],
        "route": route,
        "knowledge": knowledge_text(task["question"], answers_of(route), template),
        "cost": spent,
        "answer": "",
        "refused": task.get("refused", []),
    }


class Hedged:
    """An expert's node that asks another one too where the expert takes its time.

    Args:
        expert: The expert.
        node: Its own node.
        others: The nodes of all experts, by name; a failure is an answer of theirs, and not an error.
        prices: What a call of each costs at most.
        hedge: When it takes its time.
        ktp: The graph's template.
    """

    def __init__(
        self,
        expert: Expert,
        node: Runnable[Task, Update],
        others: Mapping[str, Runnable[Task, Update]],
        prices: Mapping[str, float],
        hedge: Hedge,
        ktp: KTPTemplate = TEMPLATES["default"],
    ) -> None:
        self._expert, self._own, self._others = expert, node, others
        self._prices, self._hedge, self._ktp = prices, hedge, ktp

    def node(self) -> Node:
        """The node in the form in which LangGraph calls it."""
        return Node(self._expert.name, self._call, self._acall)

    def _call(self, task: Task, config: RunnableConfig) -> Update:
        pair = self._pair(task, config)
        if pair is None:
            return self._own.invoke(task, config)
        other = self._others[pair.second["decision"]["choice"]]

        def beside() -> Update:
            try:
                return other.invoke(pair.second, config)
            except GraphInterrupt:  # what a person says would be handed to the first one
                return _LEFT_OUT

        raced = race(
            lambda: self._own.invoke(pair.first, config),
            beside,
            pair.after,
            _answered,
            pair.made,
        )
        return self._settled(pair, raced)

    async def _acall(self, task: Task, config: RunnableConfig) -> Update:
        pair = self._pair(task, config)
        if pair is None:
            return await self._own.ainvoke(task, config)
        other = self._others[pair.second["decision"]["choice"]]

        async def beside() -> Update:
            try:
                return await other.ainvoke(pair.second, config)
            except GraphInterrupt:
                return _LEFT_OUT

        raced = await arace(
            lambda: self._own.ainvoke(pair.first, config),
            beside,
            pair.after,
            _answered,
            pair.made,
        )
        return self._settled(pair, raced)

    def _pair(self, task: Task, config: RunnableConfig) -> _Pair | None:
        """The two calls; None where nobody is to be asked beside the expert."""
        backup, left = task.get("backup"), task.get("time_left")
        after = patience(self._hedge, self._expert.health, self._expert.seconds)
        if backup is None or after is None or (left is not None and left <= after):
            return None
        if _was_told(config):
            return None
        first = Task(**{**task, "raced": True})
        changes = {
            "decision": Decision(**{**backup, "waited": after}),
            "time_left": None if left is None else left - after,
            "insist": False,
        }
        second = Task(**{**first, **changes})  # type: ignore[typeddict-item]
        return _Pair(first, second, after, config)

    def _settled(self, pair: _Pair, raced: Raced[Update]) -> Update:
        """The update from what came of the two calls."""
        if not raced.made and raced.first is not None:
            pair.tell(raced.first["route"][-1])
            return raced.first
        seconds = time.perf_counter() - pair.start
        if raced.first is None:
            self._expert.health.overtaken(seconds)
        steps = [self._step(pair.first, raced.first, seconds)]
        if raced.second is not _LEFT_OUT:
            steps += [self._step(pair.second, raced.second, max(0.0, seconds - pair.after))]
        for step in steps:
            pair.tell(step)
        return _joined(pair.first, steps, self._ktp)

    def _step(self, task: Task, update: Update | None, seconds: float) -> RouteStep:
        if update is not None:
            step: RouteStep = update["route"][-1]
            return step
        name = task["decision"]["choice"]
        error = OvertakenError()
        answer = blank_answer(name, cost=self._prices[name], seconds=seconds, error=str(error))
        answer["failure"] = error.failure_kind
        return RouteStep(**task["decision"], answer=answer)


class _Pair:
    """The calls of an expert and of the one beside it.

    Args:
        first: The expert's.
        second: The other one's.
        after: Seconds between the two.
        config: The node's configuration.
    """

    def __init__(self, first: Task, second: Task, after: float, config: RunnableConfig) -> None:
        self.first, self.second, self.after = first, second, after
        self.start = time.perf_counter()
        self._config = config

    def made(self) -> None:
        """The second call begins."""
        write_event(self._config, "der.decision", self.second["decision"])

    def tell(self, step: RouteStep) -> None:
        """Tell the readers of a stream what came of a call."""
        if step["answer"] is not None:
            write_event(self._config, "der.answer", {"step": step["step"], **step["answer"]})


def _was_told(config: RunnableConfig) -> bool:
    """Has a person answered what the expert asked? That is for it alone, so nobody is asked beside it."""
    pad: Any = config.get("configurable", {}).get("__pregel_scratchpad")  # what `interrupt` reads
    return pad is not None and (bool(pad.resume) or pad.get_null_resume() is not None)


def _answered(update: Update) -> bool:
    if update is _LEFT_OUT:
        return False
    answer = update["route"][-1]["answer"]
    return answer is not None and answer["error"] is None
