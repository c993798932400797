"""What a call costs, by hand."""

from __future__ import annotations

import pytest
from fakes import an_answer
from langchain_core.messages import AIMessage

from der_graph.errors import PoolError
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability.charge import CallSize, Charge, TokenPrices

SIZE = CallSize(input=1000, cached=400, output=100, seconds=2.0)


@pytest.mark.parametrize(
    ("charge", "cost"),
    [
        (Charge(0.5), 0.5),
        (Charge(0.5, second=0.1), 0.7),
        (Charge(9.0, TokenPrices(2.0, 10.0)), 0.003),  # 1000 * 2 + 100 * 10, per million
        (
            Charge(9.0, TokenPrices(2.0, 10.0, cached_input=0.5)),
            0.0024,
        ),  # 600 * 2 + 400 * 0.5 + 1000
        (Charge(9.0, TokenPrices(2.0, 10.0, minimum=0.01)), 0.01),
        (Charge(9.0, TokenPrices(2.0, 10.0, minimum=0.01), second=0.25), 0.51),
    ],
)
def test_a_call_costs(charge: Charge, cost: float) -> None:
    assert charge.of(SIZE) == pytest.approx(cost)
    assert charge.fixed == (charge == Charge(0.5))


def expert(**more: object) -> Expert:
    def answer(question: str) -> AIMessage:
        usage = {
            "input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100,
            "input_token_details": {"cache_read": 400},
        }  # fmt: skip
        return AIMessage("Five.", usage_metadata=usage)

    return as_expert(answer, name="a", cost=9.0, **more)  # type: ignore[arg-type]


def test_cached_tokens_are_read_and_charged_again_at_other_prices() -> None:
    mine = expert(token_prices=TokenPrices(2.0, 10.0, cached_input=0.5))
    (answer,) = mine.ask([mine.prompt([], "?", [], TEMPLATES["none"])])
    assert answer["cached_tokens"] == 400
    assert answer["cost"] == pytest.approx(0.0024)
    assert expert(token_prices=(4.0, 20.0)).cost_of(answer) == pytest.approx(0.006)


def test_without_a_count_a_call_is_charged_the_most() -> None:
    assert expert(token_prices=(2.0, 10.0)).cost_of(an_answer()) == 9.0
    late = an_answer()
    late["seconds"] = 2.0
    assert expert(second_price=0.5).cost_of(late) == 10.0
    with pytest.raises(PoolError, match="second_price is -1"):
        expert(second_price=-1.0)
