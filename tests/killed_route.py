"""A route that is killed: `tests/graph/test_durability.py` runs it as a process, and builds it again.

    python killed_route.py SAVER THREAD LOG WHERE DURABILITY

Experts write their names to LOG each time they are asked. At WHERE (an expert's name, or `agent` for the
decision after the first answer) the process says `here` and waits to be killed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes import ScriptedAgent
from langchain_core.runnables import RunnableConfig

from der_graph import create_der_graph
from der_graph.nodes.decision import Choice
from der_graph.nodes.langchain import as_expert
from der_graph.state import Situation

ROUTE = ("first", "second", "third")
QUESTION = "Who was asked?"


@contextmanager
def open_saver(where: str) -> Iterator[Any]:
    """A checkpointer of a file, or of a PostgreSQL connection string."""
    if where.startswith("postgresql:"):
        from langgraph.checkpoint.postgres import PostgresSaver

        with PostgresSaver.from_conn_string(where) as saver:
            saver.setup()
            yield saver
    else:
        from langgraph.checkpoint.sqlite import SqliteSaver

        with SqliteSaver.from_conn_string(where) as saver:
            yield saver


def thread_config(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread}}


def build(saver: Any, log: Path, reach: Any = lambda where: None) -> Any:
    """The graph; `reach` is told every place that a route comes to."""

    def expert(name: str) -> Any:
        def ask(question: str) -> str:
            with log.open("a") as file:
                file.write(f"{name}\n")
            reach(name)
            return f"the {name} answer"

        return as_expert(ask, name=name, cost=1.0)

    class Agent(ScriptedAgent):
        def decide(self, situations: Sequence[Situation]) -> list[Choice]:
            if len(situations[0].answers) == 1:
                reach("agent")
            return super().decide(situations)

    graph = create_der_graph(
        [expert(name) for name in ROUTE], agent=Agent(*ROUTE), on_error="raise"
    )
    return graph.compile(checkpointer=saver)


def main() -> None:
    saver_at, thread, log, where, durability = sys.argv[1:]
    config = thread_config(thread)
    never = threading.Event()
    with open_saver(saver_at) as saver:

        def stored() -> int:
            state = graph.get_state(config)
            return len(state.values.get("route") or [])

        def reach(place: str) -> None:
            if place != where:
                return
            # By default LangGraph writes while the next node runs already; what is lost by a kill at that
            # very moment is not what is tested here.
            while durability == "default" and stored() < 1:
                never.wait(0.01)
            print("here", flush=True)
            never.wait()

        graph = build(saver, Path(log), reach)
        settings: dict[str, Any] = {} if durability == "default" else {"durability": durability}
        graph.invoke({"messages": [("user", QUESTION)]}, config, **settings)


if __name__ == "__main__":
    main()
