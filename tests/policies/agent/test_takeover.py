"""Simple policies in the network's place: at their prices alone, and within the rules."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from fakes import an_answer
from toy import WordEncoder, toy_agent, toy_examples, toy_experts, toy_rules, toy_source

from der_graph.chat_model.settings import agent_fingerprint
from der_graph.errors import AgentError
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import FixedHead, Shape
from der_graph.policies.agent.takeover import Takeover
from der_graph.policies.answers import AnswerSource
from der_graph.policies.observation import ObservationConfig, Observer
from der_graph.policies.observation.features import ROUTE_FEATURES
from der_graph.policies.planning import Planner
from der_graph.policies.training import run_routes
from der_graph.policies.training.new_experts import refresh_expert
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
        assert choice.explanation["why"].startswith("at this price the planner did no worse than")
        [network] = each.decide([replace(seen, cost_weight=0.6)])
        assert "planner" not in str(network.explanation)


def agent_of_routes(source: AnswerSource) -> DERAgent:
    """One that takes new experts, as training makes it; the planner decides."""
    first = source.first_answers()
    observer = Observer.fit(
        ObservationConfig(2, 0, fixed_pool=False),
        [expert.name for expert in source.experts],
        [expert.cost for expert in source.experts],
        WordEncoder(),
        questions=source.questions,
        answers=[],
        qualities=np.array([[o.quality for o in row] for row in first], dtype=np.float32),
        values=[[o.answer["value"] for o in row] for row in first],
        features=ROUTE_FEATURES,
    )
    shape = Shape(4, observer.context_size, observer.expert_size, 16, "fixed")
    agent = DERAgent(observer, FixedHead(shape), cost_weight=0.2, cost_weight_range=(0.02, 2.0))
    agent.take_over([Takeover(0.0, 5.0, planner=True)], planned(source))
    return agent


def test_a_planner_knows_an_expert_that_was_probed_anew_as_it_was(tmp_path: Path) -> None:
    agent = agent_of_routes(toy_source(60))
    fresh, _ = refresh_expert(agent, toy_experts()[FACTS], toy_examples(20), count=20)
    fresh.save_pretrained(tmp_path)
    again = DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())
    assert again.planner is not None
    assert "facts~1" in again.planner.names
    seen = Situation("What?", [], [True] * 5 + [False], cost_weight=0.2)
    assert again.decide([seen])[0].index == fresh.decide([seen])[0].index


def test_a_save_that_fails_leaves_the_agent_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_of_routes(toy_source(60))
    agent.save_pretrained(tmp_path)

    def full(*args: Any, **arrays: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match="No space"):
            agent.save_pretrained(tmp_path)
    assert DERAgent.from_pretrained(tmp_path, encoder=WordEncoder()).planner is not None
    agent.take_over([])
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", full)
        with pytest.raises(OSError, match="No space"):
            agent.save_pretrained(tmp_path)
    assert DERAgent.from_pretrained(tmp_path, encoder=WordEncoder()).planner is not None
    agent.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.glob("*.*")) == [
        "agent.safetensors",
        "config.json",
    ]


def test_a_planner_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    agent = agent_of_routes(toy_source(60))
    agent.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "planner.json").read_text(encoding="utf-8"))
    other = {**told, "experts": ["a", "b", "c", "d"]}
    (tmp_path / "planner.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(AgentError, match=r"planner\.json is of another agent"):
        DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())
    (tmp_path / "planner.json").write_text(json.dumps(told), encoding="utf-8")
    with np.load(tmp_path / "planner.npz") as file:
        arrays = {name: file[name] for name in file.files}
    for name in ("logit", "chance", "steps"):
        wrong = arrays[name] * np.nan, arrays[name][..., None]
        for array, words in zip(wrong, ("NaN", "has the shape"), strict=True):
            np.savez_compressed(tmp_path / "planner.npz", **{**arrays, name: array})
            with pytest.raises(AgentError, match=f"'{name}'.*{words}"):
                DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())


def test_an_order_promises_no_less_than_the_network() -> None:
    """Whoever compares the agent with somebody new reads it as the worth of the whole route."""
    seen = Situation("What is the colour of thing 3?", [], [True] * 4 + [False], cost_weight=0.2)
    alone, ordered = agent_with(), agent_with(Takeover(0.1, 0.5, ("writer", "counter")))
    promised = ordered.decide([seen])[0].value
    assert promised is not None
    assert promised >= (alone.decide([seen])[0].value or 0.0)


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
