"""The knob, tuned: the price of cost that meets a budget or a quality."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import toy_agent, toy_source

from der_graph.data import load_examples
from der_graph.errors import BudgetError, DataError
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.evaluation.statistics import Interval
from der_graph.policies.evaluation.tuning import KnobPoint, choose_point, knob_curve
from der_graph.policies.quality import get_metric

NAMES = ["writer", "counter", "facts", "parrot"]


def point(weight: float, quality: float, cost: float) -> KnobPoint:
    return KnobPoint(weight, Interval(quality, 0, 1), Interval(cost, 0, 99), 1.0)


def test_the_point_that_a_target_asks_for() -> None:
    curve = [point(0.1, 0.80, 50), point(0.2, 0.80, 40), point(0.5, 0.70, 20), point(1, 0.60, 22)]
    assert choose_point(curve, target_cost=45).cost_weight == 0.2
    assert choose_point(curve, target_cost=99).cost_weight == 0.2  # as good, and cheaper
    assert choose_point(curve, target_cost=20).cost_weight == 0.5
    assert choose_point(curve, target_quality=0.65).cost_weight == 0.5
    with pytest.raises(BudgetError, match=r"target cost 19 is out of reach.*still spends 20"):
        choose_point(curve, target_cost=19)
    with pytest.raises(BudgetError, match=r"target quality 0.9 is out of reach: the best .* 0.800"):
        choose_point(curve, target_quality=0.9)
    with pytest.raises(BudgetError, match="either"):
        choose_point(curve)


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
