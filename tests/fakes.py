"""Scripted experts and agents, for tests of everything around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import Field

from der_graph.nodes.decision import Choice
from der_graph.nodes.expert import Expert
from der_graph.state import END_CHOICE, Answer, Situation, blank_answer


class ScriptedModel:
    """Gives its answers in turn, the last one for ever; an exception among them is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.prompts: list[list[BaseMessage]] = []

    def __call__(self, messages: list[BaseMessage]) -> Any:
        answer = self.answers[min(len(self.prompts), len(self.answers) - 1)]
        self.prompts.append(messages)
        if isinstance(answer, Exception):
            raise answer
        return AIMessage(answer) if isinstance(answer, str) else answer


class FunctionChat(BaseChatModel):
    """A chat model that says what a function of the prompt's last message says.

    Attributes:
        says: The function.
        prompts: What it was asked, in order.
    """

    says: Callable[[str], str]
    prompts: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "function"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.prompts.append(messages[-1].text)
        said = AIMessage(self.says(messages[-1].text))
        return ChatResult(generations=[ChatGeneration(message=said)])


def scripted_expert(
    name: str, *answers: Any, cost: float = 1.0, **more: Any
) -> tuple[Expert, ScriptedModel]:
    """An expert and the model behind it, which remembers its prompts."""
    model = ScriptedModel(*answers)
    return Expert(name, RunnableLambda(model, name=f"model-{name}"), cost=cost, **more), model


def three_experts() -> tuple[list[Expert], dict[str, ScriptedModel]]:
    """At 1, 2 and 7, with the models behind them by name."""
    made = {
        "small": scripted_expert("small", "It is 5.", cost=1.0),
        "middle": scripted_expert("middle", "It is 6.", cost=2.0),
        "large": scripted_expert("large", "It is 7.", cost=7.0),
    }
    return [e for e, _ in made.values()], {name: model for name, (_, model) in made.items()}


def chat_expert(name: str, *answers: str, cost: float = 1.0) -> Expert:
    """An expert on a real chat model class, which streams word by word."""

    def replies() -> Iterator[AIMessage]:
        yield from (AIMessage(answer) for answer in answers)

    return Expert(name, GenericFakeChatModel(messages=replies()), cost=cost)


class ScriptedAgent:
    """Follows a list of experts' names, by step, and ends after it.

    Where the script cannot be followed because the mask forbids it, the first choice allowed is taken.
    """

    def __init__(self, *script: str) -> None:
        self.script = script
        self.names: list[str] = []
        self.seen: list[Situation] = []

    def check_pool(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        self.seen.extend(situations)
        return [self._choose(situation) for situation in situations]

    def _choose(self, situation: Situation) -> Choice:
        choices = [*self.names, END_CHOICE]
        step = len(situation.answers)
        wanted = self.script[step] if step < len(self.script) else END_CHOICE
        index = choices.index(wanted)
        if not situation.mask[index]:
            index = situation.mask.index(True)
        return Choice(index, [float(i == index) for i in range(len(choices))], value=0.5)


class FailingAgent(ScriptedAgent):
    """Raises the first time it is asked about a step."""

    def __init__(self, step: int, *script: str) -> None:
        super().__init__(*script)
        self.step = step
        self.raised = False

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        if len(situations[0].answers) == self.step and not self.raised:
            self.raised = True
            raise ConnectionError("the policy server is away")
        return super().decide(situations)


class AskingAgent(ScriptedAgent):
    """Lets a person choose the second expert."""

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        if len(situations[0].answers) == 1:
            self.script = (self.script[0], interrupt({"after": situations[0].answers[0]["text"]}))
        return super().decide(situations)


def said(expert: str, value: str | None, *, error: str | None = None) -> Answer:
    """An answer that comes to a value; None for nothing short."""
    answer = an_answer(expert, value or "well", error=error)
    answer["value"] = None if error else value
    return answer


def an_answer(
    expert: str = "a", text: str = "42", *, error: str | None = None, cost: float = 1.0
) -> Answer:
    """An answer with everything filled in."""
    return blank_answer(expert, text="" if error else text, cost=cost, error=error)


def a_human(text: str) -> dict[str, Any]:
    """The usual input of the graph."""
    return {"messages": [("user", text)]}


def thread() -> RunnableConfig:
    """Where a checkpointer keeps the conversation."""
    return {"configurable": {"thread_id": "1"}}


def route_of(result: dict[str, Any]) -> list[str]:
    """The choices of a route, in order."""
    return [step["choice"] for step in result["route"]]


def parent_of(builder: Any) -> Any:
    """The graph as a node of another one."""
    outer: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    outer.add_node("der", builder.compile(name="der"))
    outer.add_edge(START, "der")
    outer.add_edge("der", END)
    return outer.compile()
