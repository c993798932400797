"""The graphs behind the server: the ensemble's, and one for each expert alone.

    ChatRequest ──run──> event, text, event, text, ..., Outcome

Loading happens in a thread (`load`), everything else on the event loop; experts that run here generate in
threads of their own, and calls that come together are answered in one batch (`der_graph.nodes.batching`).

With an answer cache, experts look into it before they generate. A cached answer is charged as if it had
been generated, so that budgets and routes do not depend on what was asked before. A cache that cannot be
read or written is reported, and does no other harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage

from der_graph.errors import PoolError
from der_graph.graph import create_der_graph
from der_graph.nodes.answer import ROUTE_ID, finished
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.model_settings import has_setting
from der_graph.nodes.providers.secrets import mask_secrets
from der_graph.nodes.reliability.drift import DriftWatch
from der_graph.policies.answers import AnswerCache, with_cache
from der_graph.policies.baselines import Single
from der_graph.policies.planning import Learner
from der_graph.policies.planning.probing.drift_watch import watch_for
from der_graph.pool.pool import Pool, preload
from der_graph.server.chat_replies import Outcome
from der_graph.server.chat_requests import ENSEMBLE, ChatRequest
from der_graph.server.failures import RequestError
from der_graph.server.limits import Ceilings
from der_graph.server.metrics import Metrics
from der_graph.state import DERContext, answer_only

log = logging.getLogger("der_graph.server")


@dataclass
class Account:
    """What one request costs, and which of its calls failed; told the events of its route.

    Attributes:
        request_id: Names the request in the log.
        prices: What a call of each expert costs.
        cost: Cost so far; a call that is not over yet, or was given up, counts in full.
    """

    request_id: str = "-"
    prices: Mapping[str, float] = field(default_factory=dict)
    _spent: float = 0.0
    _running: dict[str, float] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """Cost so far."""
        return self._spent + sum(self._running.values())

    def note(self, event: Mapping[str, Any]) -> None:
        """Note an event of the route; of a call that failed the log is told why."""
        if event["type"] == "der.decision":
            self._running[event["choice"]] = self.prices.get(event["choice"], 0.0)
        elif event["type"] == "der.answer":
            self._running.pop(event["expert"], None)
            self._spent += event["cost"]
            if event["error"] is not None and event.get("failure") != "overtaken":
                shown = mask_secrets(event["error"])
                log.warning(
                    "request %s: expert %s failed: %s", self.request_id, event["expert"], shown
                )
        elif event["type"] == "der.final":
            self._running.clear()  # of one that was left out nothing more is heard


@dataclass
class Engine:
    """Pool and agent, ready to answer.

    Attributes:
        pool: The experts.
        load_agent: Gives the agent; called in the thread that loads.
        metrics: Is told what happens.
        cache: Where answers are kept, or None.
        ceilings: Default and upper bound of what requests may set.
        ready: Is everything loaded?
        learner: The agent, where it learns while serving.
        watch: Notices experts that have become bad; there once everything is loaded.
    """

    pool: Pool
    load_agent: Callable[[], RoutingAgent]
    metrics: Metrics
    cache: AnswerCache | None = None
    ceilings: Ceilings = field(default_factory=Ceilings)
    ready: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    fingerprint: str = ""
    learner: Learner | None = None
    watch: DriftWatch | None = None
    _graphs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if ENSEMBLE in self.pool:
            raise PoolError(
                f"an expert is named '{ENSEMBLE}', which is the server's name for the ensemble; rename it"
            )
        for name in self.pool.names:
            if name.startswith(f"{ENSEMBLE}/"):
                raise PoolError(
                    f"an expert is named '{name}', but what follows '{ENSEMBLE}/' is a price of cost for the "
                    "server; rename it"
                )

    @property
    def models(self) -> list[str]:
        """Names that a request may ask for."""
        return [ENSEMBLE, *self.pool.names]

    @property
    def prices(self) -> dict[str, float]:
        """What one call of each expert costs at most."""
        return self.pool.rules.prices

    def dearest(self, model: str, context: DERContext) -> float:
        """The most that a request to a model can cost."""
        if model != ENSEMBLE:
            return self.prices[model]
        rules, wanted = self.pool.rules, context.max_steps or None
        if self.pool.settings.hedge is not None:  # each may be asked beside another
            rules, wanted = replace(rules, max_steps=2 * rules.steps(wanted)), None
        most = rules.dearest(wanted)
        return most if context.max_cost is None else min(most, context.max_cost)

    @property
    def cost_unit(self) -> str:
        """What costs count."""
        return self.pool.settings.cost_unit

    def load(self, progress: Callable[[str], None] = lambda line: None) -> None:
        """Load agent and experts, and build the graphs. Takes its time: not for the event loop.

        Raises:
            DERError: If something cannot be loaded.
        """
        agent = self.load_agent()
        self.learner = agent if isinstance(agent, Learner) else None
        self.watch = watch_for(self.pool)
        pool = self.pool
        if self.cache is not None:
            cached = [with_cache(each, self.cache, self.metrics.looked_up) for each in pool]
            pool = replace(pool, experts=tuple(cached))
        graphs = {
            ENSEMBLE: create_der_graph(pool, agent=agent, watch=self.watch).compile(name=ENSEMBLE)
        }
        for expert in pool:
            asks = Single([expert.name], [expert.cost], expert.name)
            alone = create_der_graph(replace(pool, experts=(expert,)), agent=asks, max_steps=1)
            graphs[expert.name] = alone.compile(name=expert.name)
        preload(agent, pool, progress)
        self.fingerprint = f"fp_{pool.fingerprint}"
        self._graphs = graphs
        self.ready = True
        self.metrics.ready.set(1)

    def ailing(self) -> dict[str, dict[str, Any]]:
        """What is wrong with experts, by name: not asked for a while, calls hang, or answers became bad."""
        bad = frozenset() if self.watch is None else self.watch.suspected
        found = {}
        for expert in self.pool:
            view = expert.health.view()
            if expert.name in bad:
                view["suspected"] = True
            if view["state"] != "closed" or view["hung"] or expert.name in bad:
                found[expert.name] = view
        return found

    def check(self, model: str) -> None:
        """Check that a request can be taken.

        Raises:
            RequestError: 404 for a model that there is not, 503 while loading.
        """
        if model not in self.models:
            message = f"there is no model {model[:80]!r}; there are: {', '.join(self.models)}"
            raise RequestError(404, message, param="model", code="model_not_found")
        if not self.ready:
            raise RequestError(
                503, "the models are being loaded; try again soon", code="not_ready", retry_after=2
            )

    async def run(
        self, request: ChatRequest, account: Account | None = None, route_id: str = ""
    ) -> AsyncGenerator[Mapping[str, Any] | str | Outcome, None]:
        """Answer a request.

        Args:
            request: The request, whose model was checked.
            account: Is told the events of the route.
            route_id: What feedback will name the route by.

        Yields:
            Events of the route; for streams, pieces of the final answer; the outcome last. Close it to stop
            the route: what an expert generates for it then ends within one token.
        """
        start = time.perf_counter()
        account = account or Account()
        modes = ["custom", "values"] + (["messages"] if request.stream else [])
        parts = self._graphs[request.model].astream(
            {"messages": request.messages},
            {
                "run_name": f"der serve {request.model}",
                "metadata": {ROUTE_ID: route_id} if route_id else {},
            },
            context=answer_only(request.context),
            stream_mode=modes,
        )
        state: dict[str, Any] = {}
        speaker = None
        async with aclosing(parts):
            async for mode, part in parts:
                if mode == "values":
                    state = part
                elif mode == "custom":
                    self.metrics.event(part)
                    account.note(part)
                    yield part
                elif isinstance(part[0], AIMessage) and part[0].text:
                    message = part[0]
                    if speaker not in (None, message.id):
                        yield "\n\n"  # what was said before came to nothing: its expert failed
                    speaker = message.id
                    yield message.text
        outcome = outcome_of(state, time.perf_counter() - start)
        self.metrics.outcome(request.model, outcome)
        yield outcome

    def without_effect(self, request: ChatRequest) -> tuple[str, ...]:
        """Parameters of a request that none of its experts has."""
        asked = request.context.model_settings or {}
        experts = self.pool if request.model == ENSEMBLE else [self.pool[request.model]]
        kept = {name for name in asked if any(has_setting(each.model, name) for each in experts)}
        # The server sees to these itself.
        kept |= {"stop", "response_format", "tools", "tool_choice", "parallel_tool_calls"}
        return tuple(sorted({*request.ignored, *(name for name in asked if name not in kept)}))


def outcome_of(state: Mapping[str, Any], seconds: float) -> Outcome:
    """What a finished route means for its caller.

    Args:
        state: What the graph gave back.
        seconds: Wall clock of the whole.

    Raises:
        ExpertError: If the route waits for a person.
    """
    final = finished(state)["messages"][-1]
    return Outcome(
        state["answer"],
        state["route"],
        float(state["cost"]),
        seconds,
        final.response_metadata.get("finish_reason", "stop"),
        tuple(final.tool_calls),
        final.response_metadata.get("logprobs"),
    )
