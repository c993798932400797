"""Worlds that are drawn: pools that nobody made up, as many as are wanted.

    "random-17" ──seed 17──> costs, skills by topic, who reads earlier answers and what that does

A few worlds made by hand are soon known too well: what an agent is good at there may be their structure. Of
these, each seed is another pool. What is drawn, and from what, stays as it is, so that a seed stays a world.
"""

from __future__ import annotations

import numpy as np

from .topics import FIELDS
from .world import LURE, NOTHING, RIGHT, SAME, WRONG, Call, Chances, World

PREFIX = "random-"
_TOPICS = list(FIELDS)
_LEAST = 1e-9  # probability of an answer


def drawn(seed: int) -> World:
    """The world of a seed.

    Three to seven experts; costs spread like a log-normal of deviation 1.2, dearer ones better on average.
    How much topics matter, and how many experts read what was said before, differs from world to world: in a
    third of the worlds nobody does. Readers gain after a right answer; after a wrong one they lose, gain or
    stay as they are, and may say it again.

    Args:
        seed: Of everything that is drawn.
    """
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 8))
    names = [f"e{i}" for i in range(count)]
    costs = {name: float(round(np.exp(rng.normal(0, 1.2)), 2)) for name in names}
    rank = np.argsort(list(costs.values())).argsort() / (count - 1)
    skill = rng.normal(0.2, 0.5, count) + 1.2 * rank * rng.uniform(0, 1)
    by_topic = rng.normal(0, rng.choice([0.2, 0.8, 1.6]), (count, len(_TOPICS)))
    lost_on_hard = rng.gamma(2, 1.0, count)
    lured, refuses = rng.uniform(0, 0.8), rng.uniform(0, 0.3, count)
    reads = rng.random(count) < rng.choice([0, 0.5, 1])
    after_right = rng.gamma(2, 0.8, count)
    after_wrong = -rng.gamma(1.5, 0.6, count) * rng.choice([0, 1, -1], count)
    repeats = rng.uniform(0, 0.6, count) / 2
    hard = float(rng.choice([0, 0.3, 0.5]))

    def chances(call: Call) -> Chances:
        i = names.index(call.model)
        log_odds = skill[i] + by_topic[i, _TOPICS.index(call.topic)] - lost_on_hard[i] * call.hard
        again = 0.0
        if reads[i] and call.shown == RIGHT:
            log_odds += after_right[i]
        elif reads[i] and call.shown in (LURE, WRONG):
            log_odds += after_wrong[i]
            again = repeats[i]
        right = 1 / (1 + np.exp(-log_odds))
        wrong = (1 - right) * (1 - refuses[i])
        found = {
            RIGHT: right,
            NOTHING: (1 - right) * refuses[i],
            SAME: wrong * again,
            LURE: wrong * (1 - again) * lured,
            WRONG: wrong * (1 - again) * (1 - lured),
        }
        kept = {kind: float(chance) for kind, chance in found.items() if chance > _LEAST}
        return {kind: chance / sum(kept.values()) for kind, chance in kept.items()}

    return World(f"{PREFIX}{seed}", costs, chances, hard=hard)
