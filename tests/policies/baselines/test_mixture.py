"""Mixture of agents, and experts without transfer: what each expert reads, in the graph and in lockstep."""

from __future__ import annotations

import pytest
from fakes import a_human, an_answer, scripted_expert

from der_graph.data import Example
from der_graph.graph import create_der_graph
from der_graph.nodes.ktp import KTPTemplate
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.baselines.mixture import (
    MixtureOfAgents,
    mixture_experts,
    transfers,
    with_template,
    without_transfer,
)
from der_graph.policies.quality import get_metric
from der_graph.policies.training import run_routes
from der_graph.state import Situation

NAMES = ("a", "b", "c")


def test_everyone_proposes_and_one_aggregates_in_the_graph() -> None:
    a, model_a = scripted_expert("a", "one")
    b, model_b = scripted_expert("b", "two", "the sum of all")
    c, model_c = scripted_expert("c", "three")
    members = mixture_experts([a, b, c], "b")
    agent = MixtureOfAgents(NAMES, (1.0, 1.0, 1.0), "b")
    der = create_der_graph(members, agent=agent, max_steps=4, repeat_experts=True).compile()
    state = der.invoke(a_human("What?"))
    assert [step["choice"] for step in state["route"]] == ["b", "a", "c", "b", "END"]
    assert state["answer"] == "the sum of all"
    # Proposers read the bare question, whoever spoke before; the aggregator reads all three proposals.
    assert [prompt[-1].text for prompt in model_a.prompts] == ["What?"]
    assert [prompt[-1].text for prompt in model_c.prompts] == ["What?"]
    first, second = (prompt[-1].text for prompt in model_b.prompts)
    assert first == "What?"
    assert "1. two\n2. one\n3. three" in second


def test_the_same_routes_in_lockstep_cost_one_call_more_than_the_pool() -> None:
    experts = [scripted_expert(name, name.upper(), cost=2.0)[0] for name in NAMES]
    source = AnswerSource(
        mixture_experts(experts, "c"), [Example("1", "What?", "C")], get_metric("match")
    )
    rules = RouteRules(NAMES, (2.0, 2.0, 2.0), 4, repeat_experts=True)
    (episode,) = run_routes(MixtureOfAgents(NAMES, (2.0,) * 3, "c"), source, rules)
    assert episode.experts == [2, 0, 1, 2]
    assert episode.cost == 8.0
    assert episode.quality == 1.0


def test_a_mixture_whose_aggregator_failed_ends_with_what_it_has() -> None:
    agent = MixtureOfAgents(NAMES, (1.0, 1.0, 1.0), "b")
    answers = [an_answer("b", error="down"), an_answer("a"), an_answer("c")]
    mask = [True, False, True, True]  # what failed is masked, also where experts may repeat
    assert agent.decide([Situation(question="q", answers=answers, mask=mask)])[0].index == 3


def test_without_transfer_an_expert_reads_the_question_as_it_would_first() -> None:
    plain, _ = scripted_expert("plain")
    own, _ = scripted_expert("own", ktp=KTPTemplate("own", "{answer}", first="Q: {question}"))
    alone = without_transfer([plain, own])
    before = [an_answer("x", "7")]
    ktp = KTPTemplate("graph")
    assert [e.prompt([], "What?", before, ktp)[-1].text for e in alone] == ["What?", "Q: What?"]
    assert not any(transfers(expert) for expert in alone)
    assert transfers(plain)
    assert not transfers(plain, "none")


def test_a_template_is_put_on_those_without_one_of_their_own() -> None:
    plain, _ = scripted_expert("plain")
    own, _ = scripted_expert("own", ktp=KTPTemplate("own", "{answer}"))
    names = [e.ktp.name if e.ktp else None for e in with_template([plain, own], "paper")]
    assert names == ["paper", "own"]


def test_an_unknown_aggregator_is_named() -> None:
    with pytest.raises(ValueError, match="'z' is not in the pool; it has: a, b, c"):
        MixtureOfAgents(NAMES, (1.0, 1.0, 1.0), "z")
