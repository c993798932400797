"""All worlds, by name."""

from __future__ import annotations

from .chain_worlds import Editor, OnlyGoodSecond, OrderMatters, Pipeline, Verifier
from .topic_worlds import (
    Crowd15,
    Crowd30,
    EasyAndHard,
    FiveTopics,
    Noisy,
    OpenAnswers,
    RareTopics,
    Specialists,
)
from .trust_worlds import CorrelatedFailures, Liars, NearCopies
from .world import World

WORLDS: dict[str, type[World]] = {
    world.name: world
    for world in (
        Specialists, FiveTopics, RareTopics, EasyAndHard, Verifier, Pipeline, OrderMatters, OnlyGoodSecond,
        Editor, OpenAnswers, Liars, NearCopies, CorrelatedFailures, Noisy, Crowd15, Crowd30,
    )
}  # fmt: skip
