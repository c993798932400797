"""Asks graphs, an encoder and a local model, forks, and asks them in the child: run by `test_forking.py`.

python tests/forked.py FOLDER     (FOLDER/model: a tiny model; prints a line of each, and exits with 0)
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from der_graph import create_der_graph
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.langchain import as_expert
from der_graph.policies.observation import SentenceEncoder

SECONDS = 60
"""A child that needs more hangs."""


async def waits(messages: Any) -> AIMessage:
    await asyncio.sleep(0.01)
    return AIMessage("right")


def answers(graph: Any, way: str) -> Callable[[str], str]:
    def answer(question: str) -> str:
        given = {"messages": [("user", question)]}
        state = asyncio.run(graph.ainvoke(given)) if way == "ainvoke" else graph.invoke(given)
        return str(state["messages"][-1].content)

    return answer


def asked_in_a_child(name: str, ask: Callable[[str], object]) -> None:
    ask("first?")
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        print(name, ask("second?"), ask("third?"), flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"{name}: status {status}")
    ask("fourth?")  # the parent goes on


def main(folder: Path) -> None:
    experts: dict[str, Callable[[], Any]] = {
        "function": lambda: lambda question: "right",
        "coroutine": lambda: RunnableLambda(waits),
        "chat": lambda: FakeListChatModel(responses=["right"]),
        "local": lambda: HuggingFaceChat(
            model=str(folder / "model"), generation={"max_new_tokens": 2}
        ),
    }
    for name, make in experts.items():
        pool = [as_expert(make(), name=one, cost=1.0) for one in ("a", "b")]
        learn = str(folder / "routes.db") if name == "function" else None
        graph = create_der_graph(pool, learn=learn).compile()
        for way in ("invoke", "ainvoke"):
            asked_in_a_child(f"{name} {way}", answers(graph, way))
    encoder = SentenceEncoder()
    asked_in_a_child("encoder", lambda text: encoder.encode([text]).shape[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
