"""The first step of a route that asks several experts at once.

    hub ──Send──> der_together ──┬──> expert, as its own node would run ──┬──> hub, with all their answers
                                 └──> expert                             ─┘

The agent chooses one expert, as always; with it are asked those that it found most probable beside it, as
many as `parallel` and the request's bounds allow. None of them sees another's answer. The agent's choice
is the last of the answers, so that a route that ends here gives it. Each is a call as any other for
budget and longest route; the route's time is that of the slowest. One node runs them all, so a run that
is resumed after a crash in the middle of this step asks all of them again. Knows nothing of agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.config import get_executor_for_config

from der_graph.nodes.ktp import TEMPLATES, KTPTemplate, knowledge_text, ktp_template
from der_graph.nodes.rules import COST_TOLERANCE, RouteRules
from der_graph.state import END_CHOICE, Decision, DERContext, RouteStep, Task, answers_of

TOGETHER_NODE = "der_together"
PARALLEL = "parallel"
"""The `reason` of those that were asked beside the agent's choice."""


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
    prices = rules.prices
    choice, chances = decision["choice"], decision["probabilities"]
    if choice == END_CHOICE or (most is not None and prices[choice] > most):
        return [decision]
    budget = float("inf") if context.max_cost is None else context.max_cost * (1 + COST_TOLERANCE)
    spent = decision["spent"] + prices[choice]
    room = min(parallel, rules.steps(context.max_steps)) - 1
    beside: list[str] = []
    # Agents that are certain find all others equally improbable: the cheapest then.
    for name in sorted(prices, key=lambda name: (-chances[name], prices[name])):
        allowed = name != choice and decision["mask"][name]
        if len(beside) < room and allowed and spent + prices[name] <= budget:
            if most is not None and prices[name] > most:
                continue
            spent += prices[name]
            beside.append(name)
    first = decision["step"]
    decisions = [
        Decision(
            **{**decision, "step": first + i, "choice": name, "reason": PARALLEL, "seconds": 0.0}
        )
        for i, name in enumerate(reversed(beside))
    ]
    return [*decisions, Decision(**{**decision, "step": first + len(beside)})]


def together_node(
    nodes: Mapping[str, Runnable[Task, dict[str, Any]]], ktp: KTPTemplate = TEMPLATES["default"]
) -> Runnable[Tasks, dict[str, Any]]:
    """Make the node that runs several experts' nodes at once.

    Args:
        nodes: The experts' nodes by name.
        ktp: The graph's template.
    """

    def call(given: Tasks, config: RunnableConfig) -> dict[str, Any]:
        tasks = given["tasks"]
        with get_executor_for_config(config) as executor:
            futures = [
                executor.submit(nodes[task["decision"]["choice"]].invoke, task, config)
                for task in tasks
            ]
            return _joined(tasks, [future.result() for future in futures], ktp)

    async def acall(given: Tasks, config: RunnableConfig) -> dict[str, Any]:
        tasks = given["tasks"]
        calls = [nodes[task["decision"]["choice"]].ainvoke(task, config) for task in tasks]
        return _joined(tasks, await asyncio.gather(*calls), ktp)

    return RunnableLambda(call, acall, name=TOGETHER_NODE)


def _joined(
    tasks: Sequence[Task], updates: Sequence[dict[str, Any]], ktp: KTPTemplate
) -> dict[str, Any]:
    """One update of the state from those of all experts."""
    task = tasks[-1]
    route, spent = list(task["route"]), task["decision"]["spent"]
    for update in updates:
        step: RouteStep = update["route"][-1]
        route.append(RouteStep(**{**step, "spent": spent}))
        spent += sum(answer["cost"] for answer in answers_of([step]))
    template = ktp_template(task.get("ktp") or ktp)
    return {
        **updates[-1],
        "route": route,
        "knowledge": knowledge_text(task["question"], answers_of(route), template),
        "cost": spent,
    }
