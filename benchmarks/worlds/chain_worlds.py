"""Worlds whose experts build on each other: what one is worth depends on the answer that it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from .topic_worlds import harder, right_with, text_worth
from .topics import CALCULATION, WRITING, Topics
from .world import NOTHING, RIGHT, SAME, WRONG, Chances, Kind, World

FACTS, BAD_FACTS = Kind("facts", "facts"), Kind("bad facts", "facts", own=True)
EXPRESSION, BAD_EXPRESSION = Kind("expression", "expression"), Kind("bad", "expression", own=True)
ESTIMATE = Kind("estimate")


class Verifier(World):
    """Drafts for one half of the topics or the other, and a verifier who knows little by himself."""

    name = "verifier"
    costs: ClassVar[Mapping[str, float]] = {
        "draft-a": 1.0, "draft-b": 1.2, "verifier": 2.0, "weak": 0.5, "strong": 10.0,
    }  # fmt: skip
    hard = 0.3

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        by = 1.0 if hidden == "hard" else -0.4
        if model == "verifier":
            if shown is None:
                return right_with(0.15)
            if shown == RIGHT:
                return {RIGHT: 0.97, WRONG: 0.03}
            mends = harder(0.6, by)
            return {RIGHT: mends, SAME: (1 - mends) * 0.7, WRONG: (1 - mends) * 0.3}
        exact = topic in ("code", "mathematics")
        skill = {"draft-a": 0.7 if exact else 0.4, "draft-b": 0.4 if exact else 0.7, "weak": 0.35}
        return right_with(harder(skill.get(model, 0.82), by))


class Pipeline(World):
    """A story needs its reader, the translator and the calculator, in this order; a problem the last two."""

    name = "pipeline"
    topics: ClassVar[Topics] = CALCULATION
    costs: ClassVar[Mapping[str, float]] = {
        "reader": 0.5, "translator": 1.0, "calculator": 0.1, "generalist": 4.0, "summariser": 1.0,
    }  # fmt: skip

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        if model == "reader":
            return {FACTS: 0.92, BAD_FACTS: 0.08} if topic == "story" else {NOTHING: 1.0}
        if model == "translator":
            return self._translated(topic, shown)
        if model == "calculator":
            if topic == "sum":
                return {RIGHT: 0.97, WRONG: 0.03}
            if shown == EXPRESSION:
                return {RIGHT: 0.98, WRONG: 0.02}
            return {WRONG if shown == BAD_EXPRESSION else NOTHING: 1.0}
        skill = {"sum": 0.7, "problem": 0.45, "story": 0.3, "service": 0.85, "trivia": 0.6}
        little = {"service": 0.35, "trivia": 0.45}
        chance = skill[topic] if model == "generalist" else little.get(topic, 0.05)
        return {RIGHT: chance, WRONG: 1 - chance}

    def _translated(self, topic: str, shown: Kind | None) -> Chances:
        if topic in ("service", "trivia"):
            return {BAD_EXPRESSION: 0.3, NOTHING: 0.7}
        chance = {"sum": 0.95, "problem": 0.9}.get(topic, 0.05)
        if topic == "story" and shown in (FACTS, BAD_FACTS):
            chance = 0.93 if shown == FACTS else 0.0
        return {EXPRESSION: chance, BAD_EXPRESSION: 1 - chance}


class OrderMatters(World):
    """The planner's estimate makes the solver good; after the solver the planner only spoils the answer."""

    name = "order-matters"
    costs: ClassVar[Mapping[str, float]] = {
        "solver": 1.0, "planner": 1.0, "friend": 0.8, "strong": 8.0
    }

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        if model == "planner":
            if shown is None:
                return {ESTIMATE: 0.75, RIGHT: 0.2, WRONG: 0.05}
            return right_with(0.1)
        if model == "solver":
            helped = {ESTIMATE: 0.93, RIGHT: 0.85}
            return right_with(helped.get(shown, 0.4) if shown else 0.45)
        return right_with(0.5 if model == "friend" else 0.86)


class OnlyGoodSecond(World):
    """A critic who has nothing to say alone, and is the best of all after any answer."""

    name = "only-good-second"
    costs: ClassVar[Mapping[str, float]] = {
        "critic": 1.5, "starter": 0.4, "average": 1.2, "expert": 5.0, "strong": 9.0
    }

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        if model == "critic":
            return {NOTHING: 0.9, RIGHT: 0.1} if shown is None else right_with(0.92)
        exact = topic in ("code", "mathematics")
        return right_with({"starter": 0.2, "average": 0.5, "strong": 0.85}.get(model, 0.9 if exact else 0.6))


class Editor(World):
    """Texts again: an editor makes each one better, a proofreader a little, and neither writes well."""

    name = "editor"
    topics: ClassVar[Topics] = WRITING
    metric = "token_f1"
    costs: ClassVar[Mapping[str, float]] = {
        "writer": 1.0, "columnist": 1.5, "editor": 1.5, "proofreader": 0.5, "author": 9.0
    }

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        if model in ("editor", "proofreader"):
            before = 0.0 if shown is None else shown.quality
            step = 0.3 if model == "editor" else 0.1
            if before + step <= 0.1:
                return {text_worth(0.1): 1.0}
            better = round(min(before + step, 0.9), 1)
            return {text_worth(better): 0.8, text_worth(round(better - 0.1, 1)): 0.2}
        if model == "author":
            return {text_worth(0.8): 0.8, text_worth(0.6): 0.2}
        good = topic == "letter" if model == "writer" else topic == "summary"
        low = 0.5 if good else 0.3
        return {text_worth(low): 0.5, text_worth(round(low + 0.2, 1)): 0.5}
