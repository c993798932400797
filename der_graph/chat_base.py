"""What `ChatDER` is made of: its settings, its graph, and how it names itself to LangChain.

    pool, agent, settings ──Request──> compiled graph over the experts as this call wants them

Knows nothing of calls; they are in `chat_model.py`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr

from der_graph.chat_answer import answer_of
from der_graph.chat_runs import RUNS
from der_graph.chat_settings import (
    CONTEXT_FIELDS,
    SAMPLING,
    Equipment,
    Request,
    agent_fingerprint,
    check_names,
    equipped,
    request_of,
)
from der_graph.graph import create_der_graph
from der_graph.nodes.deciding import SharedAgent
from der_graph.policies.agent import load_agent
from der_graph.pool import Pool, load_pool, pool_from


class BaseChatDER(BaseChatModel):
    """Settings, graph and identity of `ChatDER`."""

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    pool: Any = Field(default="demo", exclude=True, repr=False)
    """A pool, the path of a pool file, `demo`, or experts in the order that the agent knows."""
    agent: Any = Field(default="demo", exclude=True, repr=False)
    """The agent: an object, an agent folder, a Hub id, or `demo`."""
    model_name: str = "der"
    """Name in traces and in `response_metadata`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of a route where the call gives no others, by the names of `DERContext`."""
    temperature: float | None = None
    """Handed on to experts that are chat models, in place of their own."""
    max_tokens: int | None = None
    """Longest answer of each such expert, in place of its own."""
    stop: list[str] | None = None
    """Texts that end the answer and are not part of it. Drafts are not cut."""
    timeout: float | None = None
    """LangChain's word for `deadline`: seconds for the whole route."""
    streaming: bool = False
    """Stream in `invoke` as well, for whoever listens to the callbacks?"""
    max_retries: int | None = None
    """Without effect, as experts have their own; taken for code that builds any chat model."""
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """Without effect, as experts have their own; taken for code that builds any chat model."""

    _graphs: dict[Equipment, Any] = PrivateAttr(default_factory=dict)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)
    _deciding: Any = PrivateAttr(default=None)
    _agent_fingerprint: str = PrivateAttr(default="")

    def __init__(self, **given: Any) -> None:
        """Load pool and agent where they are named, and check all settings."""
        # Here and not in validators: pydantic would wrap the errors in its own.
        check_names(list(given), {*type(self).model_fields, *CONTEXT_FIELDS})
        route = {name: given.pop(name) for name in CONTEXT_FIELDS if name in given}
        given["settings"] = {**(given.get("settings") or {}), **route}
        super().__init__(**given)
        if isinstance(self.pool, (str, os.PathLike)):
            self.pool = load_pool(os.fspath(self.pool))
        elif not isinstance(self.pool, Pool):
            self.pool = pool_from(self.pool)
        if isinstance(self.agent, (str, os.PathLike)):
            self.agent = load_agent(self.agent)
        # A trained agent chooses by the situations alone; one of the user's own stays in its thread.
        trained = hasattr(self.agent, "save_pretrained")
        self._deciding = SharedAgent(self.agent) if trained else self.agent
        self._request(None, {})
        self._graph(Equipment())

    def _request(self, stop: Sequence[str] | None, given: Mapping[str, Any]) -> Request:
        own = {name: getattr(self, name) for name in (*SAMPLING, "stop", "timeout")}
        return request_of({**own, **self.settings}, given, stop)

    def _graph(self, equipment: Equipment) -> Any:
        """The compiled graph over experts that are called in a certain way."""
        with self._lock:
            if equipment not in self._graphs:
                if len(self._graphs) > 16:  # tools that are made anew for every call
                    self._graphs.clear()
                graph = create_der_graph(equipped(self.pool, equipment), agent=self._deciding)
                self._graphs[equipment] = graph.compile(checkpointer=False, name="der")
            return self._graphs[equipment]

    def _answer(self, state: Mapping[str, Any], request: Request) -> AIMessage:
        unit = self.pool.settings.cost_unit
        return answer_of(state, model_name=self.model_name, cost_unit=unit, stop=request.stop)

    # How it names itself -----------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "der"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        # All that an answer depends on and no secret: LangChain's caches and tracers read this.
        settings = self.pool.settings
        # Once: agents may be large.
        self._agent_fingerprint = self._agent_fingerprint or agent_fingerprint(self.agent)
        return {
            "model_name": self.model_name,
            "experts": list(self.pool.names),
            "pool": self.pool.fingerprint,
            "max_steps": settings.max_steps,
            "repeat_experts": settings.repeat_experts,
            "agent": self._agent_fingerprint,
            **{name: getattr(self, name) for name in (*SAMPLING, "stop", "timeout")},
            **self.settings,
        }

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        kwargs.pop(RUNS, None)
        return super()._get_invocation_params(stop, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        given = LangSmithParams(
            ls_provider="der",
            ls_model_name=kwargs.get("model") or self.model_name,
            ls_model_type="chat",
        )
        temperature = kwargs.get("temperature", self.temperature)
        max_tokens = kwargs.get("max_tokens", self.max_tokens)
        stops = stop or self.stop
        if temperature is not None:
            given["ls_temperature"] = temperature
        if max_tokens is not None:
            given["ls_max_tokens"] = max_tokens
        if stops:
            given["ls_stop"] = list(stops)
        return given
