"""Simple policies in the network's place: at their prices alone, and within the rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fakes import an_answer
from toy import WordEncoder, toy_agent, toy_rules, toy_source

from der_graph.chat_model.settings import agent_fingerprint
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.takeover import Takeover
from der_graph.policies.answers import AnswerSource
from der_graph.policies.planning import Planner
from der_graph.policies.training import run_routes
from der_graph.state import Answer, DERContext, Situation

WRITER, COUNTER, FACTS, PARROT, END = range(5)


def agent_with(*takeovers: Takeover) -> DERAgent:
    agent = toy_agent(toy_source(12))
    agent.take_over(takeovers)
    return agent


def chosen(agent: DERAgent, *answers: Answer, mask: str = "11111", price: float = 0.2) -> int:
    asked = [name == "1" for name in mask]
    seen = Situation("What is the colour of thing 3?", list(answers), asked, cost_weight=price)
    [choice] = agent.decide([seen])
    assert choice.probabilities[choice.index] > 0.0
    assert asked[choice.index]
    return choice.index


def said(expert: str, value: str | None) -> Answer:
    return an_answer(expert, value or "nothing") | {"value": value}


def test_an_order_is_followed_to_its_end() -> None:
    agent = agent_with(Takeover(0.1, 0.5, ("writer", "counter")))
    assert chosen(agent, mask="11110") == WRITER
    first = said("writer", "3")
    assert chosen(agent, first, mask="01111") == COUNTER
    assert chosen(agent, first, said("counter", "3"), mask="00111") == END
    # Whom the rules forbid is passed over; where they forbid END, somebody else is asked.
    assert chosen(agent, mask="01110") == COUNTER
    refused = said("writer", None), said("counter", None)
    assert chosen(agent, *refused, mask="00110") in (FACTS, PARROT)


def test_an_order_can_end_where_two_agree() -> None:
    agent = agent_with(Takeover(0.1, 0.5, ("writer", "counter", "facts"), until_agreed=True))
    first = said("writer", "3")
    assert chosen(agent, first, said("counter", "3"), mask="00111") == END
    assert chosen(agent, first, said("counter", "4"), mask="00111") == FACTS
    nothing = said("writer", None), said("counter", None)
    assert chosen(agent, *nothing, mask="00111") == FACTS


def test_the_router_asks_one() -> None:
    agent = agent_with(Takeover(0.1, 0.5))
    assert chosen(agent, mask="11110", price=0.1) == FACTS
    assert chosen(agent, said("facts", "red"), mask="11011") == END


def test_elsewhere_the_network_decides() -> None:
    network = agent_with()
    both = agent_with(Takeover(0.1, 0.5, ("parrot",)))
    assert chosen(both, mask="11110", price=0.2) == PARROT
    for price in (0.05, 0.6):
        seen = Situation("What?", [], [True, True, True, True, False], cost_weight=price)
        assert both.decide([seen]) == network.decide([seen])
    [choice] = both.decide([Situation("What?", [], [True] * 4 + [False], cost_weight=0.2)])
    assert choice.explanation is not None
    assert "parrot" in choice.explanation["why"]


def test_takeovers_stay_with_the_agent(tmp_path: Path) -> None:
    agent = agent_with(Takeover(0.1, 0.5, ("parrot", "facts"), until_agreed=True))
    agent.save_pretrained(tmp_path)
    again = DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())
    assert again.takeovers == agent.takeovers
    part = again.for_pool(["facts", "parrot"], [2.0, 0.5])
    [choice] = part.decide([Situation("What?", [], [True, True, False], cost_weight=0.2)])
    assert choice.index == 1
    source = toy_source(4)
    routes = run_routes(
        again, source, toy_rules(source.experts), context=DERContext(cost_weight=0.2)
    )
    assert [route.experts for route in routes] == [[PARROT, FACTS]] * 4


def planned(source: AnswerSource) -> Planner:
    first = source.first_answers()
    return Planner.fit(
        [expert.name for expert in source.experts],
        [expert.cost for expert in source.experts],
        source.questions,
        [[outcome.quality for outcome in row] for row in first],
        [[outcome.answer["value"] for outcome in row] for row in first],
        encoder=WordEncoder(),
    )


def test_the_planner_decides_at_its_prices_and_says_why(tmp_path: Path) -> None:
    source = toy_source(60)
    agent, planner = toy_agent(source), planned(source)
    agent.take_over([Takeover(0.1, 0.5, planner=True)], planner)
    agent.save_pretrained(tmp_path)
    for each in (agent, DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())):
        seen = Situation("What is the colour of thing 3?", [], [True] * 4 + [False])
        [choice] = each.decide([replace(seen, cost_weight=0.2)])
        # The agent counts prices in the whole cost of the pool of its training, and so does the planner.
        scale = sum(planner.costs) / each.observer.total
        [own] = planner.decide([replace(seen, cost_weight=0.2 * scale)])
        assert choice.index == own.index
        assert choice.value == pytest.approx(own.value)
        assert choice.cost_weight == 0.2
        assert choice.explanation is not None
        assert choice.explanation["why"].startswith("at this price the planner did better than")
        [network] = each.decide([replace(seen, cost_weight=0.6)])
        assert "planner" not in str(network.explanation)


def test_caches_tell_agents_apart_by_who_decides() -> None:
    source = toy_source(60)
    agent, planner = toy_agent(source), planned(source)
    told = {agent_fingerprint(agent)}
    agent.take_over([Takeover(0.1, 0.5, planner=True)], planner)
    told.add(agent_fingerprint(agent))
    agent.take_over(agent.takeovers, planner.for_pool(planner.names, [1.0, 1.0, 1.0, 1.0]))
    told.add(agent_fingerprint(agent))
    agent.take_over([Takeover(0.1, 0.5, ("facts",))])
    told.add(agent_fingerprint(agent))
    assert len(told) == 4


def test_the_planner_follows_the_pool() -> None:
    """Some of the experts, at other prices; and none where it does not know one of them."""
    source = toy_source(60)
    agent = toy_agent(source)
    agent.take_over([Takeover(0.0, 9.0, planner=True)], planned(source))
    part = agent.for_pool(["parrot", "facts"], [0.5, 2.0])
    seen = Situation("What is the colour of thing 3?", [], [True, True, False], cost_weight=0.2)
    [choice] = part.decide([seen])
    assert choice.explanation is not None
    assert choice.explanation["why"].startswith("at this price the planner")
    assert part.names[choice.index] == "facts"


def test_folders_of_before_have_none(tmp_path: Path) -> None:
    agent = agent_with()
    agent.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"takeovers"', '"unknown"'))
    assert DERAgent.from_pretrained(tmp_path, encoder=WordEncoder()).takeovers == ()


@pytest.mark.parametrize("order", [(), ("facts",), ("facts", "writer")])
def test_what_is_said_of_a_takeover(order: tuple[str, ...]) -> None:
    text = str(Takeover(0.0, 1.0, order))
    assert text == {0: "the router", 1: "facts", 2: "facts, writer"}[len(order)]
