"""Worlds whose experts know different fields, and answer for themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from .topics import WRITING, Topics
from .world import LURE, RIGHT, WRONG, Chances, Kind, World, unit


def right_with(chance: float, lured: float = 0.3) -> Chances:
    """Right with a chance; of the mistakes a share is one that many make."""
    wrong = 1 - chance
    return {RIGHT: chance, LURE: wrong * lured, WRONG: wrong * (1 - lured)}


def harder(chance: float, by: float) -> float:
    """A chance moved down by so many logits."""
    return 1 / (1 + math.exp(by) * (1 - chance) / chance)


class Specialists(World):
    """Four specialists for five topics, a dear generalist, and hard questions among the easy ones."""

    name = "specialists"
    costs: ClassVar[Mapping[str, float]] = {
        "coder": 1.0, "lawyer": 1.1, "doctor": 1.2, "mathematician": 0.9, "generalist": 8.0,
    }  # fmt: skip
    homes: ClassVar[Mapping[str, str]] = {
        "coder": "code", "lawyer": "law", "doctor": "medicine", "mathematician": "mathematics",
    }  # fmt: skip
    hard = 0.3

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        home = 0.9 if self.homes.get(model) == topic else 0.2
        return right_with(
            harder(0.85 if model == "generalist" else home, 1.2 if hidden == "hard" else -0.5)
        )


class Noisy(Specialists):
    """The same, trained with a judge who is wrong about every fifth answer."""

    name = "noisy"
    noise = 0.2


class Crowd15(Specialists):
    """The same, in a crowd of 15 useless experts."""

    name = "crowd-15"
    useless: ClassVar[Mapping[str, float]] = {
        f"extra-{i:02d}": round(0.3 + 0.4 * i, 1) for i in range(15)
    }
    alike = dict.fromkeys(useless, "useless")
    costs = dict(sorted((Specialists.costs | useless).items(), key=lambda item: unit(item[0])))

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        if model == "useless":
            return right_with(0.08)
        return super().chances(topic, hidden, model, shown)


class Crowd30(Crowd15):
    """Thirty experts: the same five, and 25 that are useless."""

    name = "crowd-30"
    useless: ClassVar[Mapping[str, float]] = {
        f"extra-{i:02d}": round(0.3 + 0.2 * i, 1) for i in range(25)
    }
    alike = dict.fromkeys(useless, "useless")
    costs = dict(sorted((Specialists.costs | useless).items(), key=lambda item: unit(item[0])))


class FiveTopics(World):
    """A cheap specialist for each of five topics, and a generalist who is dearer and worse than they."""

    name = "five-topics"
    costs: ClassVar[Mapping[str, float]] = {
        "coder": 1.0, "lawyer": 1.0, "doctor": 1.0, "mathematician": 1.0, "guide": 1.0, "generalist": 8.0,
    }  # fmt: skip
    homes: ClassVar[Mapping[str, str]] = {**Specialists.homes, "guide": "travel"}
    generalist: ClassVar[float] = 0.8

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        home = 0.95 if self.homes.get(model) == topic else 0.15
        return right_with(self.generalist if model == "generalist" else home)


class RareTopics(FiveTopics):
    """The same with topics of which one makes 40 %, another 3 % of the questions."""

    name = "rare-topics"
    costs: ClassVar[Mapping[str, float]] = {**FiveTopics.costs, "generalist": 6.0}
    weights: ClassVar[Mapping[str, float]] = {
        "code": 0.4, "law": 0.3, "medicine": 0.17, "mathematics": 0.1, "travel": 0.03,
    }  # fmt: skip
    generalist = 0.7


class EasyAndHard(World):
    """Most questions are easy, some are hard; the topic says how many, and who agrees tells which."""

    name = "easy-and-hard"
    costs: ClassVar[Mapping[str, float]] = {
        "quick": 0.5, "brisk": 0.6, "thinker": 4.0, "professor": 10.0
    }
    share_hard: ClassVar[Mapping[str, float]] = {
        "code": 0.5, "law": 0.2, "medicine": 0.4, "mathematics": 0.8, "travel": 0.05,
    }  # fmt: skip
    skills: ClassVar[Mapping[str, tuple[float, float]]] = {
        "quick": (0.93, 0.15), "brisk": (0.9, 0.25), "thinker": (0.95, 0.6), "professor": (0.97, 0.85),
    }  # fmt: skip

    def hidden(self, topic: str) -> Mapping[str, float]:
        hard = self.share_hard[topic]
        return {"easy": 1 - hard, "hard": hard}

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        return right_with(self.skills[model][hidden == "hard"])


def text_worth(quality: float) -> Kind:
    """A text of some quality, a multiple of 0.1; its words do not show which."""
    return Kind(f"text {quality}", "text", quality, own=True)


class OpenAnswers(World):
    """Texts instead of numbers: token F1 judges them, and no two of them can be compared.

    Each expert has a vocabulary of its own, so that a policy can learn nothing from the answers. The optimum
    is exact: it is the best expert for each topic, unless somebody improves what he is shown.
    """

    name = "open-answers"
    topics: ClassVar[Topics] = WRITING
    metric = "token_f1"
    costs: ClassVar[Mapping[str, float]] = {
        "secretary": 1.0, "critic": 1.2, "cook": 0.8, "poet": 2.0, "author": 7.0,
    }  # fmt: skip
    homes: ClassVar[Mapping[str, str]] = {"secretary": "letter", "critic": "summary", "cook": "recipe"}

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        if model == "author":
            return {text_worth(0.9): 0.6, text_worth(0.7): 0.4}
        if self.homes.get(model) == topic:
            return {text_worth(0.8): 0.7, text_worth(0.6): 0.3}
        return {text_worth(0.5): 0.2, text_worth(0.3): 0.5, text_worth(0.1): 0.3}
