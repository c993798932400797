"""Other policies take over where they do better than the agent, and nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from toy import WordEncoder, toy_agent, toy_rules, toy_source

pytest.importorskip("stable_baselines3")

from der_graph.data import Example
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.takeover import Takeover
from der_graph.policies.answers import AnswerSource
from der_graph.policies.quality import get_metric
from der_graph.policies.training import run_routes
from der_graph.policies.training.routes.imputation import ImputedSource
from der_graph.policies.training.routes.takeovers import (
    Orders,
    _joined,
    _Tried,
    compare_with_others,
)
from der_graph.policies.training.routes.tree import collect_tree
from der_graph.policies.training.train import _compare
from der_graph.state import DERContext

WRITER, COUNTER, FACTS, PARROT = range(4)


def wrong_every_third(name: str, at: int, cost: float) -> Expert:
    def reply(prompt: list[AIMessage]) -> AIMessage:
        found = re.search(r"\d+", prompt[-1].text)
        assert found
        return AIMessage(f"wrong {name}" if int(found[0]) % 3 == at else "right")

    return as_expert(RunnableLambda(reply), name=name, cost=cost, fingerprint=name)


def test_the_best_order_by_hand() -> None:
    """Half of the questions are sums, which writer and counter solve at 1.1; facts solves the others at 2."""
    tree = collect_tree(toy_source(8), [WRITER, COUNTER, FACTS], 2)
    orders = Orders.of(tree)
    # At 20 / 3.6 nothing is worth its price.
    best = orders.best(np.array([0.5, 20.0]) / 3.6)
    assert [orders.orders[k] for k in best] == [((WRITER, COUNTER), False), ((COUNTER,), False)]


def test_an_order_until_two_agree_by_hand() -> None:
    """The first two agree, and are right, on a third of the questions; the last is right always, at 10: 8.7 a
    question instead of 10."""
    experts = [wrong_every_third("a", 0, 1.0), wrong_every_third("b", 1, 1.0)]
    experts.append(wrong_every_third("c", -1, 10.0))
    examples = [Example(f"q{i}", f"question {i}?", "right") for i in range(30)]
    source = AnswerSource(experts, examples, get_metric("match"))
    tree = collect_tree(source, [0, 1, 2], 3)
    orders = Orders.of(tree)
    order, until_agreed = orders.orders[orders.best(np.array([0.1]) / 12.0)[0]]
    assert (sorted(order[:2]), order[2], until_agreed) == ([0, 1], 2, True)


def lesson_of(agent: DERAgent, source: AnswerSource, experts: Sequence[int]) -> Any:
    tree = collect_tree(source, experts, 3)
    fold = np.arange(len(source.examples)) % 5
    return SimpleNamespace(tree=tree, observer=agent.observer, fold=fold)


def test_a_better_order_takes_over_and_the_run_says_so() -> None:
    source, dev = toy_source(40), toy_source(40, seed=1)
    rules = toy_rules(source.experts)
    agent = toy_agent(source)  # its weights are random
    lesson = lesson_of(agent, source, [WRITER, COUNTER, FACTS])
    agent.take_over([Takeover(0.0, 9.0, ("parrot",))])
    asked = source.generated
    compared = compare_with_others(agent, lesson, source, dev, rules)
    assert source.generated == asked  # the parrot is in no route of the tree
    assert "takes over" in compared.lines[0]
    agent.take_over(compared.takeovers, compared.planner)
    episodes = run_routes(agent, dev, rules, context=DERContext(cost_weight=0.02))
    assert np.mean([episode.quality for episode in episodes]) >= 0.5  # the parrot's is 0
    # Nothing is better than what is as simple.
    again = compare_with_others(agent, lesson, source, dev, rules)
    assert again.takeovers == []
    assert "did better than the agent at any price" in again.lines[0]


def test_the_planner_takes_over_where_it_does_better_than_an_order() -> None:
    """Sums need two experts, facts a third one: the plan tells them apart by their kind, an order cannot."""
    source, dev = toy_source(200), toy_source(60, seed=1)
    rules = toy_rules(source.experts)
    agent = toy_agent(source)
    lesson = lesson_of(agent, source, range(4))
    compared = compare_with_others(agent, lesson, source, dev, rules)
    assert compared.planner is not None
    assert any(each.planner for each in compared.takeovers)
    assert "the planner did better and takes over" in " ".join(compared.lines)
    agent.take_over(compared.takeovers, compared.planner)
    at = next(each.low for each in compared.takeovers if each.planner)
    episodes = run_routes(agent, dev, rules, context=DERContext(cost_weight=at))
    assert np.mean([episode.quality for episode in episodes]) > 0.9


def test_an_agent_of_one_price_is_compared_at_it() -> None:
    source, dev = toy_source(40), toy_source(40, seed=1)
    agent = toy_agent(source)
    agent.take_over([Takeover(0.0, 9.0, ("parrot",))])
    agent.cost_weight_range = (0.02, 0.02)
    lesson = lesson_of(agent, source, [WRITER, COUNTER, FACTS])
    compared = compare_with_others(agent, lesson, source, dev, toy_rules(source.experts))
    assert [each.low for each in compared.takeovers] == [0.02]
    assert "takes over" in compared.lines[0]


def test_chat_models_are_asked_nothing_new_on_training_questions() -> None:
    """Neither where the tree ends before the routes do, nor on what was not tried."""
    known, dev = toy_source(40), toy_source(40, seed=1)
    agent = toy_agent(known)
    known.first_answers()
    source = ImputedSource(known, WordEncoder().encode(known.questions))
    lesson: Any = SimpleNamespace(
        tree=collect_tree(source, range(4), 2), observer=agent.observer, fold=np.arange(40) % 5
    )
    asked = known.generated
    compare_with_others(agent, lesson, source, dev, toy_rules(source.experts))
    assert (known.generated, source.generated) == (asked, 0)


def test_the_planner_has_the_benefit_of_the_doubt_and_an_order_has_not() -> None:
    """Gains of 1.02 and -1.0 by turns on 100 questions: 0.01 on average, with an error of 0.101."""
    own = _Tried((), np.zeros((1, 90)), np.zeros((1, 10)))
    gains = np.where(np.arange(100) % 2, 1.02, -1.0)[None]

    def lead(policy: Takeover, *, flattered: bool = False) -> tuple[float, float]:
        return _Tried([policy], gains[:, :90], gains[:, 90:]).lead_over(own, 0, flattered=flattered)

    assert lead(Takeover(0, 1, planner=True)) == pytest.approx((0.01, 0.111))
    assert lead(Takeover(0, 1, ("a", "b"))) == pytest.approx((0.01, -0.091))
    assert lead(Takeover(0, 1)) == pytest.approx((0.01, -0.091))


def test_dev_questions_alone_decide_only_where_training_flatters_the_agent() -> None:
    """It has learnt from the training questions, and is 0.02 behind on dev questions."""

    def tried(train: float, dev: float) -> _Tried:
        return _Tried([Takeover(0, 1)], np.full((1, 800), train), np.full((1, 10), dev))

    own, router = tried(0.5, 0.5), tried(0.47, 0.52)
    assert router.lead_over(own, 0, flattered=True)[1] == pytest.approx(0.02)
    gain, lead = router.lead_over(own, 0, flattered=False)
    assert gain == pytest.approx((800 * -0.03 + 10 * 0.02) / 810)
    assert lead < gain


def test_neighbouring_prices_of_one_policy_are_one_line() -> None:
    order = ("a", "b")
    policies = [Takeover(0.1, 0.2, order), Takeover(0.2, 0.4, order), Takeover(0.4, 1.0)]
    assert _joined(policies) == [Takeover(0.1, 0.4, order), Takeover(0.4, 1.0)]
    apart = [Takeover(0.1, 0.2, order), Takeover(0.4, 1.0, order)]
    assert _joined(apart) == apart


def test_takeovers_of_a_run_that_goes_on_are_judged_anew(tmp_path: Path) -> None:
    source, dev = toy_source(40), toy_source(40, seed=1)
    rules = toy_rules(source.experts)
    agent = toy_agent(source)  # its weights are random
    lesson = lesson_of(agent, source, [WRITER, COUNTER, FACTS])
    told: list[list[str]] = [[], []]
    _compare(agent, lesson, source, dev, rules, tmp_path, told[0].append)
    found = [each.plain() for each in agent.takeovers]
    assert found
    _compare(agent, lesson, source, dev, rules, tmp_path, told[1].append)
    assert told[0] == told[1]
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["takeovers"]
    assert [each.plain() for each in agent.takeovers] == saved == found
