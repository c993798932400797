"""The graph.

    START ──> der_agent (hub) ──edge: the agent picks──> expert_1 | ... | expert_N | answer ──> END
                  ^                                           |
                  +────────── every expert returns here ──────+

Returned uncompiled, as LangGraph's own prebuilt graphs are, so that the user chooses checkpointer, store,
cache and name. The longest route is enforced by the rules, not by the recursion limit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from langchain_core.runnables import Runnable
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore
from langgraph.types import CachePolicy
from typing_extensions import Self

from der_graph.errors import PoolError, is_number
from der_graph.nodes.answer import answer_node
from der_graph.nodes.approval import approval_node
from der_graph.nodes.decision import RoutingAgent, agent_for_pool
from der_graph.nodes.expert import (
    Expert,
    NodeCache,
    asked_alone,
    expert_node,
    place_of,
    unable_experts,
)
from der_graph.nodes.hub import (
    ANSWER_NODE,
    APPROVAL_NODE,
    HUB_NODE,
    DecisionEdge,
    der_agent,
)
from der_graph.nodes.ktp import KTPTemplate, ktp_template
from der_graph.nodes.parallel import TOGETHER_NODE, Hedged, Tasks, together_node
from der_graph.nodes.reliability import Hedge, check_hedge
from der_graph.nodes.reliability.drift import DriftWatch
from der_graph.nodes.reliability.graph_node import Node
from der_graph.nodes.reliability.threads import StoppableBuilder, StoppableGraph
from der_graph.nodes.rules import RouteRules
from der_graph.nodes.streaming import Audiences
from der_graph.policies.agent import find_agent
from der_graph.policies.planning.probing.drift_watch import watch_for
from der_graph.pool import Pool, as_pool
from der_graph.state import (
    Answer,
    DERContext,
    DEROutput,
    DERState,
    StreamTokens,
    Task,
)


class DERGraph(StoppableGraph):
    """A compiled graph of experts; knows where `NodeCache` keeps their answers."""

    builder: DERGraphBuilder

    def clear_cache(self, nodes: Sequence[str] | None = None) -> None:
        """Forget experts' answers, and what LangGraph keeps for other nodes; see `Pregel.clear_cache`."""
        super().clear_cache(nodes)  # raises where there is no cache
        if self.cache is not None:
            self.cache.clear(self._places(nodes))

    async def aclear_cache(self, nodes: Sequence[str] | None = None) -> None:
        """As `clear_cache`."""
        await super().aclear_cache(nodes)
        if self.cache is not None:
            await self.cache.aclear(self._places(nodes))

    def _places(self, nodes: Sequence[str] | None) -> list[tuple[str, ...]]:
        return [
            place_of(e) for name, (e, _) in self.builder.cached.items() if name in (nodes or [name])
        ]


