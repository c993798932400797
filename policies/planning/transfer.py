r"""How good an expert is after another's answer, learnt from routes that were tried.

    routes (who answered what, how good) ──contexts──> shifts in log-odds, repeats, steps

A *form* is what an answer looks like; a form of an expert that is never right by itself is a *step*. What
the next expert reads is its *context*: somebody's claim, which is right or wrong, or a chain of steps (facts,
then an expression). For each context and expert the log-odds of being right are shifted from those of asking
it alone, by the most probable amount under priors of three levels: an expert after anything, after one
expert, and that on one kind of question. Few routes therefore say little, and none say "as if it had read
nothing".

What an expert says alone on the same questions shows by how much the model is wrong about these, and this is
taken off first. Questions on which another one is right are easier than the model of hardness knows, for some
experts more than for others; that is no effect of reading. An expert that does not look at earlier answers
has hardly any shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from der_graph.policies.planning.forms import FORMS, Route
from der_graph.policies.planning.tables import (
    HARDNESS_WEIGHT,
    Floats,
    Ints,
    hardness,
    sigmoid,
)

_SPREADS = (1.5, 1.0, 1.0)  # of shifts: any, one pair, one pair on one kind
_NEWTON = 40
_LEAST = 8  # routes with a chain of steps, to be a context of its own
_LONGEST = 3  # chain
_PRIOR = 5.0  # routes that a broader mean, or the model, counts for

Key = tuple[tuple[int, int], ...]
"""A chain of steps: expert and form of each."""


@dataclass(frozen=True, eq=False)
class Contexts:
    """The contexts of a pool, and how answers lead from one to the next.

    Attributes:
        keys: Chains of steps that are contexts, by number from `1 + experts`.
        claim: (N,) context after each expert's claim; 0 where nothing was learnt.
        step: (C, N, F) context after each expert's step.
    """

    keys: dict[Key, int]
    claim: Ints
    step: Ints

    @property
    def count(self) -> int:
        """Number of contexts; the first, 0, is that of an expert that reads nothing."""
        return len(self.step)

    @classmethod
    def of(cls, experts: int, keys: Sequence[Key], *, claims: bool) -> Contexts:
        """The contexts of a pool.

        Args:
            experts: Number of experts.
            keys: Chains of steps.
            claims: Is anything known of experts after claims?
        """
        first = 1 + experts if claims or keys else 1
        number = {key: first + k for k, key in enumerate(sorted(keys))}
        chain = {at: key for key, at in number.items()}
        step = np.zeros((first + len(keys), experts, len(FORMS)), dtype=np.int64)
        for c in range(len(step)) if keys else ():
            for j in range(experts):
                for f in range(1, len(FORMS)):  # a refusal tells the next expert nothing
                    step[c, j, f] = longest_known((*chain.get(c, ()), (j, f)), number)
        claim = np.arange(1, 1 + experts) if first > 1 else np.zeros(experts, dtype=np.int64)
        return cls(number, claim, step)


def longest_known(chain: Key, number: dict[Key, int]) -> int:
    """The context of a chain of steps: that of its longest end that is one; 0 if none is."""
    for start in range(len(chain)):
        if chain[start:] in number:
            return number[chain[start:]]
    return 0


def chain_of(route: Route, steps: npt.NDArray[np.bool_]) -> Key | None:
    """The steps at the end of a route before its last answer; None if that reads a claim.

    A refusal breaks the chain: what follows it is as if nothing had been read.

    Args:
        route: The route.
        steps: (N, F) of its kind.
    """
    chain: Key = ()
    step = False
    for expert, form in zip(route.experts[:-1], route.forms[:-1], strict=True):
        step = bool(steps[expert, form])
        chain = (*chain, (expert, form))[-_LONGEST:] if step and form else ()
    return chain if step else None


@dataclass(frozen=True, eq=False)
class Transfer:
    """What routes show; see `Tables` for the arrays, here with G kinds in front.

    Attributes:
        contexts: Their contexts.
        right_shift: (G, C, N).
        wrong_shift: (G, C, N).
        repeats: (G, C, N).
        steps: (G, C, N, F).
    """

    contexts: Contexts
    right_shift: Floats
    wrong_shift: Floats
    repeats: Floats
    steps: Floats


def fit_transfer(
    logit: Floats,
    chance: Floats,
    alone: Floats,
    never: npt.NDArray[np.bool_],
    label: Ints,
    routes: Sequence[Route],
    spread: float,
    quality: Floats,
) -> Transfer:
    """Learn from routes.

    Args:
        logit: (G, N) log-odds at d = 0 of experts asked alone.
        chance: (G,) how often two wrong answers have one value.
        alone: (G, N, F) probability of each form of step of an expert asked alone that is not right.
        never: (G, N, F) which forms are steps.
        label: (Q,) kind of each training question.
        routes: What was tried, of two answers or more.
        spread: Standard deviation of d.
        quality: (Q, N) of each expert's own answer, asked alone; NaN unknown.
    """
    kinds, experts = logit.shape
    chains: dict[Key, int] = {}
    for route in routes:
        chain = chain_of(route, never[label[route.question]])
        while chain:
            chains[chain] = chains.get(chain, 0) + 1
            chain = chain[1:]
    keys = [key for key, count in chains.items() if count >= _LEAST]
    contexts = Contexts.of(experts, keys, claims=bool(routes))
    shape = (kinds, contexts.count, experts)
    # Numbers of routes after a right answer (0), a wrong one or a step (1); how good the last answers were;
    # and the same of what these experts say alone on these questions.
    number, right, own_number, own_right = np.zeros((4, 2, *shape))
    formed = np.zeros((*shape, len(FORMS)))
    wrong, repeated = np.zeros((2, *shape))
    for route in routes:
        g, j = int(label[route.question]), route.experts[-1]
        chain = chain_of(route, never[g])
        before = route.qualities[-2] if chain is None else 0.0
        good, form = route.qualities[-1], route.forms[-1]
        claimed = int(contexts.claim[route.experts[-2]])
        c = claimed if chain is None else longest_known(chain, contexts.keys)
        if not c:
            continue
        number[:, g, c, j] += before, 1.0 - before
        right[:, g, c, j] += before * good, (1.0 - before) * good
        own = quality[route.question, j]
        if not np.isnan(own):
            own_number[:, g, c, j] += before, 1.0 - before
            own_right[:, g, c, j] += before * own, (1.0 - before) * own
        bad = 1.0 - good
        if never[g, j, form]:
            formed[g, c, j, form] += bad
        elif chain is None and route.values[-1] is not None:
            wrong[g, c, j] += (1.0 - before) * bad
            repeated[g, c, j] += (1.0 - before) * bad * (route.values[-1] == route.values[-2])
    points = hardness(spread)
    hard = _hardness_after(logit, points, contexts)
    shifts = []
    for k in range(2):
        alone_mean = np.einsum("gnd,gcd->gcn", sigmoid(logit[..., None] + points), hard[k])
        # Where few own answers are known, they say little.
        missed = (own_right[k] - own_number[k] * alone_mean) / (own_number[k] + _PRIOR)
        due = np.clip(right[k] - number[k] * missed, 0.0, number[k])
        shifts.append(_shifts(logit, points, hard[k], number[k], due, contexts))
    return Transfer(
        contexts,
        shifts[0],
        shifts[1],
        _repeats(wrong, repeated, chance, contexts),
        _steps(formed, (number - right).sum(axis=0), alone, never),
    )


def _hardness_after(logit: Floats, points: Floats, contexts: Contexts) -> Floats:
    """(2, G, C, D) probability of d in each context, after a right answer and after a wrong one or steps."""
    right = sigmoid(logit[:, :, None] + points)
    found = np.tile(HARDNESS_WEIGHT, (2, len(logit), contexts.count, 1))
    for expert, c in enumerate(contexts.claim.tolist()):
        if c:
            found[0, :, c] *= right[:, expert]
            found[1, :, c] *= 1.0 - right[:, expert]
    for key, c in contexts.keys.items():
        for expert, _ in key:
            found[:, :, c] *= 1.0 - right[:, expert]
    result: Floats = found / found.sum(axis=3, keepdims=True)
    return result


def _shifts(
    logit: Floats,
    points: Floats,
    hard: Floats,
    number: Floats,
    right: Floats,
    contexts: Contexts,
) -> Floats:
    """(G, C, N) most probable shifts, from broad to narrow."""
    claims = np.zeros(contexts.count, dtype=np.bool_)
    claims[contexts.claim] = True
    claims[0] = False
    shift = np.zeros(number.shape)
    for level, spread in enumerate(_SPREADS):
        parent = shift.copy()
        for _ in range(_NEWTON):
            at = logit[:, None, :, None] + shift[..., None] + points
            probability = sigmoid(at)
            mean = np.einsum("gcnd,gcd->gcn", probability, hard)
            bend = number * np.einsum("gcnd,gcd->gcn", probability * (1 - probability), hard)
            slope = right - number * mean
            if level < 2:  # all kinds together
                slope, bend = (np.broadcast_to(x.sum(axis=0), x.shape) for x in (slope, bend))
            if level < 1:  # and all claims
                slope, bend = (_together(x, claims) for x in (slope, bend))
            trust = spread**-2.0
            move = np.clip((slope - trust * (shift - parent)) / (bend + trust), -1.0, 1.0)
            shift = shift + move
            if np.abs(move).max(initial=0.0) < 1e-3:
                break
    return shift


def _together(cells: Floats, claims: npt.NDArray[np.bool_]) -> Floats:
    """Sums over the contexts that are claims, in each of these."""
    result = cells.copy()
    result[:, claims] = cells[:, claims].sum(axis=1, keepdims=True)
    return result


def _repeats(wrong: Floats, repeated: Floats, chance: Floats, contexts: Contexts) -> Floats:
    """(G, C, N) how often a wrong answer repeats the wrong one that it read; NaN where it read none."""
    found = np.full(wrong.shape, np.nan)
    at = contexts.claim
    if not at.any():
        return found
    number, same = wrong[:, at].sum(axis=0), repeated[:, at].sum(axis=0)
    usual = float(chance.mean())
    anyone = (same.sum(axis=0) + _PRIOR * usual) / (number.sum(axis=0) + _PRIOR)
    pair = (same + _PRIOR * anyone) / (number + _PRIOR)
    found[:, at] = np.clip(pair, 0.0, 0.95)
    return found


def _steps(formed: Floats, missed: Floats, alone: Floats, never: npt.NDArray[np.bool_]) -> Floats:
    """(G, C, N, F) probability of each form of step, given that the answer is not right."""
    prior = np.broadcast_to(alone[:, None], formed.shape)
    n = missed.sum(axis=0)[None, ..., None]
    everywhere = (formed.sum(axis=0) + _PRIOR * prior) / (n + _PRIOR)
    found = (formed + _PRIOR * everywhere) / (missed[..., None] + _PRIOR)
    found[:, 0] = alone
    found *= never[:, None]
    total = found.sum(axis=3, keepdims=True)
    result: Floats = found * np.minimum(1.0, 0.999 / np.maximum(total, 1e-12))
    return result
