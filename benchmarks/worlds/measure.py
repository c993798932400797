"""One world and seed: train DER, fit the baselines, and set all beside the optimum on the same questions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from der_graph.policies.encoder import SentenceEncoder

from .adapter import Numbers, judges, route, source, train
from .contenders import contenders
from .optimum import best_policy, follow
from .pools import WORLDS
from .world import Question, World

TEST_QUESTIONS = 1_500
TEST_SEED = 999_983
"""Of the test questions, which are the same for every training."""
_SHOWN = 3  # routes of a topic

Result = dict[str, Any]
"""`{"world", "seed", "questions", "train_seconds", "prices": {price: {method: figures}}}`."""
_Routes = tuple[Numbers, Numbers, list[tuple[str, ...]]]


def measure(
    name: str, seed: int, questions: int, prices: Sequence[float], tests: int = TEST_QUESTIONS
) -> Result:
    """Run one world and seed.

    Args:
        name: Of the world.
        seed: Of the training, and of its questions.
        questions: How many it has; `der train` sets a tenth of them aside.
        prices: Of cost.
        tests: How many questions all are compared on.

    Returns:
        Per price and method `utility`, `quality`, `cost`, `share` of the optimum's utility; and how far DER
        is `ahead` of each other method, with the standard `error` of the difference.
    """
    world = WORLDS[name]
    test = world.questions(tests, TEST_SEED)
    learnt = world.questions(questions, seed, {question.text for question in test})
    encoder = SentenceEncoder()
    start = time.perf_counter()
    agent = train(world, learnt, seed, encoder)
    seconds = time.perf_counter() - start
    rivals = contenders(world, learnt, prices, encoder)
    metric = judges(world)[1]
    answers = {alone: source(world, test, metric, alone=alone) for alone in (False, True)}
    result: Result = {"world": name, "seed": seed, "questions": questions, "tests": tests}
    result |= {"train_seconds": round(seconds, 1), "prices": {}}
    for price in prices:
        routes = {"optimum": _optimal(world, price, test)}
        routes["DER"] = route(world, agent, answers[False], price)
        for rival in rivals:
            routes[rival.name] = route(world, rival.agent(price), answers[rival.alone], price)
        result["prices"][f"{price:g}"] = _figures(world, price, test, routes)
    return result


def _optimal(world: World, price: float, test: Sequence[Question]) -> _Routes:
    done = follow(world, best_policy(world, price), test)
    quality, cost = (
        np.array([getattr(each, part) for each in done]) for part in ("quality", "cost")
    )
    return quality, cost, [each.experts for each in done]


def _figures(
    world: World, price: float, test: Sequence[Question], routes: dict[str, _Routes]
) -> dict[str, Any]:
    worth = {
        name: quality - price * cost / world.total for name, (quality, cost, _) in routes.items()
    }
    best = float(worth["optimum"].mean())
    table: dict[str, Any] = {}
    for name, (quality, cost, asked) in routes.items():
        mine = float(worth[name].mean())
        table[name] = {
            "utility": mine,
            "quality": float(quality.mean()),
            "cost": float(cost.mean()),
        }
        table[name]["share"] = mine / best
        if name != "DER":
            ahead = worth["DER"] - worth[name]
            error = float(ahead.std() / len(ahead) ** 0.5)
            table[name] |= {"ahead": float(ahead.mean()), "error": error}
        if name in ("DER", "optimum"):
            table[name]["routes"] = _usual(test, asked)
    return table


def _usual(test: Sequence[Question], asked: Sequence[tuple[str, ...]]) -> dict[str, dict[str, int]]:
    """The most frequent routes of each topic, with their number."""
    found: dict[str, Counter[str]] = {}
    for question, experts in zip(test, asked, strict=True):
        found.setdefault(question.topic, Counter())[" > ".join(experts)] += 1
    return {topic: dict(counts.most_common(_SHOWN)) for topic, counts in found.items()}