class DERGraphBuilder(StoppableBuilder):
    """A graph of experts; `compile` hands `cache_policy` of their nodes to `NodeCache`."""

    compiled_class = DERGraph
    cached: Mapping[str, tuple[Expert, Callable[[NodeCache], Any]]]
    """By name, an expert and what makes its node with a cache."""
    uncached: Collection[str]
    """The other nodes of the route. They are never cached: each route decides and ends for itself."""
    _default_cache_policy: CachePolicy[Any] | None = None

    def set_node_defaults(
        self, *, cache_policy: CachePolicy[Any] | None = None, **settings: Any
    ) -> Self:
        """Set what holds for nodes that say nothing else; see `StateGraph.set_node_defaults`."""
        if cache_policy is not None:
            self._default_cache_policy = cache_policy
        super().set_node_defaults(**settings)
        return self

    def compile(self, *args: Any, **settings: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Compile the graph; see `StateGraph.compile`."""
        given, cache = dict(self.nodes), settings.get("cache")
        try:
            for name, spec in given.items():
                policy = spec.cache_policy or self._default_cache_policy
                if policy is None or getattr(
                    spec, "is_error_handler", False
                ):  # from LangGraph 1.2 on
                    continue
                kept = None if name in self.uncached or name in self.cached else policy
                # LangGraph would skip a node of the route, and write again what it wrote then.
                spec = replace(spec, cache_policy=kept)
                if cache is not None and name in self.cached:
                    _, make = self.cached[name]
                    spec = replace(spec, runnable=make(NodeCache(cache, policy)))
                self.nodes[name] = spec
            return super().compile(*args, **settings)
        finally:
            self.nodes.update(given)


DEFAULT_STICKINESS = 0.05


def create_der_graph(
    experts: Pool | Sequence[Any],
    *,
    agent: RoutingAgent | str | os.PathLike[str] | None = None,
    learn: BaseStore | str | os.PathLike[str] | None = None,
    max_steps: int | None = None,
    ktp: str | KTPTemplate | None = None,
    repeat_experts: bool | None = None,
    on_error: Literal["continue", "raise"] = "continue",
    output_mode: Literal["final", "experts"] = "final",
    approve_above: float | None = None,
    stickiness: float = DEFAULT_STICKINESS,
    stream_tokens: StreamTokens = "final",
    parallel: int | None = None,
    hedge: Hedge | None = None,
    watch: DriftWatch | None = None,
    state_schema: type[Any] = DERState,
    context_schema: type[Any] = DERContext,
) -> StateGraph[Any, Any, Any, Any]:
    """Build the graph of Dynamic Ensemble Reasoning.

    Args:
        experts: A pool, or a list of chat models, model strings, functions and experts.
        agent: Picks the next expert or END: `load_agent(...)`, its name, any baseline, or `"planner"`, which
            needs no training. Where left out, the agent that the pool file names, else the planner.
        learn: A LangGraph store, or a SQLite file: the planner learns from its routes, by who agrees with
            whom. With another agent the planner learns beside it, and decides nothing. Whoever wants to rate
            routes, explore or have a judge makes the agent: `der_graph.policies.planning.Learner`.
        max_steps: Longest route, in answers; the pool's setting where left out, or 4. Calls that fail are
            not counted.
        ktp: Template of the Knowledge Transfer Prompt: `default`, `default_all`, `paper`, `none`, or your
            own; the pool's setting where left out.
        repeat_experts: May an expert be asked twice on one route? The pool's setting where left out, or no.
        on_error: `continue`: a failing expert is recorded and the agent chooses again, and where the agent
            itself fails, the answer that is there counts, or a rule chooses (`reason: agent_failed`);
            `raise`: an expert's or the agent's error ends the run.
        output_mode: What is added to `messages`: `final`, the answer alone; `experts`, before it the other
            experts' messages, each with its expert's `name` (an answer is never given twice). In later turns
            experts and agent pass over those drafts.
        approve_above: A person is asked (`interrupt`) before an expert whose price is above this; needs a
            checkpointer. See `der_graph.nodes.approval` for what can be answered.
        stickiness: In a conversation, an expert of the last turn opens this turn as well if its probability
            is at most this much below the best, so that equals do not take turns. 0 turns it off; first
            turns are not touched.
        stream_tokens: Whose tokens the `messages` stream carries: of the `final` answer only, so that what
            a reader has seen is the answer; of the final answer as it comes (`live`); or of `all` experts.
            But for `all`, drafts are events of the `custom` stream. See `der_graph.nodes.streaming`.
        parallel: How many experts the first step of a route asks at once: the agent's choice, and those
            that it finds most probable beside it, within the request's bounds. Their answers are there as
            soon as the slowest has answered, and then it is known whether they agree. The price is that of
            all of them. Agents are not trained for it: they see a route on which so many have answered. The
            pool's setting where left out, or 1.
        hedge: When an expert takes its time, so that the next best one is asked too, within the request's
            bounds, and the first good answer is taken: a number of seconds, or a percentile of the expert's
            own times such as `"p95"`. The call that is given up counts at its full price. What is shown to a
            reader as it comes is not hedged. The pool's setting where left out, or never.
        watch: Notices experts that have become bad, and has them asked as rarely as those that fail; see
            `der_graph.nodes.reliability.drift`. With `learn` there is one.
        state_schema: `DERState` or a subclass of it with fields of your own.
        context_schema: Settings of a request; `DERContext` or something with the same fields.

    Returns:
        An uncompiled graph; `.compile(checkpointer=..., name="der")` it.

    Raises:
        PoolError: If there is no expert, a name is used twice, or a setting cannot be used.
        AgentPoolMismatchError: If the agent was trained for other experts.

    Examples:
        ```python
        from der_graph import create_der_graph, load_pool

        der = create_der_graph(load_pool("demo")).compile(name="der")
        der.invoke({"messages": [("user", "What is 37 * 4?")]})["messages"][-1].content
        ```
    """
    pool = as_pool(experts)
    settings, names = pool.settings, pool.names
    if on_error not in ("continue", "raise"):
        raise PoolError(f"on_error is {on_error!r}; allowed: 'continue', 'raise'")
    if output_mode not in ("final", "experts"):
        raise PoolError(f"output_mode is {output_mode!r}; allowed: 'final', 'experts'")
    if approve_above is not None and not (is_number(approve_above) and approve_above >= 0):
        raise PoolError(f"approve_above is {approve_above!r}; it must be a price >= 0, or left out")
    if not is_number(stickiness) or not 0 <= stickiness <= 1:
        raise PoolError(f"stickiness is {stickiness!r}; it must be from 0 to 1")
    parallel, hedge = _first(parallel, settings.parallel), _first(hedge, settings.hedge)
    if not is_number(parallel) or parallel < 1 or parallel % 1:
        raise PoolError(f"parallel is {parallel!r}; it must be a whole number, at least 1")
    if hedge is not None:
        check_hedge(hedge)
    _check_state_schema(state_schema)

    rules = RouteRules.of(
        list(pool),
        max_steps=_first(max_steps, settings.max_steps),
        repeat_experts=_first(repeat_experts, settings.repeat_experts),
        cost_unit=settings.cost_unit if isinstance(experts, Pool) else "",  # a list does not say
    )
    template = ktp_template(_first(ktp, settings.ktp))

    chosen = agent_for_pool(find_agent(agent, pool, learn=learn), rules)
    members = asked_alone(list(pool), getattr(chosen, "alone", ()), template)
    if watch is None and learn is not None:
        watch = watch_for(pool)
    graph = DERGraphBuilder(
        state_schema, context_schema=context_schema, output_schema=_output_schema(state_schema)
    )
    graph.add_node(HUB_NODE, Node(HUB_NODE, der_agent))
    graph.add_edge(START, HUB_NODE)
    nodes = {e.name: expert_node(e, template, on_error=on_error) for e in members}
    others = {e.name: expert_node(e, template) for e in members}

    def hedged(
        expert: Expert, node: Runnable[Task, dict[str, Any]]
    ) -> Runnable[Task, dict[str, Any]]:
        if hedge is None:
            return node
        return Hedged(expert, node, others, rules.prices, hedge, template).node()

    def cached(expert: Expert, kept: NodeCache) -> Runnable[Task, dict[str, Any]]:
        return hedged(expert, expert_node(expert, template, on_error=on_error, kept=kept))

    graph.cached = {expert.name: (expert, partial(cached, expert)) for expert in members}
    graph.uncached = (HUB_NODE, ANSWER_NODE, APPROVAL_NODE, TOGETHER_NODE)
    for expert in members:
        graph.add_node(
            expert.name,
            hedged(expert, nodes[expert.name]),
            input_schema=Task,
            metadata={"der_expert": expert.name, "der_cost": expert.cost},
        )
        graph.add_edge(expert.name, HUB_NODE)
    graph.add_node(
        ANSWER_NODE,
        answer_node(getattr(chosen, "select", None), output_mode, _told_of_ends(chosen, watch)),
        input_schema=Task,
    )
    graph.add_edge(ANSWER_NODE, END)
    targets = [*names, ANSWER_NODE]
    if approve_above is not None:
        approve = approval_node(rules.prices)
        graph.add_node(APPROVAL_NODE, approve, input_schema=Task, destinations=(*targets, HUB_NODE))
        targets.append(APPROVAL_NODE)
    if parallel > 1:
        together = together_node(nodes, HUB_NODE, template)
        graph.add_node(TOGETHER_NODE, together, input_schema=Tasks, destinations=(HUB_NODE, *names))
        targets.append(TOGETHER_NODE)
    audiences = Audiences(
        rules,
        stream_tokens,
        frozenset(expert.name for expert in members if not expert.charge.fixed),
        votes=hasattr(chosen, "select"),
        steady=frozenset(expert.name for expert in members if expert.is_local),
    )
    edge = DecisionEdge(
        chosen,
        rules,
        stickiness=stickiness,
        approve_above=approve_above,
        audiences=audiences,
        unavailable=partial(_unavailable, members, watch),
        unable=partial(unable_experts, members, template),
        counts_tokens=any(expert.counts_tokens for expert in members),
        on_error=on_error,
        parallel=parallel,
        hedged=hedge is not None,
    )
    graph.add_conditional_edges(HUB_NODE, edge.node(), targets)
    return graph


def _unavailable(members: Sequence[Expert], watch: DriftWatch | None) -> list[str]:
    """Those that fail again and again, and those that have become bad."""
    bad = frozenset[str]() if watch is None else watch.set_aside()
    return [m.name for m in members if m.name in bad or not m.health.breaker.allows()]


def _told_of_ends(
    agent: RoutingAgent, watch: DriftWatch | None
) -> Callable[[str, str, Sequence[Answer]], None] | None:
    """What is told of every route that ends: an agent that learns, and the watch."""
    learns: Callable[[str, str, Sequence[Answer]], None] | None = getattr(agent, "ended", None)
    if watch is None:
        return learns

    def ended(key: str, question: str, answers: Sequence[Answer]) -> None:
        watch.ended(key, answers)
        if learns is not None:
            learns(key, question, answers)

    return ended


def _output_schema(state_schema: type[Any]) -> type[Any]:
    """A user's own state comes out whole; of `DERState` what is internal stays inside."""
    return DEROutput if state_schema is DERState else state_schema


def _check_state_schema(schema: type[Any]) -> None:
    name = schema.__name__ if isinstance(schema, type) else repr(schema)
    if dict not in getattr(schema, "__mro__", ()):  # the nodes read the state by key
        raise PoolError(
            f"state_schema {name} is not a TypedDict; "
            "extend der_graph.DERState: class MyState(DERState): ..."
        )
    missing = sorted(set(DERState.__annotations__) - set(schema.__annotations__))
    if missing:
        raise PoolError(
            f"state_schema {name} has no field '{missing[0]}'; "
            "extend der_graph.DERState: class MyState(DERState): ..."
        )


def _first(*values: Any) -> Any:
    """The first value that was given."""
    return next((value for value in values if value is not None), None)
