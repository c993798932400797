"""DER as one node of your own LangGraph app: shared `messages`, one answer added, the route at hand.

Run it with `python examples/embed_as_subgraph.py`; it loads the shipped pool of real models.
"""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from der_graph import create_der_graph, load_agent, load_pool
from der_graph.nodes.decision import RoutingAgent
from der_graph.pool import Pool


def build_app(pool: Pool | None = None, agent: RoutingAgent | None = None) -> Any:
    """Build the app: small talk is answered at once, everything else goes to DER.

    Args:
        pool: The experts; the shipped pool if left out.
        agent: Picks the experts; the shipped agent if left out.
    """
    der = create_der_graph(pool or load_pool("demo"), agent=agent or load_agent("demo")).compile(
        name="der"
    )

    def is_small_talk(state: MessagesState) -> str:
        return "greet" if state["messages"][-1].text.strip().lower() in {"hi", "hello"} else "der"

    def greet(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("Hello! What would you like to know?")]}

    app = StateGraph(MessagesState)
    app.add_node("der", der)
    app.add_node("greet", greet)
    app.add_conditional_edges(START, is_small_talk, ["der", "greet"])
    app.add_edge("der", END)
    app.add_edge("greet", END)
    return app.compile(name="my-app")


def main() -> None:
    """Ask two questions, and show the decisions as they are made."""
    app = build_app()
    for question in ("hello", "A box holds 12 eggs. How many eggs are in 7 boxes?"):
        print(f"> {question}")
        inputs = {"messages": [("user", question)]}
        for _, mode, part in app.stream(inputs, stream_mode=["custom", "values"], subgraphs=True):
            if mode == "custom" and part["type"] == "der.decision":
                print(f"  decision: {part['choice']}")
            elif mode == "values":
                last = part["messages"][-1]
        print(f"  {last.text}")


if __name__ == "__main__":
    main()
