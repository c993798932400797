r"""All that a planner knows of its pool, and the ways to come by it.

    nothing but sizes or prices ──from_prior──┐
    some or all training questions ──fit──────┼──> Knowledge ──save/load──> arrays (.npz) and JSON
    answers while serving ──Learner───────────┘

See `Tables` for what the arrays mean; here they have the kinds of questions, G, in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from der_graph.errors import DataError
from der_graph.policies.planning.forms import (
    FORMS,
)
from der_graph.policies.planning.kinds import Kinds
from der_graph.policies.planning.skills import (
    CHANCE,
    PRICE_CURVE,
    SIZE_CURVE,
    Hint,
    kinds_named,
    prior_skill,
    with_hints,
)
from der_graph.policies.planning.tables import (
    SPREAD,
    Floats,
    Tables,
    at_zero,
    mean_skill,
    widened,
)
from der_graph.policies.planning.transfer import Contexts, Transfer

REFUSES = 0.05
"""Of the answers that are not right, where nothing is known."""
_HINTED = 0.25  # standard deviation of a hint, in log-odds


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What is known of a pool of N experts on G kinds of questions.

    Attributes:
        names: The experts, in order.
        logit: (G, N) log-odds of being right at d = 0, asked alone.
        precision: (G, N) 1 / variance of these.
        source: (G, N) where they come from: `prior`, `hint`, `probes`, `learnt`, `served`.
        chance: (G,) how often two wrong answers have one value.
        never: (G, N, F) which forms of answers are steps.
        transfer: What experts are worth after others.
        copies: (N, N) how often the second expert gives the first one's answer; None for no copies.
        comparable: Do claims have values that can be compared?
        kinds: Tells the kind of a question; None for one kind, or kinds by name.
        kind_names: Names of the kinds, where they have any.
        spread: Standard deviation of the hardness of questions of one kind, in log-odds.
    """

    names: tuple[str, ...]
    logit: Floats
    precision: Floats
    source: tuple[tuple[str, ...], ...]
    chance: Floats
    never: npt.NDArray[np.bool_]
    transfer: Transfer
    copies: Floats | None = None
    comparable: bool = True
    kinds: Kinds | None = None
    kind_names: tuple[str, ...] = ()
    spread: float = SPREAD
    _tables: dict[int, Tables] = field(default_factory=dict, repr=False)

    @classmethod
    def from_prior(
        cls,
        names: Sequence[str],
        costs: Sequence[float],
        *,
        sizes: Sequence[float | None] | None = None,
        hints: Sequence[Hint | None] | None = None,
    ) -> Knowledge:
        """What to believe without a single answer.

        Args:
            names: The experts.
            costs: (N,) price of one call of each.
            sizes: (N,) billions of parameters; None where unknown.
            hints: (N,) what somebody says of each: a probability, or one for each kind of question.

        Raises:
            DataError: If a hint is no probability.
        """
        prior = prior_skill(costs, sizes=sizes)
        given = list(hints or [None] * len(names))
        kind_names = kinds_named(given)
        skill, told = with_hints(prior, given, kind_names)
        count = len(skill)
        spread = SIZE_CURVE.spread if sizes is not None and all(sizes) else PRICE_CURVE.spread
        alone = np.zeros((count, len(names), len(FORMS)))
        alone[..., 0] = REFUSES
        return cls(
            names=tuple(names),
            logit=at_zero(skill),
            precision=np.where(told, _HINTED**-2.0, spread**-2.0) / widened(SPREAD) ** 2,
            source=tuple(tuple("hint" if t else "prior" for t in row) for row in told.tolist()),
            chance=np.full(count, CHANCE),
            never=alone > 0,
            transfer=no_transfer(alone),
            kind_names=tuple(kind_names),
        )

    def tables(self, kind: int) -> Tables:
        """The beliefs on one kind of question."""
        found = self._tables.get(kind)
        if found is None:
            moved = self.transfer
            found = Tables(
                logit=self.logit[kind],
                chance=float(self.chance[kind]),
                steps=moved.steps[kind],
                right_shift=moved.right_shift[kind],
                wrong_shift=moved.wrong_shift[kind],
                repeats=moved.repeats[kind],
                claim_context=moved.contexts.claim,
                step_context=moved.contexts.step,
                copies=self.copies,
                comparable=self.comparable,
                spread=self.spread,
            )
            self._tables[kind] = found
        return found

    def with_logit(self, logit: Floats, precision: Floats) -> Knowledge:
        """The same with other skills, those that changed marked as `served`."""
        moved = np.abs(logit - self.logit) > 1e-9
        source = tuple(
            tuple("served" if m else name for m, name in zip(row, names, strict=True))
            for row, names in zip(moved.tolist(), self.source, strict=True)
        )
        return replace(self, logit=logit, precision=precision, source=source, _tables={})

    def with_spread(self, spread: float) -> Knowledge:
        """The same mean skills, of questions that differ in hardness by another standard deviation."""
        if spread == self.spread:
            return self
        wider = widened(spread) / widened(self.spread)
        return replace(
            self,
            logit=at_zero(mean_skill(self.logit, self.spread), spread),
            precision=self.precision / wider**2,
            transfer=replace(
                self.transfer,
                right_shift=self.transfer.right_shift * wider,
                wrong_shift=self.transfer.wrong_shift * wider,
            ),
            spread=spread,
            _tables={},
        )

    def with_chance(self, chance: Floats) -> Knowledge:
        """The same with another chance of two wrong answers having one value: (G,)."""
        return replace(self, chance=chance, _tables={})

    def take(self, names: Sequence[str]) -> Knowledge:
        """The knowledge of some of the experts, in another order.

        Raises:
            DataError: If one of them is not known.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise DataError(f"nothing is known of the expert '{missing[0]}'")
        at = [self.names.index(name) for name in names]
        old, moved = self.transfer.contexts, self.transfer
        number = {expert: k for k, expert in enumerate(at)}
        kept = {
            tuple((number[e], f) for e, f in key): c
            for key, c in old.keys.items()
            if all(e in number for e, _ in key)
        }
        contexts = Contexts.of(len(at), list(kept), claims=old.count > 1)
        rows = [0, *(int(old.claim[e]) for e in at)][: contexts.count]
        rows += [kept[key] for key in sorted(contexts.keys)]
        return Knowledge(
            names=tuple(names),
            logit=self.logit[:, at],
            precision=self.precision[:, at],
            source=tuple(tuple(row[e] for e in at) for row in self.source),
            chance=self.chance,
            never=self.never[:, at],
            transfer=Transfer(
                contexts,
                *(
                    array[:, rows][:, :, at]
                    for array in (moved.right_shift, moved.wrong_shift, moved.repeats, moved.steps)
                ),
            ),
            copies=None if self.copies is None else self.copies[np.ix_(at, at)],
            comparable=self.comparable,
            kinds=self.kinds,
            kind_names=self.kind_names,
            spread=self.spread,
        )


def no_transfer(alone: Floats) -> Transfer:
    """Nothing is known of experts after others.

    Args:
        alone: (G, N, F) probability of each form of step, given that the answer is not right.
    """
    kinds, experts = alone.shape[:2]
    zero = np.zeros((kinds, 1, experts))
    contexts = Contexts.of(experts, [], claims=False)
    return Transfer(contexts, zero, zero, np.full(zero.shape, np.nan), alone[:, None])
