"""One agent over pools that changed after training: experts removed, reordered or added, other prices."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import scripted_expert
from toy import WordEncoder, toy_agent, toy_examples, toy_experts, toy_observer, toy_source

from der_graph.data import Example, load_examples
from der_graph.data.leaks import digests_of
from der_graph.errors import AgentPoolMismatchError, DataError
from der_graph.graph import create_der_graph
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.recorded import RecordedChat
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import FixedHead, ProfileHead, Shape
from der_graph.policies.answers import AnswerSource
from der_graph.policies.observation import ObservationConfig, Observer
from der_graph.policies.observation.encoder import Vectors
from der_graph.policies.observation.evidence import answer_tokens
from der_graph.policies.observation.features import PROFILE_FEATURES
from der_graph.policies.quality import get_metric
from der_graph.policies.training.new_experts import add_expert, probe_expert, refresh_expert
from der_graph.state import Answer, DERContext, Situation

NAMES = ["writer", "counter", "facts", "parrot"]


class UniqueEncoder:
    """A direction of its own for every text."""

    name = "unique"

    def encode(self, texts: Sequence[str]) -> Vectors:
        rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=32) for text in texts]
        unit: Vectors = np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)
        return unit


def any_pool_agent(experts: Sequence[Expert], examples: Sequence[Example]) -> DERAgent:
    """An untrained agent that knows experts by profile, with random opinions."""
    torch.manual_seed(3)
    source = AnswerSource(list(experts), list(examples), get_metric("match"))
    first = source.first_answers()
    observer = Observer.fit(
        ObservationConfig(2, 0, fixed_pool=False),
        [expert.name for expert in experts],
        [expert.cost for expert in experts],
        UniqueEncoder(),
        questions=source.questions,
        answers=[],
        qualities=np.array([[o.quality for o in row] for row in first], dtype=np.float32),
        lengths=np.array(
            [[answer_tokens(o.answer) for o in row] for row in first], dtype=np.float32
        ),
        features=PROFILE_FEATURES,
    )
    shape = Shape(len(experts), observer.context_size, observer.expert_size, 16, "profile")
    network = ProfileHead(shape)
    with torch.no_grad():
        network.score_expert.weight.normal_(0.0, 3.0)
        network.direct.weight.normal_(0.0, 1.0)
    return DERAgent(observer, network, cost_weight=0.2, cost_weight_range=(0.02, 2.0))


def situation(names: Sequence[str], answers: Sequence[Answer] = ()) -> Situation:
    open_to = [True] * len(names) + [bool(answers)]
    return Situation("What is the colour of thing 7?", list(answers), open_to, max_steps=3)


def by_name(
    agent: DERAgent, names: Sequence[str], answers: Sequence[Answer] = ()
) -> dict[str, float]:
    choice = agent.decide([situation(names, answers)])[0]
    return dict(zip([*names, "END"], choice.probabilities, strict=True))


def test_the_order_of_the_pool_does_not_matter() -> None:
    agent = toy_agent(toy_source(12))
    costs = dict(zip(NAMES, agent.observer.costs.tolist(), strict=True))
    turned = NAMES[::-1]
    other = agent.for_pool(turned, [costs[name] for name in turned])
    assert other is not agent
    assert other.names == turned
    expected = by_name(agent, NAMES)
    assert by_name(other, turned) == pytest.approx(expected, abs=1e-5)
    assert agent.for_pool(NAMES, [costs[name] for name in NAMES]) is agent


def test_a_smaller_pool_is_the_same_network_over_fewer_experts(tmp_path: Path) -> None:
    agent = toy_agent(toy_source(12))
    smaller = agent.for_pool(["facts", "writer"], [2.0, 1.0])
    found = by_name(smaller, ["facts", "writer"])
    assert sum(found.values()) == pytest.approx(1.0)
    assert smaller.observer.indices == [2, 0]  # still told apart by the index of training
    smaller.save_pretrained(tmp_path)
    again = DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())
    assert by_name(again, ["facts", "writer"]) == pytest.approx(found, abs=1e-6)


def fixed_agent() -> DERAgent:
    """An untrained agent with an output for every expert of the toy pool, and random opinions."""
    observer = toy_observer(toy_source(12), ObservationConfig(2, 0))
    torch.manual_seed(1)
    network = FixedHead(Shape(4, observer.context_size, observer.expert_size, 16, "fixed"))
    with torch.no_grad():
        network.actor[-1].weight.normal_(0.0, 1.0)  # type: ignore[operator]
    return DERAgent(observer, network, cost_weight=0.2, cost_weight_range=(0.02, 2.0))


def test_a_fixed_head_masks_what_is_missing() -> None:
    agent = fixed_agent()
    masked = replace(situation(NAMES), mask=[True, False, False, True, False])
    whole = dict(zip(NAMES, agent.decide([masked])[0].probabilities, strict=False))
    part = agent.for_pool(["parrot", "writer"], [0.5, 1.0])
    found = by_name(part, ["parrot", "writer"])
    assert found["parrot"] == pytest.approx(whole["parrot"], rel=1e-5)
    assert found["writer"] == pytest.approx(whole["writer"], rel=1e-5)
    assert found["END"] == 0.0
    assert part.decide([situation(["parrot", "writer"])])[0].index == int(
        found["writer"] > found["parrot"]
    )
    assert part.for_pool(["parrot", "writer"], [0.5, 1.0]) is part


def test_a_part_is_saved_as_the_whole(tmp_path: Path) -> None:
    agent = fixed_agent()
    expected = by_name(agent, NAMES)
    for names, costs in ((["parrot", "writer"], [0.5, 1.0]), (NAMES[::-1], [0.5, 2.0, 0.1, 1.0])):
        agent.for_pool(names, costs).save_pretrained(tmp_path)
        again = DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())
        assert again.names == NAMES
        assert again.observer.costs.tolist() == pytest.approx([1.0, 0.1, 2.0, 0.5])
        assert by_name(again, NAMES) == pytest.approx(expected, rel=1e-5)


def test_a_fixed_head_sees_the_prices_of_the_pool() -> None:
    """The toy pool costs 1, 0.1, 2 and 0.5."""
    agent = fixed_agent()
    doubled = agent.for_pool(
        NAMES, [2.0, 0.2, 4.0, 1.0]
    )  # another unit: all shares are as they were
    assert by_name(doubled, NAMES) == pytest.approx(by_name(agent, NAMES), rel=1e-5)
    assert doubled.observer.costs.tolist() == pytest.approx([2.0, 0.2, 4.0, 1.0])
    said = r"trained with 'facts' at 2, the pool says 8: budgets .* or --any-pool, prices"
    with pytest.warns(UserWarning, match=said):
        dear = agent.for_pool(NAMES, [1.0, 0.1, 8.0, 0.5])
    assert dear.observer.costs.tolist() == pytest.approx([1.0, 0.1, 8.0, 0.5])
    assert by_name(dear, NAMES) != pytest.approx(by_name(agent, NAMES), rel=1e-3)
    assert dear.for_pool(NAMES, [1.0, 0.1, 8.0, 0.5]) is dear  # and warns once


def test_a_fixed_head_over_a_part_at_other_prices() -> None:
    agent = fixed_agent()
    doubled = agent.for_pool(["facts", "writer"], [4.0, 2.0])
    # Who is missing moves along, so that what the agent sees is as it was.
    assert doubled.observer.costs.tolist() == pytest.approx([2.0, 0.2, 4.0, 1.0])
    same = agent.for_pool(["facts", "writer"], [2.0, 1.0])
    assert same.observer is agent.observer
    asked = ["facts", "writer"]
    assert by_name(doubled, asked) == pytest.approx(by_name(same, asked), rel=1e-5)
    with pytest.warns(UserWarning, match="trained with 'facts' at 2, the pool says 1"):
        cheap = agent.for_pool(asked, [1.0, 1.0])
    # 2 + 1 in training, 1 + 1 now: two thirds for the others.
    assert cheap.observer.costs.tolist() == pytest.approx([1.0, 0.2 / 3, 1.0, 1 / 3])


def test_budgets_use_the_prices_of_the_pool() -> None:
    """The agent learnt that facts costs 2; it costs 8 here, and the budget is 3."""
    experts = [replace(e, cost=8.0) if e.name == "facts" else e for e in toy_experts()]
    with pytest.warns(UserWarning, match="the pool says 8"):
        der = create_der_graph(experts, agent=fixed_agent(), max_steps=4).compile()
    asked = {"messages": [("user", "What is the colour of thing 7?")]}
    state = der.invoke(asked, context=DERContext(max_cost=3.0))
    assert state["cost"] <= 3.0
    assert state["route"]
    assert all(step["mask"]["facts"] is False for step in state["route"])


def test_the_graph_takes_a_pool_with_experts_removed() -> None:
    source = toy_source(12)
    experts = [source.experts[2], source.experts[0]]
    der = create_der_graph(experts, agent=toy_agent(source), max_steps=2).compile()
    state = der.invoke({"messages": [("user", "What is the colour of thing 7?")]})
    assert {step["choice"] for step in state["route"]} <= {"facts", "writer", "END"}


def test_a_new_expert_is_known_by_its_probes(tmp_path: Path) -> None:
    experts, examples = toy_experts(), toy_examples(24)
    agent = any_pool_agent(experts[:3], examples)
    with pytest.raises(AgentPoolMismatchError, match="'parrot'"):
        agent.check_pool(NAMES)
    grown, quality = probe_expert(agent, experts[3], examples, count=10)
    assert quality == 0.0  # parrot is never right
    assert grown.names == NAMES
    assert agent.names == NAMES[:3]  # the old one is as it was
    results = grown.observer.arrays["probe_quality"][:, 3]
    assert len(results) == 24  # of the training questions, no new rows
    assert (results == 0.0).sum() == 10  # where it was asked
    assert ((results > 0.0) & (results < 0.5)).sum() == 14  # elsewhere guessed from these
    assert grown.observer.skill[3] == pytest.approx(results.mean())
    grown.save_pretrained(tmp_path)
    again = DERAgent.from_pretrained(tmp_path, encoder=UniqueEncoder())
    assert by_name(again, NAMES) == pytest.approx(by_name(grown, NAMES), abs=1e-6)


def test_probes_on_new_questions_become_new_rows() -> None:
    agent = any_pool_agent(toy_experts()[:3], toy_examples(8))
    grown = add_expert(
        agent,
        "owl",
        3.0,
        questions=["completely different words here", "and some others again"],
        qualities=[1.0, 0.0],
        lengths=[10.0, 30.0],
        description="wise",
    )
    quality = grown.observer.arrays["probe_quality"]
    assert quality.shape == (10, 4)
    assert np.isnan(quality[:8, 3]).all()
    assert np.isnan(quality[8:, :3]).all()
    np.testing.assert_array_equal(quality[8:, 3], [1.0, 0.0])
    mean, deviation = grown.observer.arrays["length_profile"][:, 3]
    assert mean == pytest.approx((np.log(10) + np.log(30)) / 2)
    assert deviation == pytest.approx((np.log(30) - np.log(10)) / 2)


def test_twins_look_alike() -> None:
    """An added expert with the profile and price of a known one is seen as the known one is."""
    experts, examples = toy_experts(), toy_examples(24)
    agent = any_pool_agent(experts, examples)
    twin = replace(experts[2], name="twin")
    grown, _ = probe_expert(agent, twin, examples, count=24)
    row = grown.observer.observe([situation(grown.names)], [0.1])[0]
    blocks = row[grown.observer.context_size :].reshape(5, -1)
    np.testing.assert_allclose(blocks[4], blocks[2], atol=1e-6)
    np.testing.assert_array_equal(
        grown.observer.arrays["probe_quality"][:, 4], grown.observer.arrays["probe_quality"][:, 2]
    )


def test_who_cannot_be_added() -> None:
    experts, examples = toy_experts(), toy_examples(8)
    fixed = toy_agent(toy_source(8))
    with pytest.raises(AgentPoolMismatchError, match="by default or with --any-pool"):
        probe_expert(fixed, replace(experts[0], name="new"), examples)
    agent = any_pool_agent(experts, examples)
    with pytest.raises(AgentPoolMismatchError, match="knows 'writer' already"):
        probe_expert(agent, experts[0], examples)
    with pytest.raises(DataError, match="no probe questions"):
        probe_expert(agent, replace(experts[0], name="new"), [])
    new, model = scripted_expert("new", "7")
    words = [Example(f"w{i}", f"Capital number {i}?", "Paris") for i in range(8)]
    with pytest.raises(DataError, match="the metric 'numeric' needs a number"):
        probe_expert(agent, new, [*examples, *words], count=1, metric="numeric")
    with pytest.raises(DataError, match="none of 1 probe questions has a reference"):
        refresh_expert(agent, experts[0], [Example("x", "Why?", "")])
    assert not model.prompts


def test_a_missing_recorded_answer_is_not_a_wrong_one(tmp_path: Path) -> None:
    agent = any_pool_agent(toy_experts(), toy_examples(8))
    data = tmp_path / "recorded.jsonl"
    candidate = {"model": "owl", "text": "7", "scores": {"accuracy": 1.0}}
    row = {"id": "1", "instruction": "another question", "output": "7", "candidates": [candidate]}
    data.write_text(json.dumps(row) + "\n", encoding="utf-8")
    owl = Expert("owl", RecordedChat(data=str(data), model="owl"), cost=1.0, ktp=TEMPLATES["none"])
    with pytest.raises(DataError, match="no recorded answer of 'owl'"):
        probe_expert(agent, owl, toy_examples(8), count=3)


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """der pool add and der tune, on recorded experts."""
    from der_graph.cli import main
    from der_graph.policies.observation import encoder as encoder_module

    monkeypatch.setattr(
        encoder_module.SentenceEncoder, "encode", lambda self, texts: UniqueEncoder().encode(texts)
    )
    rows = [
        {"id": e.id, "instruction": e.question, "output": e.reference, "candidates": [
            {"model": "old", "text": e.reference if i % 2 else "no"},
            {"model": "new", "text": e.reference},
        ]}
        for i, e in enumerate(toy_examples(12))
    ]  # fmt: skip
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expert = "  - {{name: {0}, backend: recorded, data: data.jsonl, cost: {1}}}\n"
    pool = tmp_path / "pool.yaml"
    pool.write_text("experts:\n" + expert.format("old", 2) + expert.format("new", 5))
    from der_graph.pool import load_pool

    old = next(iter(load_pool(pool)))
    known = [old, replace(old, name="gone")]  # as one that is retired
    any_pool_agent(known, toy_examples(12)).save_pretrained(tmp_path / "a")
    shared = [
        "--pool",
        str(pool),
        "--data",
        str(tmp_path / "data.jsonl"),
        "--cache",
        str(tmp_path / "c.db"),
    ]
    add = ["pool", "add", *shared, "--agent", str(tmp_path / "a"), "--out", str(tmp_path / "b")]
    assert main([*add, "--probes", "6"]) == 0
    said = capsys.readouterr().out
    assert "new: quality 1.000 on 6 questions" in said
    assert "b: an agent for old, new\n" in said
    assert main([*add[:-1], str(tmp_path / "c"), "--agent", str(tmp_path / "b")]) == 2
    assert "knows all its experts already" in capsys.readouterr().err
    tune = ["tune", *shared, "--agent", str(tmp_path / "b"), "--points", "2"]
    config = json.loads((tmp_path / "b" / "config.json").read_text(encoding="utf-8"))
    seen = digests_of(load_examples(tmp_path / "data.jsonl"))
    for part, warned in (("train", True), ("dev", False)):
        config["seen"] = {part: seen}
        (tmp_path / "b" / "config.json").write_text(json.dumps(config), encoding="utf-8")
        assert main([*tune, "--target-cost", "7"]) == 0
        assert (
            "the agent was trained on 12 of the 12 questions" in capsys.readouterr().err
        ) is warned
    assert main([*tune, "--target-cost", "7", "--out", str(tmp_path / "t")]) == 0
    assert "--cost-weight" in capsys.readouterr().out
    assert main([*tune, "--target-cost", "0.5"]) == 2
    assert "out of reach" in capsys.readouterr().err

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("der_graph.policies.training.new_experts.refresh_expert", interrupted)
    refresh = ["pool", "refresh", "new", *shared, "--agent", str(tmp_path / "b")]
    refresh += ["--out", str(tmp_path / "r")]
    for cache, kept in ((tmp_path / "c.db", True), (":memory:", False)):
        assert main([*refresh, "--cache", str(cache)]) == 130
        assert ("the answer cache has what new answered" in capsys.readouterr().err) is kept


def test_experts_that_are_not_told_by_position_have_no_index(tmp_path: Path) -> None:
    """As every agent of `der train` that knows experts by their results."""
    any_pool_agent(toy_experts(), toy_examples(8)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert [expert["index"] for expert in config["experts"]] == [None] * 4
    assert DERAgent.from_pretrained(tmp_path, encoder=UniqueEncoder()).names == NAMES
