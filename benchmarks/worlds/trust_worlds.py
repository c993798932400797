"""Worlds in which agreement may deceive: experts whose mistakes are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from .topic_worlds import right_with
from .world import LURE, RIGHT, WRONG, Chances, Kind, World


class NearCopies(World):
    """Six near copies of one model, an independent one that is as good, and a better one at six times the cost."""

    name = "near-copies"
    costs: ClassVar[Mapping[str, float]] = {
        **{f"copy-{i}": 1.0 for i in range(1, 7)}, "other": 1.0, "strong": 6.0
    }
    alike: ClassVar[Mapping[str, str]] = {f"copy-{i}": "copy" for i in range(1, 7)}

    def hidden(self, topic: str) -> Mapping[str, float]:
        return {"original is right": 0.6, "original is wrong": 0.4}

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        if model == "copy":
            same = RIGHT if hidden == "original is right" else LURE
            return {same: 0.95, WRONG: 0.05}
        return right_with(0.6 if model == "other" else 0.9, lured=0.0)


class Liars(World):
    """Two cheap liars who tell the same tale, and honest experts who are right more often than not."""

    name = "liars"
    costs: ClassVar[Mapping[str, float]] = {
        "liar-a": 0.3, "liar-b": 0.3, "honest-a": 1.0, "honest-b": 1.2, "honest-c": 1.5, "strong": 9.0
    }

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        if model.startswith("liar"):
            return {LURE: 0.8, RIGHT: 0.15, WRONG: 0.05}
        exact = topic in ("code", "mathematics")
        skill = {"honest-a": 0.75 if exact else 0.5, "honest-b": 0.5 if exact else 0.75}
        return right_with(skill.get(model, 0.65 if model == "honest-c" else 0.9), lured=0.1)


class CorrelatedFailures(World):
    """A family of models falls for the same trick questions; a stranger and a strong model do not."""

    name = "correlated-failures"
    costs: ClassVar[Mapping[str, float]] = {
        "sibling-a": 0.5, "sibling-b": 0.7, "sibling-c": 1.0, "stranger": 1.5, "strong": 8.0
    }

    def hidden(self, topic: str) -> Mapping[str, float]:
        trick = 0.5 if topic in ("law", "travel") else 0.15
        return {"plain": 1 - trick, "trick": trick}

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        if model == "strong":
            return right_with(0.9)
        if model == "stranger":
            return right_with(0.7)
        if hidden == "trick":
            return {LURE: 0.9, RIGHT: 0.05, WRONG: 0.05}
        skill = {"sibling-a": 0.8, "sibling-b": 0.85, "sibling-c": 0.9}[model]
        return right_with(skill, lured=0.0)
