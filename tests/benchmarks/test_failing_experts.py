"""The benchmark of failing experts sees what it is there to see."""

from __future__ import annotations

from typing import Any

from checkout import Load, needs_benchmarks

from der_graph.nodes.langchain import as_expert
from der_graph.state import blank_answer

pytestmark = needs_benchmarks


def step(expert: str, cost: float, error: str | None = None) -> dict[str, Any]:
    return {"answer": blank_answer(expert, text="" if error else "ok", cost=cost, error=error)}


def test_a_broken_bound_is_seen(load: Load) -> None:
    benchmark = load("failing_experts")
    experts = [as_expert(lambda q: "ok", name=name, cost=1.0) for name in "ab"]

    def broken(steps: list[dict[str, Any]], cost: float, **bounds: Any) -> list[str]:
        state = {"route": steps, "cost": cost, "answer": "ok"}
        found: list[str] = benchmark.broken_bounds(state, bounds, experts, 3, False)
        return found

    assert broken([step("a", 1.0)], 1.0, max_cost=1.0, max_steps=1) == []
    assert broken([step("a", 1.0)], 1.0, max_cost=0.5) == ["max_cost"]
    assert broken([step("a", 2.0)], 2.0) == ["an expert's cost"]
    assert broken([step("a", 1.0)], 2.0) == ["the state's cost"]
    assert broken([step("a", 1.0), step("b", 1.0)], 2.0, max_steps=1) == ["max_steps"]
    assert broken([step("a", 1.0, "x"), step("b", 1.0)], 2.0, max_steps=1) == []
    assert broken([step("a", 1.0)], 1.0, allowed_experts=["b"]) == ["allowed_experts"]
    assert broken([step("a", 1.0)], 1.0, forbidden_experts=["a"]) == ["forbidden_experts"]
    assert broken([step("a", 1.0), step("a", 1.0)], 2.0) == ["asked once"]
    again = broken([step("a", 0.0, "x"), step("a", 1.0)], 1.0)
    assert again == ["asked once", "a failed one again"]


def test_random_requests_keep_their_bounds(load: Load) -> None:
    row = load("failing_experts").budgets(100)
    assert row["met"]
    assert row["runs"] == 100
    assert row["answered"] > 30
