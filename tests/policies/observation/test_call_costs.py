"""Expected costs, learnt from real ones; and a price that means the same over every pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy import WordEncoder, profile_observer

from der_graph.nodes.reliability.charge import CallSize, Charge, TokenPrices
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import Shape, make_network
from der_graph.policies.observation.call_costs import CostScale, expected_costs, fit_call_costs
from der_graph.policies.observation.features import PROFILE_FEATURES
from der_graph.state import Situation

TOKENS = Charge(1.0, TokenPrices(10.0, 100.0))
NAMES = ["writer", "counter", "facts", "parrot"]
COSTS = [1.0, 0.1, 2.0, 0.5]
CHARGE = PROFILE_FEATURES.expert.index("charge")


def size(tokens_in: float, tokens_out: float) -> CallSize:
    return CallSize(tokens_in, 0, tokens_out, 1.0)


def test_sizes_are_learnt_and_priced() -> None:
    learnt = fit_call_costs([[size(100, 10), None], [size(300, 30), None]], [TOKENS, Charge(5.0)])
    assert learnt["call_size"][:, 0].tolist() == [200, 0, 20, 1]
    # 2,000 and 6,000 millionths, 4,000 on average; the other always costs the same.
    assert learnt["probe_cost"][:, 0].tolist() == pytest.approx([0.5, 1.5])
    assert np.isnan(learnt["probe_cost"][:, 1]).all()
    costs = expected_costs([1.0, 5.0], [TOKENS, Charge(5.0)], learnt["call_size"])
    assert costs == pytest.approx([0.004, 5.0])
    dearer = [Charge(1.0, TokenPrices(20.0, 100.0)), Charge(5.0)]
    assert expected_costs([1.0, 5.0], dearer, learnt["call_size"]) == pytest.approx([0.006, 5.0])
    assert expected_costs([1.0, 5.0], [], None) == [1.0, 5.0]
    assert fit_call_costs([[None]], [Charge(5.0)]) == {}


def agent(scale: CostScale | None) -> DERAgent:
    observer = profile_observer().with_scale(scale)
    shape = Shape(4, observer.context_size, observer.expert_size, 8, "profile")
    return DERAgent(observer, make_network(shape), cost_weight=0.2, cost_weight_range=(0.02, 2.0))


def charges(mine: DERAgent, names: list[str]) -> dict[str, float]:
    """What each expert is charged at a price of 0.1, as the agent sees it."""
    situation = Situation("I have 2 pebbles", [], [True] * len(names) + [False], max_steps=3)
    row = mine.observer.observe([situation], [0.1])[0, mine.observer.context_size :]
    return dict(zip(names, row.reshape(len(names), -1)[:, CHARGE].tolist(), strict=True))


def test_who_joins_leaves_or_is_repriced_does_not_move_the_others(tmp_path: Path) -> None:
    agent(CostScale(3.6, 4, "usd")).save_pretrained(tmp_path)
    mine = DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())
    before = charges(mine, NAMES)
    assert before == pytest.approx(
        {"writer": 0.1 / 3.6, "counter": 0.01 / 3.6, "facts": 0.2 / 3.6, "parrot": 0.05 / 3.6}
    )
    fewer = mine.for_pool(["facts", "writer"], [2.0, 1.0])
    assert charges(fewer, ["facts", "writer"]) == pytest.approx(
        {n: before[n] for n in ("facts", "writer")}
    )
    dearer = charges(mine.for_pool(NAMES, [1.0, 0.1, 20.0, 0.5]), NAMES)
    assert dearer == pytest.approx({**before, "facts": 2.0 / 3.6})
    from der_graph.policies.training.new_experts import add_expert

    more = add_expert(mine, "giant", 400.0, questions=["Who?"], qualities=[1.0], lengths=[3.0])
    joined = charges(more, [*NAMES, "giant"])
    assert {name: joined[name] for name in NAMES} == pytest.approx(before)
    assert joined["giant"] == pytest.approx(5.0)  # 11.1, as far as the network has seen


def test_agents_from_before_and_other_units_count_in_the_cost_of_everyone(tmp_path: Path) -> None:
    old = agent(None)
    old.save_pretrained(tmp_path)
    again = DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())
    assert again.observer.scale is None
    fewer = again.for_pool(["facts", "writer"], [2.0, 1.0])
    assert charges(fewer, ["facts", "writer"]) == pytest.approx(
        {"facts": 0.2 / 3, "writer": 0.1 / 3}
    )
    dollars = agent(CostScale(3.6, 4, "parameters_b")).for_pool(
        NAMES, [cost * 1e-6 for cost in COSTS], unit="usd"
    )
    assert charges(dollars, NAMES) == pytest.approx(charges(old, NAMES), rel=1e-5)


def test_dearer_questions_are_charged_more() -> None:
    observer = profile_observer()
    near = observer.arrays["probe_vectors"]
    ratios = np.where(near @ WordEncoder().encode(["pebbles"])[0] > 0, 2.0, 0.5)[:, None]
    call_costs = {"probe_cost": np.repeat(ratios, 4, axis=1).astype(np.float32)}
    mine = agent(CostScale(3.6, 4))
    mine.observer = replace_arrays(mine, call_costs)
    sums = charges(mine, NAMES)
    assert all(sums[name] > charges(agent(CostScale(3.6, 4)), NAMES)[name] * 1.5 for name in NAMES)


def replace_arrays(mine: DERAgent, more: dict[str, np.ndarray]):  # type: ignore[no-untyped-def]
    return mine.observer._with(arrays={**mine.observer.arrays, **more})


def test_an_agent_is_read_again_whose_new_expert_was_not_asked_everything(tmp_path: Path) -> None:
    from der_graph.policies.training.new_experts import add_expert

    more = add_expert(
        agent(CostScale(3.6, 4, "usd")), "giant", 4.0, questions=["Who?", "Why?"],
        qualities=[1.0, 0.0], lengths=[3.0, 0.0], charge=TOKENS, sizes=[size(1000, 100), None],
    )  # fmt: skip
    more.save_pretrained(tmp_path)
    again = DERAgent.from_pretrained(tmp_path, encoder=WordEncoder())
    assert again.names == [*NAMES, "giant"]
    assert again.observer.costs.tolist() == pytest.approx([*COSTS, 0.02])
    assert np.isnan(again.observer.arrays["probe_cost"]).any()


def test_expected_costs_are_those_of_the_agents_calls() -> None:
    mine = agent(CostScale(3.6, 4))
    sizes = np.tile(np.array([[1000.0], [0.0], [100.0], [1.0]], dtype=np.float32), (1, 4))
    mine.observer = replace_arrays(mine, {"call_size": sizes})
    by_token = [replace_charge(c) for c in COSTS]
    priced = mine.for_pool(NAMES, COSTS, charges=by_token)
    assert priced.observer.costs.tolist() == pytest.approx([0.02] * 4)


def replace_charge(cost: float) -> Charge:
    return TOKENS._replace(most=cost)
