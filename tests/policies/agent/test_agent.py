"""The agent at serving time: decisions, masks, and the folder that it lives in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import WordEncoder, toy_agent, toy_rules, toy_source

from der_graph.errors import AgentError, AgentPoolMismatchError
from der_graph.policies.agent import DERAgent, load_agent
from der_graph.policies.agent.folder import CONFIG_FILE, WEIGHTS_FILE
from der_graph.policies.agent.network import Shape, SharedHead, masked_probabilities
from der_graph.policies.training import run_routes
from der_graph.state import Situation

NAMES = ["writer", "counter", "facts", "parrot"]


@pytest.fixture
def agent() -> DERAgent:
    return toy_agent(toy_source(12))


def situation(mask: list[bool], **more: object) -> Situation:
    return Situation(question="What is the colour of thing 3?", mask=mask, max_steps=3, **more)  # type: ignore[arg-type]


def test_masked_probabilities_by_hand() -> None:
    scores = torch.tensor([[0.0, 0.0, np.log(2.0)]])
    mask = torch.tensor([[True, False, True]])
    assert masked_probabilities(scores, mask)[0].tolist() == pytest.approx([1 / 3, 0.0, 2 / 3])
    with pytest.raises(ValueError, match="allows no choice"):
        masked_probabilities(scores, torch.tensor([[False, False, False]]))


def test_every_expert_is_scored_by_the_same_weights() -> None:
    """Swapping two experts' features swaps their scores, and changes neither END nor the value."""
    network = SharedHead(Shape(3, 5, 4, 8))
    observation = torch.randn(1, 17)
    swapped = observation.clone()
    swapped[:, 5:9], swapped[:, 9:13] = observation[:, 9:13], observation[:, 5:9]
    scores, value = network(observation)
    others, same = network(swapped)
    torch.testing.assert_close(scores[0, [1, 0, 2, 3]], others[0])
    torch.testing.assert_close(value, same)


def test_an_expert_is_read_together_with_the_context() -> None:
    """The layer over (context, expert), computed apart for speed, is that of the two put together."""
    trunk = SharedHead(Shape(3, 5, 4, 8)).actor
    observation = torch.randn(2, 17)
    context = torch.tanh(trunk.context(observation[:, :5]))
    each, _ = trunk(observation)
    for i in range(3):
        both = torch.cat([context, observation[:, 5 + 4 * i : 9 + 4 * i]], dim=1)
        torch.testing.assert_close(each[:, i], torch.tanh(trunk.expert(both)))


def test_decisions_obey_the_mask_and_sum_to_one(agent: DERAgent) -> None:
    masks = [
        [True, True, True, True, False],
        [False, True, False, False, True],
        [False, False, True, False, False],
    ]
    for choice, mask in zip(agent.decide([situation(mask) for mask in masks]), masks, strict=True):
        assert mask[choice.index]
        assert sum(choice.probabilities) == pytest.approx(1.0)
        assert all(
            p == 0.0 for p, allowed in zip(choice.probabilities, mask, strict=True) if not allowed
        )
        assert choice.probabilities[choice.index] == max(choice.probabilities)
        assert choice.cost_weight == 0.2


def test_prices_are_clipped_to_what_was_trained(agent: DERAgent) -> None:
    open_mask = [True, True, True, True, False]
    asked = [0.0, 0.3, 50.0]
    choices = agent.decide([situation(open_mask, cost_weight=weight) for weight in asked])
    assert [choice.cost_weight for choice in choices] == [0.02, 0.3, 2.0]


def test_a_batch_decides_as_single_questions_do(agent: DERAgent) -> None:
    masks = [[True, True, True, True, False], [True, False, True, False, False]]
    together = agent.decide([situation(mask) for mask in masks])
    alone = [agent.decide([situation(mask)])[0] for mask in masks]
    for a, b in zip(together, alone, strict=True):
        assert a.index == b.index
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-5)


def test_saved_and_loaded_it_decides_alike(agent: DERAgent, tmp_path: Path) -> None:
    agent.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [WEIGHTS_FILE, CONFIG_FILE]
    again = DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())
    source = toy_source(12)
    rules = toy_rules(source.experts)
    before, after = run_routes(agent, source, rules), run_routes(again, source, rules)
    assert [e.experts for e in before] == [e.experts for e in after]
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert [expert["name"] for expert in config["experts"]] == NAMES


def test_serving_imports_no_training_library(agent: DERAgent, tmp_path: Path) -> None:
    agent.save_pretrained(tmp_path)
    code = (
        "import sys; from der_graph.policies.agent.agent import DERAgent; "
        f"DERAgent.from_pretrained({str(tmp_path)!r}); "
        "bad = {'stable_baselines3', 'sb3_contrib', 'gymnasium', 'cloudpickle'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_another_pool_is_refused_with_the_difference(agent: DERAgent) -> None:
    agent.check_pool(NAMES)
    agent.check_pool(NAMES[::-1])  # what it knows, in any order and number
    agent.check_pool(NAMES[:2])
    with pytest.raises(AgentPoolMismatchError, match="does not know 'owl'; it knows 'writer'"):
        agent.check_pool([*NAMES[:3], "owl"])
    with pytest.raises(AgentPoolMismatchError, match="a pool without experts"):
        agent.check_pool([])


def test_folders_that_hold_no_agent(agent: DERAgent, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="no such folder"):
        load_agent("./nowhere")
    with pytest.raises(AgentError, match=r"no config\.json"):
        load_agent(tmp_path)
    agent.save_pretrained(tmp_path)
    weights = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(AgentError, match=WEIGHTS_FILE):
        load_agent(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(AgentError, match="format 99"):
        load_agent(tmp_path)
    (tmp_path / CONFIG_FILE).write_text("not json")
    with pytest.raises(AgentError, match="not an agent's config"):
        load_agent(tmp_path)
