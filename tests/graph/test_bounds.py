"""What no agent can get past: the longest route, the budget, the mask; and what a route costs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fakes import (
    ScriptedAgent,
    a_human,
    route_of,
    scripted_expert,
    three_experts,
)
from langchain_core.messages import AIMessage

from der_graph import create_der_graph
from der_graph.errors import (
    AgentError,
    BudgetError,
)
from der_graph.nodes.decision import Choice
from der_graph.state import Situation


def test_the_longest_route_is_enforced_whatever_the_agent_wants() -> None:
    experts, _ = three_experts()
    agent = ScriptedAgent("small", "middle", "large", "small")
    graph = create_der_graph(experts, agent=agent, max_steps=2).compile()
    result = graph.invoke(a_human("2 + 3?"))
    assert route_of(result) == ["small", "middle", "END"]
    assert result["route"][-1]["reason"] == "max_steps"
    assert result["route"][-1]["probabilities"]["END"] == 1.0
    assert len(agent.seen) == 2  # where there is nothing to choose, nobody is asked


def test_a_request_may_ask_for_a_shorter_route() -> None:
    experts, _ = three_experts()
    agent = ScriptedAgent("small", "middle", "large")
    result = (
        create_der_graph(experts, agent=agent)
        .compile()
        .invoke(a_human("2 + 3?"), context={"max_steps": 1})
    )
    assert route_of(result) == ["small", "END"]


def test_the_budget_is_never_exceeded() -> None:
    experts, _ = three_experts()
    agent = ScriptedAgent("small", "large", "middle")
    result = (
        create_der_graph(experts, agent=agent)
        .compile()
        .invoke(a_human("2 + 3?"), context={"max_cost": 3.0})
    )
    assert route_of(result) == ["small", "middle", "END"]
    assert result["cost"] == 3.0
    assert result["route"][1]["mask"]["large"] is False
    assert result["route"][-1]["reason"] == "max_cost"


def test_a_budget_for_no_expert_is_an_error() -> None:
    experts, _ = three_experts()
    graph = create_der_graph(experts, agent=ScriptedAgent("small")).compile()
    with pytest.raises(BudgetError, match="cheapest expert is 'small'"):
        graph.invoke(a_human("2 + 3?"), context={"max_cost": 0.5})


class StubbornAgent(ScriptedAgent):
    """Chooses what it likes, mask or no mask."""

    def __init__(self, index: int, length: int) -> None:
        super().__init__()
        self.choice = Choice(index, [0.0] * length)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        return [self.choice for _ in situations]


def test_an_agent_that_ignores_the_mask_is_stopped() -> None:
    experts, models = three_experts()
    graph = create_der_graph(experts, agent=StubbornAgent(2, 4), on_error="raise").compile()
    with pytest.raises(
        AgentError, match="chose 'large', which is not allowed now; allowed: small, middle"
    ):
        graph.invoke(a_human("2 + 3?"), context={"max_cost": 3.0})
    assert not models["large"].prompts


@pytest.mark.parametrize(("index", "length"), [(4, 4), (-1, 4), (0, 3)])
def test_an_agent_that_counts_other_experts_is_stopped(index: int, length: int) -> None:
    agent = StubbornAgent(index, length)
    graph = create_der_graph(three_experts()[0], agent=agent, on_error="raise").compile()
    with pytest.raises(AgentError, match="there are 4: small, middle, large, END"):
        graph.invoke(a_human("2 + 3?"))


def test_prices_by_the_token_add_up() -> None:
    message = AIMessage(
        "5", usage_metadata={"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
    )
    expert, _ = scripted_expert("priced", message, cost=1.0, token_prices=(1000.0, 5000.0))
    result = (
        create_der_graph([expert], agent=ScriptedAgent("priced"))
        .compile()
        .invoke(a_human("2 + 3?"))
    )
    assert result["cost"] == pytest.approx(0.15)
    assert result["messages"][-1].usage_metadata == message.usage_metadata
