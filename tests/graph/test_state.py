from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from fakes import ScriptedAgent, an_answer, scripted_expert

from der_graph import create_der_graph, state
from der_graph.nodes.parallel import Tasks
from der_graph.state import (
    DERContext,
    DEROutput,
    DERState,
    RouteStep,
    answers_of,
    as_context,
    good_answers,
)

SET = DERContext(max_cost=3.0, max_steps=2, cost_weight=0.1)


@dataclass
class ParentContext:
    """The context of somebody else's graph."""

    user: str
    max_cost: float


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, DERContext()),
        (SET, SET),
        ({}, DERContext()),
        ({"max_cost": 3.0, "user": "ann"}, DERContext(max_cost=3.0)),
        (MappingProxyType({"max_steps": 2}), DERContext(max_steps=2)),
        (ParentContext("ann", 3.0), DERContext(max_cost=3.0)),
        (SimpleNamespace(cost_weight=0.1), DERContext(cost_weight=0.1)),
        (object(), DERContext()),
    ],
)
def test_as_context_reads_what_is_there(given: Any, expected: DERContext) -> None:
    assert as_context(given) == expected


def test_a_context_object_is_handed_through() -> None:
    assert as_context(SET) is SET


def _step(answer: state.Answer | None) -> RouteStep:
    return RouteStep(
        step=0,
        choice="a",
        probabilities={},
        value=None,
        mask={},
        reason="agent",
        cost_weight=None,
        spent=0.0,
        seconds=0.0,
        answer=answer,
    )


def test_answers_of_a_route_leave_the_end_out_and_failures_in() -> None:
    good, bad = an_answer("a"), an_answer("b", error="boom")
    assert answers_of([_step(good), _step(bad), _step(None)]) == [good, bad]
    assert good_answers([good, bad]) == [good]
    assert answers_of([]) == good_answers([]) == []


def test_the_output_is_the_state_without_what_is_internal() -> None:
    assert set(get_type_hints(DERState)) - set(get_type_hints(DEROutput)) == {
        "question_id",
        "refused",
    }


def test_every_field_of_the_state_says_who_writes_it() -> None:
    import inspect

    source = inspect.getsource(DERState)
    for name in DERState.__annotations__:
        if name != "messages":
            after = source.split(f"\n    {name}: ", 1)[1].split("\n", 2)[1]
            assert after.strip().startswith('"""'), f"{name} has no description"
            assert "rites" in after or "Hub only" in after or "writes" in source, name


def test_its_schemas_can_be_written_down() -> None:
    """As LangGraph's server, Studio and `as_tool` do; pydantic takes no TypedDict of Python 3.10 and 3.11."""
    expert, _ = scripted_expert("a", "x")
    graph = create_der_graph([expert], agent=ScriptedAgent("a")).compile()
    assert "messages" in graph.get_input_jsonschema()["properties"]
    assert {"answer", "route", "cost"} <= graph.get_output_jsonschema()["properties"].keys()


def test_schemas_can_be_read_on_every_python() -> None:
    """On Python 3.10 a generic of `collections.abc` is taken for a class, and LangGraph compiles no graph."""
    waiting: list[Any] = [DERState, DEROutput, DERContext, state.Task, Tasks]
    seen: list[Any] = []
    while waiting:
        kind = waiting.pop()
        if kind in seen:
            continue
        seen.append(kind)
        origin = getattr(get_origin(kind), "__module__", "")
        assert origin != "collections.abc", f"{kind}: list, tuple, dict or set in its place"
        waiting += [each for each in get_args(kind) if not isinstance(each, str)]
        if getattr(kind, "__module__", "").startswith("der_graph"):
            waiting += get_type_hints(kind, include_extras=True).values()
    assert state.ExpertNames in seen or list[str] in seen
