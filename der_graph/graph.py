"""The graph.

    START ──> der_agent (hub) ──edge: the agent picks──> expert_1 | ... | expert_N | answer ──> END
                  ^                                           |
                  +────────── every expert returns here ──────+

Returned uncompiled, as LangGraph's own prebuilt pieces are, so that the user chooses checkpointer, store,
cache and name. The longest route is enforced by the rules, not by the recursion limit. Knows nothing of
training.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import END, START, StateGraph

from der_graph.errors import PoolError
from der_graph.nodes.expert import Expert, expert_node
from der_graph.nodes.hub import ANSWER_NODE, HUB_NODE, RoutingAgent, decision_edge, der_agent
from der_graph.nodes.ktp import KTPTemplate, ktp_template
from der_graph.nodes.rules import RouteRules
from der_graph.state import (
    Answer,
    DERContext,
    DEROutput,
    DERState,
    RouteStep,
    Task,
    answers_of,
    good_answers,
)

if TYPE_CHECKING:
    from der_graph.pool import Pool

DEFAULT_MAX_STEPS = 4


def create_der_graph(
    experts: Pool | Sequence[Expert],
    *,
    agent: RoutingAgent,
    max_steps: int | None = None,
    ktp: str | KTPTemplate | None = None,
    repeat_experts: bool | None = None,
    on_error: Literal["continue", "raise"] = "continue",
    state_schema: type[Any] = DERState,
    context_schema: type[Any] = DERContext,
) -> StateGraph[Any, Any, Any, Any]:
    """Build the graph of Dynamic Ensemble Reasoning.

    Args:
        experts: A pool, or experts in the order that the agent knows.
        agent: Picks the next expert or END: `load_agent(...)`, or any baseline.
        max_steps: Longest route, in calls; the pool's setting where left out, or 4.
        ktp: Template of the Knowledge Transfer Prompt: `default`, `default_all`, `paper`, `none`, or your
            own; the pool's setting where left out.
        repeat_experts: May an expert be asked twice on one route? The pool's setting where left out, or no.
        on_error: `continue`: a failing expert is recorded and the agent chooses again; `raise`: its error
            ends the run.
        state_schema: `DERState` or a subclass of it with fields of your own.
        context_schema: Settings of a request; `DERContext` or something with the same fields.

    Returns:
        An uncompiled graph; `.compile(checkpointer=..., name="der")` it.

    Raises:
        PoolError: If there is no expert, a name is used twice, or a setting cannot be used.
        AgentPoolMismatchError: If the agent was trained for other experts.

    Examples:
        ```python
        from der_graph import create_der_graph, load_agent, load_pool

        der = create_der_graph(load_pool("demo"), agent=load_agent("demo")).compile(name="der")
        der.invoke({"messages": [("user", "What is 37 * 4?")]})["messages"][-1].content
        ```
    """
    settings = getattr(experts, "settings", None)
    members: list[Expert] = list(getattr(experts, "experts", experts))
    if not members:
        raise PoolError("the pool has no experts; add at least one")
    names = tuple(expert.name for expert in members)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise PoolError(f"two experts are named '{doubled[0]}'; names must be unique")
    if on_error not in ("continue", "raise"):
        raise PoolError(f"on_error is {on_error!r}; allowed: 'continue', 'raise'")
    _check_state_schema(state_schema)
    agent.check_pool(names)

    rules = RouteRules(
        names=names,
        costs=tuple(expert.cost for expert in members),
        max_steps=_first(max_steps, getattr(settings, "max_steps", None), DEFAULT_MAX_STEPS),
        repeat_experts=_first(repeat_experts, getattr(settings, "repeat_experts", None), False),
    )
    template = ktp_template(_first(ktp, getattr(settings, "ktp", None), None))

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        state_schema, context_schema=context_schema, output_schema=_output_schema(state_schema)
    )
    graph.add_node(HUB_NODE, der_agent)
    graph.add_edge(START, HUB_NODE)
    for expert in members:
        graph.add_node(
            expert.name,
            expert_node(expert, template, on_error=on_error),
            input_schema=Task,
            metadata={"der_expert": expert.name, "der_cost": expert.cost},
        )
        graph.add_edge(expert.name, HUB_NODE)
    graph.add_node(ANSWER_NODE, answer_node(getattr(agent, "select", None)), input_schema=Task)
    graph.add_edge(ANSWER_NODE, END)
    graph.add_conditional_edges(HUB_NODE, decision_edge(agent, rules), [*names, ANSWER_NODE])
    return graph


def answer_node(
    select: Callable[[Sequence[Answer]], int] | None = None,
) -> Runnable[Task, dict[str, Any]]:
    """Make the node that closes the route: one answer becomes the one message that the graph adds.

    Args:
        select: Chooses among the good answers, for agents that vote; the last one counts if left out.
    """

    def answer(task: Task) -> dict[str, Any]:
        answers = answers_of(task["route"])
        good = good_answers(answers)  # not empty: the rules allow END only once there is an answer
        final = good[-1 if select is None else select(good)]
        tokens_in = sum(each["input_tokens"] for each in answers)
        tokens_out = sum(each["output_tokens"] for each in answers)
        message = AIMessage(
            content=final["text"],
            id=f"der-{uuid.uuid4()}",  # fixed here, so that reducers of parent graphs recognise it
            usage_metadata=UsageMetadata(
                input_tokens=tokens_in,
                output_tokens=tokens_out,
                total_tokens=tokens_in + tokens_out,
            ),
            response_metadata={
                "der_experts": [each["expert"] for each in answers],
                "der_cost": sum(each["cost"] for each in answers),
            },
        )
        route = [*task["route"], RouteStep(**task["decision"], answer=None)]
        return {"messages": [message], "answer": final["text"], "route": route}

    return RunnableLambda(answer, name=ANSWER_NODE)


def _output_schema(state_schema: type[Any]) -> type[Any]:
    """A user's own state comes out whole; of `DERState` what is internal stays inside."""
    return DEROutput if state_schema is DERState else state_schema


def _check_state_schema(schema: type[Any]) -> None:
    if dict not in schema.__mro__:  # the nodes read the state by key
        raise PoolError(
            f"state_schema {schema.__name__} is not a TypedDict; "
            "extend der_graph.DERState: class MyState(DERState): ..."
        )
    missing = sorted(set(DERState.__annotations__) - set(schema.__annotations__))
    if missing:
        raise PoolError(
            f"state_schema {schema.__name__} has no field '{missing[0]}'; "
            "extend der_graph.DERState: class MyState(DERState): ..."
        )


def _first(*values: Any) -> Any:
    """The first value that was given."""
    return next((value for value in values if value is not None), None)
