"""The best policy of a world, exactly: dynamic programming over beliefs.

    what was seen ──> belief over difficulty and answers ──> best next expert, or END

A policy sees the topic, who answered, the form of each answer and which answers are the same; right and
wrong look alike. The belief lists every way in which that can have come about, with its chance. No policy
that sees as much has a higher expected utility: quality - price x cost / cost of asking everyone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .world import Question, Said, World

Look = tuple[str, int]
"""What can be seen of an answer: its form, and the position of the first answer that says the same."""
Seen = tuple[tuple[str, Look], ...]
"""What can be seen of a route: each expert, with the look of its answer."""
_Belief = dict[tuple[bool, tuple[Said, ...]], float]  # chances of difficulty and answers


class Policy(NamedTuple):
    """A best policy.

    Attributes:
        choices: By topic and by what was seen, the next expert; None, or nothing at all, for END.
        value: Expected utility.
    """

    choices: dict[str, dict[Seen, str | None]]
    value: float


class Route(NamedTuple):
    """What came of one question: who was asked, how good the last answer is, and what all cost."""

    experts: tuple[str, ...]
    quality: float
    cost: float


def look(answers: Sequence[Said]) -> Look:
    """What can be seen of the last of some answers."""
    return answers[-1].kind.form, answers.index(answers[-1])


def best_policy(world: World, price: float) -> Policy:
    """Plan for one price.

    Args:
        world: Its chances are taken as they are.
        price: Quality that the cost of asking everyone is worth.
    """
    choices, value = {}, 0.0
    for topic in world.topics:
        planner = _Planner(world, topic, price)
        belief: _Belief = {(h, ()): p for h, p in world.hidden(topic).items() if p > 0}
        value += world.share(topic) * planner.best((), belief)
        choices[topic] = planner.choices
    return Policy(choices, value)


def follow(world: World, policy: Policy, questions: Iterable[Question]) -> list[Route]:
    """Let a policy route questions."""
    return [_route(world, policy, question) for question in questions]


class _Planner:
    """Plans for one topic and price; `choices` fills while it does."""

    def __init__(self, world: World, topic: str, price: float) -> None:
        self.world, self.topic = world, topic
        self.fees = {name: price * cost / world.total for name, cost in world.costs.items()}
        self.choices: dict[Seen, str | None] = {}
        self._chances: dict[tuple[str, bool, Said | None], dict[Said, float]] = {}
        self._most = max(kind.quality for kind in world.kinds)

    def best(self, seen: Seen, belief: _Belief) -> float:
        """Value of a belief times its chance."""
        chance = sum(belief.values())
        choice, value = None, -float("inf")
        if seen:
            value = sum(p * said[-1].kind.quality for (_, said), p in belief.items())
        if len(seen) < self.world.max_steps:
            for name in self._candidates(seen):
                fee = chance * self.fees[name]
                if chance * self._most - fee > value:  # else it cannot be better
                    worth = self._after(name, seen, belief) - fee
                    if worth > value + 1e-12:
                        choice, value = name, worth
        self.choices[seen] = choice
        return value

    def _candidates(self, seen: Seen) -> Iterator[str]:
        """Experts to try: of several that are alike, only the cheapest that is left."""
        asked, tried = {name for name, _ in seen}, set()
        for name in sorted(self.world.names, key=self.fees.__getitem__):
            model = self.world.model(name)
            if name not in asked and model not in tried:
                tried.add(model)
                yield name

    def _after(self, name: str, seen: Seen, belief: _Belief) -> float:
        """Value after asking an expert, without its fee."""
        if len(seen) + 1 == self.world.max_steps:  # the route ends, whatever is seen
            return sum(
                p * q * said.kind.quality
                for (hard, answers), p in belief.items()
                for said, q in self._outcomes(name, hard, answers).items()
            )
        split: dict[Look, _Belief] = defaultdict(dict)
        for (hard, answers), p in belief.items():
            for said, q in self._outcomes(name, hard, answers).items():
                longer = (*answers, said)
                split[look(longer)][hard, longer] = p * q
        return sum(self.best((*seen, (name, look)), part) for look, part in split.items())

    def _outcomes(self, name: str, hard: bool, answers: Sequence[Said]) -> dict[Said, float]:
        key = (name, hard, answers[-1] if answers else None)
        if key not in self._chances:
            self._chances[key] = self.world.outcomes(self.topic, hard, name, key[2])
        return self._chances[key]


def _route(world: World, policy: Policy, question: Question) -> Route:
    seen: Seen = ()
    answers: list[Said] = []
    while (name := policy.choices[question.topic].get(seen)) is not None:
        answers.append(world.say(question.text, name, answers[-1] if answers else None))
        seen = (*seen, (name, look(answers)))
    experts = tuple(name for name, _ in seen)
    cost = sum(world.costs[name] for name in experts)
    return Route(experts, answers[-1].kind.quality, cost)
