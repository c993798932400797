"""What the ablations train and test: a list of trainings, each with the tests that its agent takes.

    plan() ──> Training (what differs from the standard one), names of its tests, seeds

Everything not named is as in `recorded_pool.settings`. Order is order of work, so that an interrupted run has
whole studies first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

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


@dataclass(frozen=True)
class Training:
    """What differs from the standard training."""

    max_steps: int = 5
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
    """All trainings, in order."""
    served = [f"max_steps={steps}" for steps in STEPS if steps < Training().max_steps]
    parts = [f"part={size}" for size in POOLS if size < len(SIZES)]
    bad = [f"bad={name}:{fault}" for name in BAD for fault in FAULTS]
    clones = [f"clones={count}" for count in CLONES[1:]]
    standard = Item(Training(), ("plain", *served, *parts, *bad, *clones), more_seeds=1)
    return [
        standard,
        *(Item(Training(without_task=task)) for task in TASKS),
        *(Item(Training(questions=count)) for count in QUESTIONS),
        *(Item(Training(max_steps=steps)) for steps in STEPS if steps < Training().max_steps),
        Item(Training(warm=False)),
        Item(Training(any_pool=False)),
        *(Item(Training(beta=beta)) for beta in BETAS),
        *(Item(Training(bad=f"{BAD[0]}:{fault}")) for fault in FAULTS),
        *(Item(Training(experts=size)) for size in POOLS if size < len(SIZES)),
    ]


def trainings(items: Sequence[Item], folds: int, seeds: int) -> list[tuple[Item, int, int]]:
    """(item, fold, seed) in order of work: a fold after the other."""
    return [
        (item, fold, seed)
        for fold in range(folds)
        for item in items
        for seed in range(seeds + item.more_seeds)
    ]
