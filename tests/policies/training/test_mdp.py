"""Routes in lockstep, and the graph taking the very same routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import toy_agent, toy_examples, toy_experts, toy_rules, toy_source

from der_graph.data import Example
from der_graph.errors import MetricError
from der_graph.graph import create_der_graph
from der_graph.policies.answers import AnswerSource, Outcome, Request, open_cache
from der_graph.policies.baselines import Single
from der_graph.policies.quality import get_metric
from der_graph.policies.training.mdp import Lockstep, run_routes
from der_graph.policies.training.selection import routes_at_prices
from der_graph.state import END_CHOICE, Answer, DERContext

WRITER, COUNTER, FACTS, PARROT, END = range(5)


def calls(source: AnswerSource) -> list[int]:
    return [expert.model.func.calls for expert in source.experts]  # type: ignore[attr-defined]


def test_a_sum_takes_two_experts_and_the_transfer_between_them() -> None:
    source = toy_source(2)
    routes = Lockstep(source, toy_rules(source.experts), 1)
    routes.start(0, 1)
    assert routes.mask(0) == [True, True, True, True, False]

    step = routes.advance([WRITER])
    assert (step.quality[0], step.previous[0], step.cost[0]) == (0.0, 0.0, 1.0)
    assert (bool(step.first[0]), bool(step.ended[0])) == (True, False)

    step = routes.advance([COUNTER])
    assert (step.quality[0], step.previous[0]) == (1.0, 0.0)
    assert step.cost[0] == pytest.approx(0.1)
    assert not step.first[0]

    step = routes.advance([END])
    assert (step.quality[0], step.previous[0], step.cost[0]) == (1.0, 1.0, 0.0)
    assert bool(step.chose_end[0])
    assert bool(step.ended[0])


def test_the_counter_alone_has_nothing_to_count() -> None:
    source = toy_source(2)
    outcome = source.ask([Request(1, COUNTER, [])])[0]
    assert (outcome.answer["text"], outcome.quality) == ("?", 0.0)


def test_the_longest_route_ends_itself() -> None:
    source = toy_source(2)
    routes = Lockstep(source, toy_rules(source.experts, max_steps=2), 1)
    routes.start(0, 0)
    assert not routes.advance([PARROT]).ended[0]
    step = routes.advance([FACTS])
    assert bool(step.ended[0])
    assert not step.chose_end[0]


def test_a_forbidden_choice_is_refused() -> None:
    routes = Lockstep(toy_source(2), toy_rules(toy_experts()), 1)
    routes.start(0, 0)
    with pytest.raises(ValueError, match="not allowed"):
        routes.advance([END])


def test_equal_requests_are_generated_once() -> None:
    source = toy_source(4)
    source.ask([Request(0, FACTS, []), Request(0, FACTS, []), Request(2, FACTS, [])])
    source.ask([Request(0, FACTS, [])])
    assert calls(source)[FACTS] == 2
    first = source.ask([Request(1, WRITER, [])])[0].answer
    other = source.ask([Request(1, PARROT, [])])[0].answer
    # The writer's prompt shows no earlier answer, the counter's shows the last one only.
    source.ask([Request(1, WRITER, [other])])
    assert calls(source)[WRITER] == 1
    source.ask([Request(1, COUNTER, [first]), Request(1, COUNTER, [other, first])])
    assert calls(source)[COUNTER] == 1


def test_a_failed_call_is_remembered_for_the_run_and_no_longer(tmp_path: Path) -> None:
    """Asked at every visit, an expert that is down would stall the whole run; the cache forgets it."""
    experts = toy_experts()
    attempts = []

    def fail_once(text: str) -> str:
        attempts.append(text)
        if len(attempts) == 1:
            raise ValueError("gone for a moment")
        return "red"

    experts[FACTS].model.func._answer = fail_once  # type: ignore[attr-defined]
    with open_cache(tmp_path / "answers.db") as cache:
        source = AnswerSource(experts, toy_examples(1), get_metric("match"), cache=cache)
        for _ in range(2):
            failed = source.ask([Request(0, FACTS, [])])[0]
            assert failed.quality == 0.0
            assert failed.answer["error"] == "ValueError: gone for a moment"
        assert len(attempts) == 1
        again = AnswerSource(experts, toy_examples(1), get_metric("match"), cache=cache)
        assert again.ask([Request(0, FACTS, [])])[0].answer["text"] == "red"


@dataclass
class Broken:
    """A metric that gives what it is told to."""

    given: list[float]
    name: str = "broken"

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[float]:
        return self.given


@pytest.mark.parametrize("given", [float("nan"), 1.5, -0.1])
def test_a_metric_that_gives_no_quality_is_an_error(given: float) -> None:
    source = AnswerSource(toy_experts(), toy_examples(2), Broken([1.0, given]))
    with pytest.raises(MetricError, match=r"'sum/0/1', expert 'facts'.* 0 to 1"):
        source.ask([Request(0, FACTS, []), Request(1, FACTS, [])])


def test_a_metric_that_forgets_an_answer_is_an_error() -> None:
    source = AnswerSource(toy_experts(), toy_examples(2), Broken([1.0]))
    with pytest.raises(MetricError, match="1 qualities for 2 answers"):
        source.ask([Request(0, FACTS, []), Request(1, FACTS, [])])


def test_a_rounding_error_is_no_fault() -> None:
    source = AnswerSource(toy_experts(), toy_examples(1), Broken([1.0000001]))
    assert source.ask([Request(0, FACTS, [])])[0].quality == 1.0


def test_a_question_that_nobody_answers_does_not_end_the_run() -> None:
    experts = toy_experts()

    def fail(text: str) -> str:
        raise ConnectionError("gone")

    for position in range(4):
        experts[position].model.func._answer = fail  # type: ignore[attr-defined]
    source = AnswerSource(experts, toy_examples(2), get_metric("match"))
    routes = Lockstep(source, toy_rules(experts, max_steps=2), 1)
    routes.start(0, 0)
    # Failed calls take no step of the longest route: all four are asked.
    for position in (FACTS, PARROT, WRITER):
        assert not routes.advance([position]).ended[0]
    step = routes.advance([COUNTER])
    assert (step.quality[0], bool(step.ended[0])) == (0.0, True)

    names, costs = [e.name for e in experts], [e.cost for e in experts]
    alone = Single(names, costs, "facts")
    for episode in run_routes(alone, source, toy_rules(experts, max_steps=1)):
        assert (episode.quality, episode.cost, episode.calls) == (0.0, 0.0, 4)


def test_cached_answers_cost_what_the_pool_says_now(tmp_path: Path) -> None:
    experts = toy_experts()
    with open_cache(tmp_path / "answers.db") as cache:
        for cost in (2.0, 5.0):
            experts[FACTS] = replace(experts[FACTS], cost=cost)
            source = AnswerSource(experts, toy_examples(1), get_metric("match"), cache=cache)
            assert source.ask([Request(0, FACTS, [])])[0].answer["cost"] == cost
        assert source.generated == 0


def test_the_graph_takes_the_route_of_the_environment() -> None:
    """Same agents, same questions: every expert, answer and cost is equal, step by step."""
    context = DERContext(max_cost=2.5, cost_weight=0.3)
    lengths = set()
    for seed in range(4):
        source = toy_source(12, seed=seed)
        agent = toy_agent(source, seed=seed)
        rules = toy_rules(source.experts)
        episodes = run_routes(agent, source, rules, context=context)
        der = create_der_graph(source.experts, agent=agent, max_steps=3).compile()
        for example, episode in zip(source.examples, episodes, strict=True):
            state = der.invoke({"messages": [("user", example.question)]}, context=context)
            asked = [step["choice"] for step in state["route"]]
            assert asked == [*(rules.names[i] for i in episode.experts), END_CHOICE]
            assert state["answer"] == episode.answers[episode.final]["text"]
            assert state["cost"] == pytest.approx(episode.cost)
            assert state["cost"] <= 2.5
            lengths.add(len(asked))
    assert 2 in lengths  # without a transfer
    assert max(lengths) > 2  # and with one


def test_lanes_do_not_change_the_routes() -> None:
    source = toy_source(12)
    agent, rules = toy_agent(source), toy_rules(source.experts)
    wide = run_routes(agent, source, rules)
    narrow = run_routes(agent, source, rules, lanes=5)
    assert [e.experts for e in wide] == [e.experts for e in narrow]


def test_routes_at_many_prices_are_those_at_each() -> None:
    source = toy_source(12)
    agent, rules = toy_agent(source), toy_rules(source.experts)
    rows, prices = [7, 2, 5], (0.02, 0.4, 2.0)
    (together,) = routes_at_prices([agent], source, rules, prices, rows)
    for k, price in enumerate(prices):
        context = DERContext(cost_weight=price)
        each = run_routes(agent, source, rules, examples=rows, context=context)
        assert together.quality[k].tolist() == [e.quality for e in each]
        assert together.cost[k].tolist() == [e.cost for e in each]
        assert together.calls[k].tolist() == [e.calls for e in each]
    assert len(np.unique(together.cost, axis=0)) > 1  # the price matters


def test_agents_that_route_together_route_as_each_alone() -> None:
    source = toy_source(12)
    rules = toy_rules(source.experts)
    agents: list[Any] = [toy_agent(source), Single(rules.names, rules.costs, rules.names[1])]
    prices = (0.02, 2.0)
    together = routes_at_prices(agents, source, rules, prices)
    for agent, found in zip(agents, together, strict=True):
        (alone,) = routes_at_prices([agent], source, rules, prices)
        assert all((one == two).all() for one, two in zip(found, alone, strict=True))
    assert (together[0].cost != together[1].cost).any()
    agents[1].alone = frozenset(rules.names[:1])
    with pytest.raises(ValueError, match="different experts alone"):
        run_routes(agents, source, rules, examples=[0, 0])


def test_slow_experts_are_waited_for_once_for_all_prices() -> None:
    """As many batches as the price with the longest routes alone, however many prices there are."""
    prices = np.geomspace(0.02, 2.0, 7).tolist()

    def batches(prices: Sequence[float]) -> int:
        source, counted = toy_source(6), []
        ask = source.ask

        def counting(requests: Sequence[Request]) -> list[Outcome]:
            counted.append(len(requests) > 0)
            return ask(requests)

        source.ask = counting  # type: ignore[method-assign]
        routes_at_prices([toy_agent(source)], source, toy_rules(source.experts), prices)
        return sum(counted)

    assert batches(prices) == max(batches([price]) for price in prices)
