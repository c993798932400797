"""Agents that cannot decide: refused when they are loaded, or replaced by a rule when they are asked."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ScriptedAgent, a_human, route_of, scripted_expert, three_experts
from safetensors.numpy import load_file, save_file

from der_graph import DERContext, create_der_graph, load_agent
from der_graph.errors import AgentError
from der_graph.nodes.decision import Choice
from der_graph.pool import pool_from
from der_graph.pool.pool import try_agent
from der_graph.state import Situation

# Loading ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped agent's folder."""
    copy = tmp_path / "agent"
    shutil.copytree(str(files("der_graph") / "demo" / "agent"), copy)
    return copy


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["network.", "observer."])
def test_one_number_that_is_none_is_found_when_an_agent_is_loaded(
    folder: Path, part: str, value: float
) -> None:
    tensors = load_file(folder / "agent.safetensors")
    name = next(n for n in sorted(tensors) if n.startswith(part) and "probe_quality" not in n)
    tensors[name] = tensors[name].copy()
    tensors[name].flat[0] = value
    save_file(tensors, folder / "agent.safetensors")
    with pytest.raises(AgentError, match=f"'{name}' holds NaN or infinity"):
        load_agent(folder)


def test_qualities_may_be_unknown_but_not_infinite(folder: Path) -> None:
    tensors = load_file(folder / "agent.safetensors")
    name = "observer.probe_quality"
    for value in (math.nan, math.inf):
        tensors[name] = tensors[name].copy()
        tensors[name].flat[0] = value
        save_file(tensors, folder / "agent.safetensors")
        if math.isnan(value):
            load_agent(folder)
        else:
            with pytest.raises(AgentError, match="probe_quality"):
                load_agent(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cost_weight", math.nan, "cost_weight is nan"),
        ("cost_weight", -5, "cost_weight is -5"),
        ("cost_weight", True, "cost_weight is True"),
        ("cost_weight_range", [5, 0], r"cost_weight_range is \[5, 0\], from high to low"),
        ("cost_weight_range", [0, math.inf], "cost_weight_range is inf"),
        ("cost_weight_range", 3, "cost_weight_range is 3; it is two numbers"),
        ("experts.cost", "x", r"experts\[0\].cost is 'x'"),
        ("experts.cost", None, r"experts\[0\].cost is None"),
        ("experts.name", "gemma", r"experts\[0\].name is 'gemma'"),
        ("experts.name", "a b", "expert name 'a b'"),
        ("experts.index", -1, r"experts\[0\].index is -1"),
        ("experts.index", 1, "two experts have the same index"),
        ("experts", [], "experts is not a list of experts"),
        ("encoder", "", "observation.encoder is ''"),
        ("encoder", 5, "observation.encoder is 5"),
    ],
)
def test_odd_values_of_a_config_are_refused(
    folder: Path, field: str, value: Any, message: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    if field == "encoder":
        config["observation"]["encoder"] = value
    elif "." in field:
        for number, expert in enumerate(config["experts"]):
            expert["index"] = number
        config["experts"][0][field.split(".")[1]] = value
    else:
        config[field] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(AgentError, match=message):
        load_agent(folder)


# Deciding -----------------------------------------------------------------------------------------


class Wrong(ScriptedAgent):
    """Follows its script up to a step, and fails there."""

    def __init__(self, at: int, failure: Any, *script: str) -> None:
        super().__init__(*script)
        self.at, self.failure = at, failure

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        if len(situations[0].answers) < self.at:
            return super().decide(situations)
        if isinstance(self.failure, BaseException):
            raise self.failure
        found: list[Choice] = self.failure
        return found


FAILURES = [
    RuntimeError("secret words of the question"),
    MemoryError(),
    SystemExit(3),
    asyncio.CancelledError(),
    KeyboardInterrupt(),
    [],
    None,
    [Choice(0, [math.nan] * 4)],
    [Choice(1, [0.0, math.inf, 0.0, 0.0])],
    [Choice(9, [0.25] * 4)],
    [Choice(3, [0.0, 0.0, 0.0, 1.0])],  # END, before there is an answer
]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_agent_is_replaced_by_a_rule(
    failure: Any, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    experts, models = three_experts()
    graph = create_der_graph(experts[::-1], agent=Wrong(0, failure)).compile()
    with caplog.at_level(logging.WARNING):
        if asynchronous:
            result = asyncio.run(graph.ainvoke(a_human("2 + 3?")))
        else:
            result = graph.invoke(a_human("2 + 3?"))
    assert result["answer"] == "It is 5."  # of the cheapest
    assert route_of(result)[0] == "small"
    assert result["route"][0]["reason"] == "agent_failed"
    assert result["route"][0]["probabilities"]["small"] == 1.0
    assert not models["large"].prompts
    assert "the agent failed (" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_that_is_there_is_not_lost(asynchronous: bool) -> None:
    experts, models = three_experts()
    graph = create_der_graph(experts, agent=Wrong(1, MemoryError(), "middle")).compile()
    run = graph.ainvoke(a_human("2 + 3?")) if asynchronous else None
    result = asyncio.run(run) if run is not None else graph.invoke(a_human("2 + 3?"))
    assert route_of(result) == ["middle", "END"]
    assert [step["reason"] for step in result["route"]] == ["agent", "agent_failed"]
    assert result["answer"] == "It is 6."
    assert not models["small"].prompts


def test_the_agents_own_fallback_is_asked_where_it_may_be() -> None:
    experts, _ = three_experts()
    agent = Wrong(0, OSError())
    agent.fallback = "large"  # type: ignore[attr-defined]
    graph = create_der_graph(experts, agent=agent).compile()
    assert route_of(graph.invoke(a_human("2 + 3?")))[0] == "large"
    cheap = graph.invoke(a_human("2 + 3?"), context=DERContext(max_cost=2.0))
    assert route_of(cheap)[0] == "small"


def test_an_agent_that_hangs_is_given_up_in_time() -> None:
    import threading

    class Hanging(ScriptedAgent):
        def decide(self, situations: Sequence[Situation]) -> list[Choice]:
            threading.Event().wait(20)
            raise AssertionError

    expert, _ = scripted_expert("a", "5")
    graph = create_der_graph([expert], agent=Hanging()).compile()
    result = graph.invoke(a_human("2 + 3?"), context=DERContext(deadline=1.0))
    assert result["answer"] == "5"
    assert result["route"][0]["reason"] == "agent_failed"


def test_a_vote_that_fails_leaves_the_last_answer() -> None:
    class Voting(ScriptedAgent):
        def select(self, answers: Any, question: str) -> int:
            raise ValueError

    experts, _ = three_experts()
    graph = create_der_graph(experts, agent=Voting("small", "large")).compile()
    assert graph.invoke(a_human("2 + 3?"))["answer"] == "It is 7."


# Before a server is ready -------------------------------------------------------------------------


def test_a_trained_agent_decides_once_before_it_serves() -> None:
    class Trained(Wrong):
        def save_pretrained(self, folder: str) -> None:
            raise NotImplementedError

    pool = pool_from(three_experts()[0])
    agent = Trained(0, OSError("no encoder"))
    with pytest.raises(AgentError, match="the agent cannot decide: OSError: no encoder"):
        try_agent(agent, pool)
    with pytest.raises(AgentError, match="probabilities are no numbers"):
        try_agent(Trained(0, [Choice(0, [math.nan] * 4)]), pool)
    good = Trained(1, None, "small")
    try_agent(good, pool)
    assert [np.sum(seen.mask) for seen in good.seen] == [3]
    try_agent(Wrong(0, OSError()), pool)  # the user's own is left alone
