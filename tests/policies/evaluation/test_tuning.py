"""The knob, tuned: the price of cost that meets a budget or a quality."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import WordEncoder, toy_agent, toy_source

from der_graph.data import load_examples
from der_graph.errors import BudgetError, DataError
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.answers import AnswerSource
from der_graph.policies.evaluation.statistics import Interval
from der_graph.policies.evaluation.tuning import (
    KnobPoint,
    Tuned,
    choose_prices,
    knob_curve,
    refine,
)
from der_graph.policies.quality import get_metric

NAMES = ["writer", "counter", "facts", "parrot"]


def point(weight: float, quality: float, cost: float) -> KnobPoint:
    return KnobPoint(weight, Interval(quality, 0, 1), Interval(cost, 0, 99), 1.0)


CURVE = [point(0.1, 0.80, 50), point(0.2, 0.80, 40), point(0.5, 0.70, 20), point(1, 0.60, 22)]


def test_the_prices_that_a_target_asks_for() -> None:
    assert choose_prices(CURVE, target_cost=45) == Tuned(
        ((0.2, 1.0),), 0.8, 40, 5
    )  # as good, cheaper
    assert choose_prices(CURVE, target_cost=20) == Tuned(((0.5, 1.0),), 0.7, 20)
    mixed = choose_prices(CURVE, target_cost=25)  # a quarter of the way from 20 to 40
    assert mixed.prices == ((0.5, 0.75), (0.2, 0.25))
    assert (mixed.quality, mixed.cost) == pytest.approx((0.725, 25))
    assert choose_prices(CURVE, target_quality=0.65).prices == ((0.5, 1.0),)
    assert choose_prices(CURVE, target_quality=0.75).cost == pytest.approx(30)
    with pytest.raises(BudgetError, match=r"target cost 19 is out of reach.*still spends 20"):
        choose_prices(CURVE, target_cost=19)
    with pytest.raises(BudgetError, match=r"target quality 0.9 is out of reach: the best .* 0.800"):
        choose_prices(CURVE, target_quality=0.9)
    # An agent that was not trained needs no training to use another expert.
    with pytest.raises(BudgetError, match="or add a better expert to the pool file"):
        choose_prices(CURVE, target_quality=0.9, is_trained=False)
    with pytest.raises(BudgetError, match="or add a cheaper expert to the pool file"):
        choose_prices(CURVE, target_cost=19, is_trained=False)
    with pytest.raises(BudgetError, match="either"):
        choose_prices(CURVE)


FIGURES = st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 9)), min_size=1, max_size=8)


@given(FIGURES, st.floats(0.1, 9))
def test_a_mix_keeps_its_target_and_is_no_worse_than_any_point_within(
    figures: list[tuple[float, float]], target: float
) -> None:
    curve = [point(0.01 * (i + 1), quality, cost) for i, (quality, cost) in enumerate(figures)]
    within = [quality for quality, cost in figures if cost <= target]
    if not within:
        with pytest.raises(BudgetError, match="out of reach"):
            choose_prices(curve, target_cost=target)
        return
    tuned = choose_prices(curve, target_cost=target)
    assert tuned.cost <= target + 1e-9
    assert tuned.quality >= max(within) - 1e-9
    assert sum(share for _, share in tuned.prices) == pytest.approx(1.0)


def test_more_prices_are_tried_where_the_target_lies() -> None:
    tried = []

    def measure(price: float) -> KnobPoint:
        tried.append(price)
        return point(price, 0.75, 40 if price < 0.3 else 20)

    points = refine([point(0.1, 0.8, 40), point(0.9, 0.7, 20)], measure, 30)
    assert tried == pytest.approx([0.3, 0.1732, 0.228, 0.2615, 0.2801], abs=1e-4)
    assert [p.cost_weight for p in points] == sorted(p.cost_weight for p in points)
    assert refine(CURVE[:1], measure, 30) == CURVE[:1]


def test_an_agent_takes_two_prices_in_turn(tmp_path: Path) -> None:
    agent = toy_agent(toy_source(12))
    agent.set_prices([(0.5, 0.25), (0.1, 0.75)])
    agent.save_pretrained(tmp_path)
    again = DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())
    prices = [again.usual_price(f"question {i}") for i in range(400)]
    assert set(prices) == {0.5, 0.1}
    assert prices.count(0.5) == pytest.approx(100, abs=30)
    assert prices == [agent.usual_price(f"question {i}") for i in range(400)]
    assert again.cost_weight == 0.1
    again.set_prices([(0.3, 1.0)])
    assert again.usual_price("x") == 0.3


def test_a_curve_over_the_agents_range() -> None:
    source = toy_source(12)
    agent = toy_agent(source)
    rules = RouteRules(tuple(NAMES), tuple(e.cost for e in source.experts), 3)
    seen: list[KnobPoint] = []
    curve = knob_curve(agent, source, rules, points=3, on_point=seen.append)
    assert [p.cost_weight for p in curve] == pytest.approx([0.02, 0.2, 2.0])
    assert seen == curve
    assert all(0 <= p.quality.estimate <= 1 and p.cost.estimate > 0 for p in curve)


def test_an_expert_without_a_recorded_answer(tmp_path: Path) -> None:
    """It would pass for a failed call, and its quality for 0."""
    agent = toy_agent(toy_source(12))
    rows = [
        {"id": f"q{i}", "question": f"{i}?", "answer": "1", "candidates": [
            {"model": name, "text": "1"} for name in NAMES if (name, i) != ("facts", 2)
        ]}
        for i in range(3)
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    experts = [
        Expert(name, RecordedChat(data=str(path), model=name), cost=1.0, ktp=TEMPLATES["none"])
        for name in NAMES
    ]
    source = AnswerSource(experts, load_examples(path), get_metric("match"))
    rules = RouteRules(tuple(NAMES), (1.0,) * 4, 3)
    with pytest.raises(DataError, match=r"question 'q2': no recorded answer of 'facts'"):
        knob_curve(agent, source, rules, points=2)
    complete = AnswerSource(experts, load_examples(path, limit=2), get_metric("match"))
    assert len(knob_curve(agent, complete, rules, points=2)) == 2
