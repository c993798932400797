"""Worlds whose best policy is known: the optimum is one, and der_graph's experts are the world's."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkout import Load, needs_benchmarks

if TYPE_CHECKING:
    from worlds.world import Call, Chances, Said, World

pytestmark = needs_benchmarks
NAMES = (
    "specialists five-topics rare-topics easy-and-hard open-answers verifier pipeline order-matters "
    "only-good-second editor near-copies liars correlated-failures noisy modest crowd-20 crowd-30 "
    "hidden-halves committee free-call herd four-steps languages mixed two coins refusers graded newsroom"
).split()


def test_all_worlds_are_tested(load: Load) -> None:
    assert list(load("worlds.pools").WORLDS) == NAMES


def test_a_seed_is_a_world(load: Load) -> None:
    """Figures of a drawn world are worth nothing if it is another one tomorrow."""
    world_of = load("worlds.pools").world_of
    assert dict(world_of("random-9001").costs) == {"e0": 0.24, "e1": 0.51, "e2": 15.65, "e3": 0.57}
    assert world_of("random-9002").costs != world_of("random-9001").costs
    for unknown in ("random-", "random-x", "nowhere"):
        with pytest.raises(ValueError, match=f"no world '{unknown}'; there are specialists"):
            world_of(unknown)


# The optimum --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "random-3", "random-4"])
def test_the_best_policy_earns_what_was_planned(load: Load, name: str) -> None:
    world, optimum = load("worlds.pools").world_of(name), load("worlds.optimum")
    questions = world.questions(2_000, 7)
    for price in (0.05, 0.6):
        policy = optimum.best_policy(world, price)
        routes = optimum.follow(world, policy, questions)
        earned = np.array([each.quality - price * each.cost / world.total for each in routes])
        assert abs(earned.mean() - policy.value) < 3 * earned.std() / len(earned) ** 0.5


Tree = Any
"""A policy: None for END, or an expert and the policy after each look of its answer."""


def trees(
    world: World, looks: list[list[tuple[str, int]]], asked: tuple[str, ...]
) -> Iterator[Tree]:
    """Every policy from a point on, whether it makes sense or not."""
    if asked:
        yield None
    if len(asked) < world.max_steps:
        for name in sorted(set(world.names) - set(asked)):
            seen = looks[len(asked)]
            after = list(trees(world, looks, (*asked, name)))
            for choice in itertools.product(after, repeat=len(seen)):
                yield name, dict(zip(seen, choice, strict=True))


def worth(
    world: World, price: float, topic: str, tree: Tree, hard: bool, said: list[Said]
) -> float:
    """Expected utility of a policy, from a point on."""
    if tree is None:
        quality: float = said[-1].kind.quality
        return quality
    name, after = tree
    value = -price * world.costs[name] / world.total
    for answer, chance in world.outcomes(topic, hard, name, said[-1] if said else None).items():
        longer = [*said, answer]
        look = (answer.kind.form, longer.index(answer))
        value += chance * worth(world, price, topic, after[look], hard, longer)
    return value


def checked(call: Call) -> Chances:
    """Two who draft and share mistakes, and a checker who has nothing to say alone."""
    import worlds.world as w

    if call.model == "checker":
        if call.shown is None or call.shown == w.NOTHING:
            return {w.NOTHING: 1.0}
        mends = 0.95 if call.shown == w.RIGHT else 0.5
        return {w.RIGHT: mends, w.SAME: 0.75 * (1 - mends), w.WRONG: 0.25 * (1 - mends)}
    chance = {"draft": 0.6, "other": 0.7}[call.model] - 0.4 * call.hard
    return {w.RIGHT: chance, w.LURE: (1 - chance) / 2, w.NOTHING: (1 - chance) / 2}


def counted(call: Call) -> Chances:
    """Four independent experts, two of whom make the same mistakes."""
    import worlds.world as w

    chance = {"a": 0.55, "b": 0.5, "c": 0.6, "d": 0.8}[call.model] - 0.3 * call.hard
    return {w.RIGHT: chance, w.LURE if call.model in "ab" else w.WRONG: 1 - chance}


@pytest.mark.parametrize("price", [0.1, 0.5, 1.5])
@pytest.mark.parametrize(
    ("chances", "costs", "steps", "forms"),
    [
        (checked, {"draft": 1.0, "other": 1.5, "checker": 1.0}, 3, ["number", "nothing"]),
        (counted, {"a": 1.0, "b": 0.9, "c": 1.2, "d": 4.0}, 4, ["number"]),
    ],
)
def test_no_policy_of_a_small_world_is_better(
    load: Load, chances: Any, costs: dict[str, float], steps: int, forms: list[str], price: float
) -> None:
    topics = {"only": ["What is {a}?"]}
    make, best_policy = load("worlds.world").World, load("worlds.optimum").best_policy
    world = make("small", costs, chances, topics, hard=0.3, max_steps=steps)
    # A look is only planned for where another call may follow.
    looks = [[(form, i) for form in forms for i in range(n + 1)] for n in range(steps)]
    looks[-1] = [("any", 0)]

    class Anything(dict[Any, Any]):
        def __missing__(self, key: Any) -> None:
            return None

    def value(tree: Tree) -> float:
        hidden = world.hidden("only").items()
        total: float = sum(p * worth(world, price, "only", tree, hard, []) for hard, p in hidden)
        return total

    def lenient(tree: Tree) -> Tree:
        return tree and (tree[0], Anything({k: lenient(v) for k, v in tree[1].items()}))

    best = max(value(lenient(tree)) for tree in trees(world, looks, ()))
    assert best_policy(world, price).value == pytest.approx(best)


def test_experts_that_are_alike_need_not_all_be_tried(load: Load) -> None:
    world, best_policy = (
        load("worlds.pools").WORLDS["near-copies"],
        load("worlds.optimum").best_policy,
    )
    short = replace(world, max_steps=3)

    def chances(call: Call) -> Chances:
        found: Chances = world.chances(call._replace(model=world.model(call.model)))
        return found

    apart = replace(short, alike={}, chances=chances)
    assert best_policy(apart, 0.2).value == pytest.approx(best_policy(short, 0.2).value)


def test_a_wrong_sum_of_chances_is_refused(load: Load) -> None:
    module = load("worlds.world")
    with pytest.raises(ValueError, match=r"broken: .*no chances"):
        module.World("broken", {"a": 1.0}, lambda call: {module.RIGHT: 0.7})


# The world in der_graph ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_experts_say_what_the_world_says(load: Load, name: str) -> None:
    from der_graph.policies.baselines import FixedOrder

    world, adapter = load("worlds.pools").WORLDS[name], load("worlds.adapter")
    questions = world.questions(40, 3)
    order = (*world.names[1:4], world.names[0])
    agent = FixedOrder(world.names, tuple(world.costs.values()), order)
    answers = adapter.source(world, questions, adapter.judges(world)[1])
    quality, cost, asked = adapter.route(world, agent, answers, 0.2)
    expected = load("worlds.orders").in_order(world, order, questions)
    assert quality == pytest.approx([said.kind.quality for said in expected])
    assert set(asked) == {order}
    assert cost == pytest.approx(sum(world.costs[expert] for expert in order))


def test_the_noisy_judge_errs_as_the_world_says(load: Load) -> None:
    world, adapter = load("worlds.pools").WORLDS["noisy"], load("worlds.adapter")
    questions = world.questions(200, 4)
    first = adapter.source(world, questions, adapter.judges(world)[0]).first_answers()
    judged = [[outcome.quality for outcome in row] for row in first]
    expected = [
        [world.judged(question.text, world.say(question.text, name)) for name in world.names]
        for question in questions
    ]
    assert judged == expected


def test_the_best_fixed_order_uses_transfer(load: Load) -> None:
    world = load("worlds.pools").WORLDS["order-matters"]
    orders = load("worlds.orders").best_orders(world, world.questions(200, 1), (0.2, 10.0))
    assert orders[0.2] == ("planner", "solver")
    assert len(orders[10.0]) == 1


# The report ---------------------------------------------------------------------------------------


class ByTopic:
    """An encoder that knows what a question is about, and nothing else."""

    name = "by topic"

    def __init__(self, world: World) -> None:
        self.world = world

    def encode(self, texts: list[str]) -> Any:
        topics = list(self.world.topics)
        return np.eye(len(topics))[[topics.index(self.world._known(text)[0]) for text in texts]]


def test_all_methods_stand_beside_the_optimum(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from der_graph.policies.baselines import Single

    module, world = load("worlds.measure"), load("worlds.pools").WORLDS["five-topics"]
    doctor = Single(world.names, tuple(world.costs.values()), "doctor")
    monkeypatch.setattr(module, "SentenceEncoder", lambda: ByTopic(world))
    monkeypatch.setattr(module, "train", lambda *given, **more: doctor)
    row = module.measure("five-topics", 0, 200, (0.2,), tests=300)["prices"]["0.2"]
    best = row["optimum"]
    assert best["utility"] == pytest.approx(best["quality"] - 0.2 * best["cost"] / world.total)
    assert best["share"] == 1
    assert row["router:knn"]["share"] == pytest.approx(1)  # it asks whom the optimum asks
    assert row["single:doctor"]["utility"] == pytest.approx(row["DER"]["utility"])
    assert (row["single:doctor"]["ahead"], row["single:doctor"]["error"]) == (0, 0)
    assert best["ahead"] == pytest.approx(row["DER"]["utility"] - best["utility"])
    assert list(best["routes"]["law"]) == ["lawyer"]
    assert list(row["DER"]["routes"]["law"]) == ["doctor"]


def figures(utility: float, ahead: float | None = None) -> dict[str, float]:
    row = {"utility": utility, "quality": utility, "cost": 1.0, "share": utility / 0.8}
    return row if ahead is None else {**row, "ahead": ahead, "error": 0.01}


def test_stored_results_are_shown_and_not_measured_again(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "optimum": figures(0.8, -0.2), "DER": figures(0.6), "single:a": figures(0.5, 0.1),
        "fixed order": figures(0.7, -0.1), "cascade:best": figures(0.5, 0.1),
        "router:knn": figures(0.5, 0.1), "router:logistic": figures(0.4, 0.2),
    }  # fmt: skip
    result = {
        "world": "liars", "seed": 0, "questions": 600, "tests": 1500, "train_seconds": 50.0,
        "prices": {"0.2": row},
    }  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps([result]), encoding="utf-8")
    asked = [
        "worlds",
        "--worlds",
        "liars",
        "--seeds",
        "1",
        "--prices",
        "0.2",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", asked)
    load("worlds.__main__").main()
    shown = capsys.readouterr()
    assert "0 trainings to go, 1 are there" in shown.err
    assert "| liars | **0.750** | 0.875 | 50 |" in shown.out
    assert "Of 1 figures (world, seed and price) 0 reach 0.97, 0 reach 0.95" in shown.out
    assert "ahead at 1 of 1 places" in shown.out
    assert (tmp_path / "worlds.md").read_text(encoding="utf-8") in shown.out
    assert (tmp_path / "worlds.png").stat().st_size > 1000
