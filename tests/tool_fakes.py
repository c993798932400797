"""A scripted chat model that can be given tools, for tests of what calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field

from der_graph.nodes.expert import Expert


class ToolModel(BaseChatModel):
    """Gives its answers in turn, the last one for ever; remembers prompts and settings."""

    answers: list[Any]
    prompts: list[list[BaseMessage]] = Field(default_factory=list)
    settings: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "tool-fake"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[Any, AIMessage]:
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=list(tools), **choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answer = self.answers[min(len(self.prompts), len(self.answers) - 1)]
        self.prompts.append(messages)
        self.settings.append({**kwargs, "stop": stop} if stop else kwargs)
        if isinstance(answer, Exception):
            raise answer
        message = AIMessage(answer) if isinstance(answer, str) else answer.model_copy()
        return ChatResult(generations=[ChatGeneration(message=message)])


def tool_expert(name: str, *answers: Any, cost: float = 1.0) -> Expert:
    """An expert on a `ToolModel`, which is its `model`."""
    return Expert(name, ToolModel(answers=list(answers)), cost=cost)
