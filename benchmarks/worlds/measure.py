"""One world and seed: train DER, fit the baselines, and set all beside the optimum on the same questions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from der_graph.policies.observation import SentenceEncoder

from .adapter import ALONE, Numbers, baselines, judges, route, source, train
from .optimum import best_policy, follow
from .orders import Order, best_orders, in_order
from .pools import world_of
from .world import Question, World

TEST_QUESTIONS = 1_500
TEST_SEED = 999_983
"""Of the test questions, which are the same for every training."""
_USUAL = 3  # routes of a topic

Result = dict[str, Any]
"""`{"world", "seed", "questions", "tests", "train_seconds", "prices": {price: {method: figures}}}`."""
_Routes = tuple[Numbers, Numbers, list[Order]]


def measure(
    name: str,
    seed: int,
    questions: int,
    prices: Sequence[float],
    tests: int = TEST_QUESTIONS,
    chat: bool = False,
) -> Result:
    """Run one world and seed.

    Args:
        name: Of the world.
        seed: Of the training, and of its questions.
        questions: How many it has; `der train` sets a tenth of them aside.
        prices: Of cost.
        tests: How many questions all are compared on.
        chat: Are the experts chat models, so that training keeps to `--route-calls`?

    Returns:
        Per price and method `utility`, `quality`, `cost`, `share` of the optimum's utility; and how far DER
        is `ahead` of each other method, with the standard `error` of the difference.
    """
    world = world_of(name)
    test = world.questions(tests, TEST_SEED)
    learnt = world.questions(questions, seed, {question.text for question in test})
    encoder = SentenceEncoder()
    start = time.perf_counter()
    agent = train(world, learnt, seed, encoder, chat=chat)
    seconds = round(time.perf_counter() - start, 1)
    agents = {"DER": agent, **baselines(world, learnt, encoder)}
    orders = best_orders(world, learnt, prices)
    singles = {f"single:{each}": _fixed(world, (each,), test) for each in world.names}
    answers = {a: source(world, test, judges(world)[1], alone=a) for a in (False, True)}
    table = {}
    for price in prices:
        routes = {"optimum": _optimal(world, price, test)}
        for who, each in agents.items():
            routes[who] = route(world, each, answers[who in ALONE], price)
        routes |= {"fixed order": _fixed(world, orders[price], test), **singles}
        table[f"{price:g}"] = _figures(world, price, test, routes)
    ran = {"world": name, "seed": seed, "questions": questions, "tests": tests, "chat": chat}
    return {**ran, "train_seconds": seconds, "prices": table}


def _optimal(world: World, price: float, test: Sequence[Question]) -> _Routes:
    done = follow(world, best_policy(world, price), test)
    quality, cost = (np.array([getattr(e, part) for e in done]) for part in ("quality", "cost"))
    return quality, cost, [each.experts for each in done]


def _fixed(world: World, order: Order, test: Sequence[Question]) -> _Routes:
    quality = np.array([said.kind.quality for said in in_order(world, order, test)])
    cost = np.full(len(test), sum(world.costs[name] for name in order))
    return quality, cost, [order] * len(test)


def _figures(
    world: World, price: float, test: Sequence[Question], routes: dict[str, _Routes]
) -> dict[str, Any]:
    worth = {
        name: quality - price * cost / world.total for name, (quality, cost, _) in routes.items()
    }
    table: dict[str, Any] = {}
    for name, (quality, cost, asked) in routes.items():
        row = {"utility": worth[name], "quality": quality, "cost": cost}
        table[name] = {figure: float(values.mean()) for figure, values in row.items()}
        table[name]["share"] = table[name]["utility"] / float(worth["optimum"].mean())
        if name != "DER":
            ahead = worth["DER"] - worth[name]
            table[name]["ahead"] = float(ahead.mean())
            table[name]["error"] = float(ahead.std() / len(ahead) ** 0.5)
        if name in ("DER", "optimum"):
            table[name]["routes"] = _usual(test, asked)
    return table


def _usual(test: Sequence[Question], asked: Sequence[Order]) -> dict[str, dict[str, int]]:
    """The most frequent routes of each topic, with their number."""
    found: dict[str, Counter[str]] = {}
    for question, experts in zip(test, asked, strict=True):
        found.setdefault(question.topic, Counter())[" > ".join(experts)] += 1
    return {topic: dict(counts.most_common(_USUAL)) for topic, counts in found.items()}
