r"""Skills that follow what was served: the most probable ones, given the routes so far.

    routes, some with an outcome ──who was probably right──> expected results ──MAP──> skills
                                          ^──────────────────────────────────────────┘

Expectation and maximisation: who was right on a route is told by its outcome where somebody said, else by
who agrees with whom; the skills that are most probable then tell it better. How much agreement says is
learnt from the outcomes as well: in some pools wrong answers are the same more often than in others. What
was known before (a prior, probes, training) stays the prior. Older routes count less. An expert whose last
routes differ from the earlier ones by more than chance is taken to have changed, and is judged by the last
ones alone. Where claims cannot be compared, the last answer counts, and only with an outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from der_graph.policies.planning.belief import Told, believe, columns_of
from der_graph.policies.planning.knowledge import Knowledge
from der_graph.policies.planning.tables import Floats, Tables, sigmoid

HALF_LIFE = 1_000.0
"""Routes after which one counts half."""
RECENT = 60.0
"""The same for the last routes, which tell whether an expert has changed."""
_CHANGED = 3.0  # standard deviations
_UNSEEN = 0.3  # weight of a route without an outcome
_SHARED = (
    0.5  # standard deviation of an expert's move on one kind around its move on all, in log-odds
)
_ODDS = 0.25  # step of the log-odds of two wrong answers being the same
_SPREADS = 0.15  # step of the logarithm of how much the questions differ in hardness
_TRUST = 0.5  # standard deviation of both around what was known before
_ROUNDS = 3
_MOST = 1.0  # log-odds of one step
_LEAST = 1e-12  # probability


class Served(NamedTuple):
    """A route that was served.

    Attributes:
        kind: Of its question.
        told: Its good answers.
        outcome: Quality of the last one, in [0, 1]; None where nobody said.
    """

    kind: int
    told: tuple[Told, ...]
    outcome: float | None


def relearn(base: Knowledge, routes: Sequence[Served], start: Knowledge | None = None) -> Knowledge:
    """The skills that routes make most probable.

    Args:
        base: What is known without them.
        routes: The routes, oldest first.
        start: Skills to begin with, such as the last ones, to be quicker.
    """
    if not any(route.told for route in routes):
        return base
    ages = np.arange(len(routes))[::-1]
    weights = 0.5 ** (ages / HALF_LIFE)
    known = base if start is None else start
    if known is base:
        known = base.with_logit(*_fit(base, routes, weights, base.logit))
    for _ in range(_ROUNDS):
        before, found = known, _calibrated(base, routes, weights, known)
        logit, precision = _fit(found, routes, weights, known.with_spread(found.spread).logit)
        known = found.with_logit(logit, precision)
        if found.spread == before.spread and np.array_equal(found.chance, before.chance):
            break
    base = found
    recent, sure = _fit(base, routes, 0.5 ** (ages / RECENT), logit)
    apart = np.abs(recent - logit) * np.sqrt(np.maximum(sure - base.precision, 0.0)) > _CHANGED
    skill, trust = np.where(apart, recent, logit), np.where(apart, sure, precision)
    return base.with_logit(skill, trust)


def _calibrated(
    base: Knowledge, routes: Sequence[Served], weights: Floats, start: Knowledge
) -> Knowledge:
    """What was known before, with how much agreement says as the outcomes make most probable.

    Experts that make the same mistakes agree on wrong answers; who believed them all would take those who are
    asked most for better than they are. From agreement alone nobody can tell, so only routes with an outcome
    count; where claims cannot be compared there is no agreement. The skills stay while this is sought.

    Args:
        base: What was known before.
        routes: The routes.
        weights: Of each.
        start: Skills by which the routes are judged, and what was found with fewer routes.
    """
    cases = {
        route: weight
        for route, weight in _cases(routes, weights).items()
        if route.outcome is not None and len(route.told) > 1
    }
    if not cases or not base.comparable:
        return base
    before, found = _log_odds(base.chance), dict[tuple[int, int], float]()

    def known(place: tuple[int, int], of: Knowledge) -> Knowledge:
        spread = base.spread * float(np.exp(place[1] * _SPREADS))
        return of.with_spread(spread).with_chance(sigmoid(before + place[0] * _ODDS))

    def fits(place: tuple[int, int]) -> float:
        if place not in found:
            away = (place[0] * _ODDS) ** 2 + (place[1] * _SPREADS) ** 2
            tried, found[place] = known(place, start), -away / (2 * _TRUST**2)
            for route, weight in cases.items():
                found[place] += weight * _log_likelihood(tried.tables(route.kind), route)
        return found[place]

    moved = (
        float((_log_odds(start.chance) - before).mean()),
        float(np.log(start.spread / base.spread)),
    )
    at = round(moved[0] / _ODDS), round(moved[1] / _SPREADS)
    while True:
        near = [at, *((at[0] + i, at[1] + j) for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1)))]
        best = max(near, key=fits)
        if best == at:
            return known(at, base)
        at = best


def _log_odds(chance: Floats) -> Floats:
    bounded = np.clip(chance, _LEAST, 1.0 - _LEAST)
    found: Floats = np.log(bounded / (1.0 - bounded))
    return found


def _log_likelihood(tables: Tables, route: Served) -> float:
    """Of the outcome, by the answers."""
    outcome = 0.0 if route.outcome is None else route.outcome
    good, bad = (max(part.sum(), _LEAST) for part in _by_outcome(tables, route))
    return float(outcome * np.log(good) + (1.0 - outcome) * np.log(bad))


def _cases(routes: Sequence[Served], weights: Floats) -> dict[Served, float]:
    """Routes that are alike, with their weight together."""
    cases: dict[Served, float] = {}
    for route, weight in zip(routes, weights.tolist(), strict=True):
        if route.told and weight > 0.01:
            unseen = _UNSEEN if route.outcome is None else 1.0
            cases[route] = cases.get(route, 0.0) + weight * unseen
    return cases


def _fit(
    base: Knowledge, routes: Sequence[Served], weights: Floats, logit: Floats
) -> tuple[Floats, Floats]:
    """(G, N) most probable log-odds, and their precision."""
    cases = _cases(routes, weights)
    precision = base.precision
    for _ in range(_ROUNDS if cases else 0):
        known = base.with_logit(logit, base.precision)
        slope, bend = np.zeros((2, *logit.shape))
        for route, weight in cases.items():
            _count(known, route, weight, slope, bend)
        # First a move that all kinds share, then one on each.
        prior = base.precision.mean(axis=0)
        shared = (logit - base.logit).mean(axis=0)
        step = (slope.sum(axis=0) - prior * shared) / (bend.sum(axis=0) + prior)
        step = np.clip(step, -_MOST, _MOST)
        if len(logit) > 1:
            trust = _SHARED**-2.0
            around = logit - base.logit - shared
            rest = slope - bend * step - trust * around
            step = step + np.clip(rest / (bend + trust), -_MOST, _MOST)
        logit = logit + step
        precision = base.precision + bend
        if np.abs(step).max() < 1e-2:
            break
    return logit, precision


def _count(known: Knowledge, route: Served, weight: float, slope: Floats, bend: Floats) -> None:
    """Add what one route says of its experts to the slope and the bend of the likelihood, each (G, N)."""
    tables = known.tables(route.kind)
    if not tables.comparable and route.outcome is None:
        return
    after = _given_outcome(tables, route)
    mass = after.sum(axis=1)
    columns = columns_of(route.told)
    context = last = opened = 0
    for answer in route.told:
        column = 0
        if answer.step < 0 and not tables.comparable:
            column = 1
        elif answer.step < 0:
            new = answer.value < 0 or columns[answer.value] > opened
            column = opened + 1 if new else columns[answer.value]
            opened = max(opened, column)
        i = answer.expert
        if tables.comparable or answer is route.told[-1]:
            # The answer that was read was right as probably as its class is.
            read = after[:, last] / np.maximum(mass, 1e-12) if last else np.zeros(len(after))
            base = known.logit[route.kind, i] + tables.hardness
            good = sigmoid(base + tables.right_shift[context, i])
            bad = sigmoid(base + tables.wrong_shift[context, i])
            chance = read * good + (1.0 - read) * bad
            right = after[:, column] if column else 0.0
            slope[route.kind, i] += weight * float((right - mass * chance).sum())
            bend[route.kind, i] += weight * float((mass * chance * (1.0 - chance)).sum())
        if answer.step >= 0:
            context = int(tables.step_context[context, i, answer.step])
        else:
            context = int(tables.claim_context[i])
        last = column


def _given_outcome(tables: Tables, route: Served) -> Floats:
    """(D, H + 1) probability of each d and of each class being right, after the route and its outcome."""
    good, bad = _by_outcome(tables, route)
    joint = good + bad
    if route.outcome is None:
        return joint
    found: Floats = np.zeros(joint.shape)
    for share, part in ((route.outcome, good), (1.0 - route.outcome, bad)):
        if part.sum() > 0:
            found += share * part / part.sum()
    return found / found.sum() if found.sum() > 0 else joint


def _by_outcome(tables: Tables, route: Served) -> tuple[Floats, Floats]:
    """(D, H + 1) probability of each d and class, where the route's last answer is right, and where not."""
    nodes = believe(tables, route.told)
    joint: Floats = nodes.joint[0]
    column = int(nodes.last[0])
    is_right = np.zeros(joint.shape[1])
    is_right[column] = column > 0
    return joint * is_right, joint * (1.0 - is_right)
