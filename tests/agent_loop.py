"""An agent of LangChain with `DERMiddleware`, a tool, and agents that follow a script by call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fakes import ScriptedAgent
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from der_graph.middleware import DERMiddleware
from der_graph.nodes.decision import Choice
from der_graph.state import Situation


@tool
def double(number: int) -> int:
    """Twice a number."""
    if number < 0:
        raise ValueError("no number below 0")
    return 2 * number


def call(number: int, **more: Any) -> AIMessage:
    calls = [{"name": "double", "args": {"number": number}, "id": f"call-{number}"}]
    return AIMessage("", tool_calls=calls, **more)


def ask(agent: Any, **more: Any) -> Any:
    return agent.invoke({"messages": [("user", "What is twice 21?")]}, **more)


class ByCall(ScriptedAgent):
    """Follows a script by model call of the run; within one call, the next allowed one after a failure."""

    def _choose(self, situation: Situation) -> Choice:
        assert situation.loop is not None
        wanted = self.script[min(situation.loop.calls, len(self.script) - 1)]
        index = self.names.index(wanted)
        if not situation.mask[index]:
            index = situation.mask.index(True)
        return Choice(index, [float(i == index) for i in range(len(situation.mask))])


def agent_of(
    experts: Sequence[Any], chooser: Any, *around: Any, tools: Any = (double,), **settings: Any
) -> Any:
    der = DERMiddleware(experts, agent=chooser, **settings)
    return create_agent(der.model, list(tools), middleware=[*around, der])


def choices(result: Any) -> list[str]:
    return [step["choice"] for step in result["der_route"]]


class Checker(ScriptedAgent):
    """Asks the second expert about every first answer, then ends."""

    def __init__(self) -> None:
        super().__init__("small", "large")
