"""A person's yes before a dear expert is asked.

    der_agent ──edge──> approval ──yes──> the expert
                            ├──another name──> that expert
                            └──no──> der_agent, which may not choose that expert again

The edge sends the task here with its decision in it, and the task is part of the checkpoint. So a resumed run
goes on with that decision: no agent is asked again, and no expert. A refusal is written to the state, because
the agent chooses anew after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.types import Command, Send, interrupt

from der_graph.nodes.hub import ANSWER_NODE, APPROVAL_NODE, HUB_NODE
from der_graph.nodes.reliability.graph_node import Node
from der_graph.nodes.streaming import write_event
from der_graph.state import END_CHOICE, Audience, Decision, Task

_ALLOWED = 'resume with True (ask it), False (not on this route) or {"expert": NAME} with a name of "allowed"'


def approval_node(prices: Mapping[str, float]) -> Node:
    """Make the node that asks a person.

    It interrupts the run with `{"type": "der.approval", "expert", "cost", "spent", "question", "allowed",
    "decision"}`, plain data. `Command(resume=True)` asks the expert, `False` lets the agent choose another,
    and `{"expert": NAME}` asks that one, or ends the route where NAME is `END`. Anything else interrupts
    again, with an `error` that says what is allowed.

    Args:
        prices: Price of one call of each expert.
    """

    def approve(task: Task, config: RunnableConfig) -> Command[Any]:
        decision = task["decision"]
        choice = decision["choice"]
        allowed = [name for name, free in decision["mask"].items() if free]
        payload: dict[str, Any] = {
            "type": "der.approval",
            "expert": choice,
            "cost": prices[choice],
            "spent": decision["spent"],
            "question": task["question"],
            "allowed": allowed,
            "decision": decision,
        }
        given = _ask(payload, config)
        while not _understood(given, allowed):
            given = _ask(
                {**payload, "error": f"{str(given)[:100]!r} is not understood: {_ALLOWED}"}, config
            )
        if given is False:
            return Command(
                goto=HUB_NODE,
                update={
                    "question": task["question"],
                    "question_id": task["question_id"],
                    "route": task["route"],
                    "cost": decision["spent"],
                    "refused": [*task["refused"], choice],
                },
            )
        name = choice if given is True else str(given["expert"])
        if name != choice:
            named = Decision(**{**decision, "choice": name, "reason": "person"})
            write_event(config, "der.decision", named)  # replaces the one that the edge has written
            # Whether this one will be the last was not looked at, so nobody hears it as the final answer.
            heard: Audience = "all" if task["audience"] == "all" else "draft"
            task = Task(**{**task, "decision": named, "audience": heard})
            task.pop("backup", None)  # it was chosen, and the budget counted, for the other one
        return Command(goto=Send(ANSWER_NODE if name == END_CHOICE else name, task))

    return Node(APPROVAL_NODE, approve)


def _ask(payload: dict[str, Any], config: RunnableConfig) -> Any:
    # Python 3.10 does not hand the node's context on, where `interrupt` looks for its configuration.
    with set_config_context(config) as context:
        return context.run(interrupt, payload)


def _understood(given: Any, allowed: list[str]) -> bool:
    if isinstance(given, Mapping):
        return given.get("expert") in allowed
    return isinstance(given, bool)
