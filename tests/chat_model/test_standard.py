"""LangChain's standard tests of chat models, on an ensemble of two scripted chat models.

What differs from a chat model of one provider, and why:

- `test_init_from_env` is skipped: an ensemble has no key of its own. Each expert has its provider's, and pool
  files read theirs from the environment (`settings: {api_key: "${OPENAI_API_KEY}"}`).
- `test_serdes` is skipped: `ChatDER` is not serialisable (`is_lc_serializable` is False, as it is for every
  chat model that does not say otherwise). It is made of live objects, some of them with keys; a pool file
  and an agent folder are its serialised form.
- `api_key` and `max_retries` are taken and have no effect, as the experts have their own. `timeout` is the
  deadline of the whole route; `temperature` and `max_tokens` go to every expert that is a chat model.
- The tests of images and other media are off: experts receive the text of the question.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_tests", reason="LangChain's standard tests are not installed")

from fakes import ScriptedAgent
from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests
from tool_fakes import tool_expert

from der_graph.chat_model import ChatDER


class TestChatDERStandard(ChatModelUnitTests):
    """The standard tests; those that measure time run once."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatDER

    @property
    def chat_model_params(self) -> dict[str, Any]:
        experts = [tool_expert("a", "one"), tool_expert("b", "two")]
        return {"pool": experts, "agent": ScriptedAgent("a", "b")}

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True
