"""A LangChain agent whose every model call is made by the expert that suits it.

Run it with `python examples/agent_middleware.py`. Scripted models stand for a small and a large one, so it
needs no key. The small one begins, its tool call fails, and the large one recovers. With your own models:

    small = as_expert("openai:gpt-4.1-mini", name="small", cost=0.4)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import tool

from der_graph import DERMiddleware
from der_graph.nodes.langchain import as_expert
from der_graph.policies.baselines import Single
from der_graph.state import DERContext

ROOMS = {4: "quiet", 7: "by the lift"}


@tool
def book(room: int) -> str:
    """Book a room by its number."""
    if room not in ROOMS:
        raise ValueError(f"there is no room {room}; there are {sorted(ROOMS)}")
    return f"room {room} is booked"


class Program(BaseChatModel):
    """A program behind the interface of a chat model that calls tools."""

    def reply(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """What it says to a conversation, or calls."""
        raise NotImplementedError

    @property
    def _llm_type(self) -> str:
        return "program"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[Any, AIMessage]:
        """Take tools, as models do that can call them."""
        return self.bind(tools=list(tools))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.reply(messages))])


class Scripted(Program):
    """Stands for a model: wants one room, and says so when it has it."""

    room: int

    def reply(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """Book, or say that it is done."""
        if messages[-1].text.endswith("is booked"):
            return AIMessage(f"Done: {messages[-1].text}.")
        wanted = {"name": "book", "args": {"room": self.room}, "id": f"book-{self.room}"}
        return AIMessage("", tool_calls=[wanted])


def main() -> dict[str, Any]:
    """Book a room, and show who did what."""
    pool = [
        as_expert(Scripted(room=9), name="small", cost=1.0),
        as_expert(Scripted(room=4), name="large", cost=10.0),
    ]
    der = DERMiddleware(
        pool,
        agent=Single(["small", "large"], [1.0, 10.0], "small"),
        bounds=DERContext(max_cost=25.0),
    )
    agent: Any = create_agent(
        der.model, [book], middleware=[ToolRetryMiddleware(max_retries=0), der]
    )
    result: dict[str, Any] = agent.invoke({"messages": [("user", "Book a quiet room.")]})
    for step in result["der_route"]:
        print(f"call {step['call']}: {step['phase']:10} -> {step['choice']}")
    print(result["messages"][-1].text, "It cost", result["der_cost"])
    return result


if __name__ == "__main__":
    main()
