"""All worlds, by name."""

from __future__ import annotations

from . import alone, together
from .drawn import PREFIX, drawn
from .world import World

WORLDS: dict[str, World] = {
    world.name: world
    for world in (
        alone.SPECIALISTS, alone.FIVE_TOPICS, alone.RARE_TOPICS, alone.EASY_AND_HARD, alone.OPEN_ANSWERS,
        together.VERIFIER, together.PIPELINE, together.ORDER_MATTERS, together.ONLY_GOOD_SECOND,
        together.EDITOR, alone.NEAR_COPIES, alone.LIARS, alone.CORRELATED_FAILURES, alone.NOISY, alone.MODEST,
        alone.crowd(15), alone.crowd(25), alone.HIDDEN_HALVES, alone.COMMITTEE, alone.FREE_CALL,
        together.HERD, together.FOUR_STEPS, together.LANGUAGES,
        together.MIXED, alone.TWO, alone.COINS, alone.REFUSERS, together.GRADED, together.NEWSROOM,
    )
}  # fmt: skip


def world_of(name: str) -> World:
    """The world of a name: one of `WORLDS`, or `random-SEED`.

    Raises:
        ValueError: If there is none.
    """
    if name in WORLDS:
        return WORLDS[name]
    seed = name.removeprefix(PREFIX)
    if name.startswith(PREFIX) and seed.isdigit():
        return drawn(int(seed))
    raise ValueError(f"no world '{name}'; there are {', '.join(WORLDS)}, and {PREFIX}0 and so on")
