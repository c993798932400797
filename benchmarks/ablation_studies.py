"""The ablations: a table of studies, and the trainings and tests that they need.

    studies() ──> rows: a training (what differs from the standard one), a test of its agent, what to call it
    plan()    ──> every training once, with all of its tests

Everything not named is as in `recorded_pool.settings`. Order is order of work, so that an interrupted run has
whole studies first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from recorded_data import SIZES

STEPS = (1, 2, 3, 4, 5)
"""Longest routes."""
POOLS = (2, 4, 6, 8, 11)
QUESTIONS = (50, 100, 200, 400, 800)
BETAS = (0.0, 1.0, 5.0, 20.0)
TASKS = ("gsm", "crux", "math-l5")
BAD = ("gemma-2-9b-it", "gemma-2-27b-it", "Qwen2-72B-Instruct", "Meta-Llama-3.1-70B-Instruct")
"""Experts that are spoiled in turn; the first one in training too."""
FAULTS = ("noise", "wrong")
CLONES = (11, 110, 1000)
FAULT_AT = 5
"""Position of the price at which a fault is looked at: 0.2 of `recorded_pool.PRICES`."""


@dataclass(frozen=True)
class Training:
    """What differs from the standard training."""

    max_steps: int = 4
    experts: int = len(SIZES)
    """Size of the pool; see `part`."""
    questions: int | None = None
    """How many training questions; None for all."""
    without_task: str = ""
    beta: float | None = None
    """The reward of the paper's preset with this beta; None for the default reward."""
    bad: str = ""
    """`expert:fault`, in the training questions as in the test questions."""
    any_pool: bool = True
    """Know experts by profile; or give each an output of its own."""
    warm: bool = True
    """Begin from the best cascades; with another reward than the default, never."""

    @property
    def key(self) -> str:
        """Name of the file of its results."""
        changed = [
            f"{name}={value}"
            for name, value in asdict(self).items()
            if value != getattr(Training(), name)
        ]
        return "+".join(changed).replace(":", "-") or "standard"


class Condition(NamedTuple):
    """One row: a test of a training, the one that it is compared with, and what to call it."""

    label: str
    training: Training
    test: str = "plain"
    against: tuple[Training, str] | None = (Training(), "plain")
    task: str = ""
    value: float | None = None
    price: int | None = None
    """Compare at this price (position) and not at one cost."""


def studies() -> dict[str, list[Condition]]:
    """All rows, by study."""
    standard = Training()
    found: dict[str, list[Condition]] = {}
    found["max_steps"] = [
        Condition(f"trained for {n}", Training(max_steps=n), value=n) for n in STEPS
    ] + [
        Condition(
            f"trained for {max(STEPS)}, limited to {n} when asked",
            standard,
            f"max_steps={n}",
            value=n,
        )
        for n in STEPS[:-1]
    ]
    found["pool_size"] = [
        Condition(f"trained with {n} experts", Training(experts=n), value=n) for n in POOLS
    ] + [
        Condition(f"trained with all, {n} of them at hand", standard, f"part={n}", value=n)
        for n in POOLS[:-1]
    ]
    found["questions"] = [
        Condition(f"{n} questions", Training(questions=n), value=n) for n in QUESTIONS
    ] + [Condition("all questions", standard, value=None)]
    found["left_out"] = [
        Condition(f"{task}: {how}", training, task=task)
        for task in TASKS
        for how, training in (
            ("trained with it", standard),
            ("never trained on", Training(without_task=task)),
        )
    ]
    found["reward"] = [
        Condition("default reward", standard),
        Condition("default reward, no warm start", Training(warm=False)),
        Condition("default reward, an output for each expert", Training(any_pool=False)),
    ] + [
        Condition(f"paper's reward, beta {beta:g}", Training(beta=beta), value=beta)
        for beta in BETAS
    ]
    found["bad_expert"] = [Condition("all as recorded", standard, price=FAULT_AT)] + [
        Condition(f"{name}: {fault}", standard, f"bad={name}:{fault}", price=FAULT_AT)
        for name in BAD
        for fault in FAULTS
    ]
    found["bad_in_training"] = [
        Condition(f"{BAD[0]}: {fault}, in training too", Training(bad=f"{BAD[0]}:{fault}"))
        for fault in FAULTS
    ]
    found["clones"] = [
        Condition(
            f"{n} experts", standard, "plain" if n == CLONES[0] else f"clones={n}", value=n
        )
        for n in CLONES
    ]  # fmt: skip
    return found


@dataclass(frozen=True)
class Item:
    """One training, its tests, and how many more seeds than asked for it gets."""

    training: Training
    tests: tuple[str, ...] = ("plain",)
    more_seeds: int = 0


def part(experts: int) -> list[str]:
    """The pool of so many experts: alternately the dearest and the cheapest left, in pool order."""
    left = list(SIZES)
    taken = [left.pop(-1 if turn % 2 == 0 else 0) for turn in range(experts)]
    return [name for name in SIZES if name in taken]


def plan() -> list[Item]:
    """All trainings that the studies need, the standard one first, each with its tests."""
    tests: dict[Training, list[str]] = {Training(): ["plain"]}
    for condition in (each for rows in studies().values() for each in rows):
        known = tests.setdefault(condition.training, ["plain"])
        known += [condition.test] * (condition.test not in known)
    return [Item(how, tuple(told), int(how == Training())) for how, told in tests.items()]


def trainings(items: Sequence[Item], folds: int, seeds: int) -> list[tuple[Item, int, int]]:
    """(item, fold, seed) in order of work: a fold after the other."""
    return [
        (item, fold, seed)
        for fold in range(folds)
        for item in items
        for seed in range(seeds + item.more_seeds)
    ]
