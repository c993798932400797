"""A person is asked before money is spent: the route waits, in a checkpoint, and goes on from there.

Run it with `python examples/human_approval.py` and type `y`, `n` or another expert's name. Nothing that was
paid for is paid twice: while the route waits nothing runs, and the process may end (with a checkpointer that
outlives it, such as SQLite's).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from der_graph import create_der_graph
from der_graph.nodes.langchain import as_expert
from der_graph.policies.baselines import FixedOrder
from der_graph.pool import pool_from


def build_app() -> Any:
    """Three experts and an agent that asks them from the cheapest to the dearest."""
    pool = pool_from(
        [
            as_expert(lambda question: "About 40.", name="quick", cost=1.0),
            as_expert(lambda question: "It is 42.", name="careful", cost=5.0),
            as_expert(lambda question: "42, and here is the proof.", name="panel", cost=50.0),
        ]
    )
    agent = FixedOrder(pool.names, pool.rules.costs, ["quick", "panel"])
    return create_der_graph(pool, agent=agent, approve_above=10.0).compile(
        checkpointer=InMemorySaver(), name="der"
    )


def decide_on(request: dict[str, Any], read: Callable[[str], str]) -> bool | dict[str, str]:
    """Ask the person at the keyboard, and turn what is typed into what the graph understands."""
    others = [name for name in request["allowed"] if name != request["expert"]]
    typed = read(
        f"ask '{request['expert']}' for {request['cost']:g} (spent so far: {request['spent']:g})? "
        f"y, n, or one of {', '.join(others)}: "
    ).strip()
    return {"expert": typed} if typed in others else typed.lower().startswith("y")


def main(read: Callable[[str], str] = input) -> dict[str, Any]:
    """Ask one question, and the person as often as the route needs it; returns the final state."""
    app = build_app()
    config = {"configurable": {"thread_id": "1"}}
    state = app.invoke({"messages": [("user", "What is the answer?")]}, config)
    while "__interrupt__" in state:
        request = state["__interrupt__"][0].value
        state = app.invoke(Command(resume=decide_on(request, read)), config)
    print(" -> ".join(step["choice"] for step in state["route"]), "=", state["answer"])
    return dict(state)


if __name__ == "__main__":
    main()
