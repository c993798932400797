"""Where another policy does better than the trained agent, it takes over, and the run says so.

    agent | router, best fixed orders, planner ──at some prices──> a Takeover for what is better

Training questions compare best, as there are many. The others are fitted without the question that they are
asked. Of the agent each network of its ensemble shows how it does on the questions that it had left out;
where there is no such network, the agent has learnt from all of them, and whatever still does better there
does better. The dev questions count as well, and without such networks what is clearly better on those alone
takes over too.

A comparison has an error. Where it cannot tell, the planner takes over, as it fits few parameters: unless the
agent is better by one standard error. Routers and orders do where they are better by as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import RoutingNetwork
from der_graph.policies.agent.takeover import Takeover
from der_graph.policies.answers import AnswerSource
from der_graph.policies.observation import Observer
from der_graph.policies.planning import Planner
from der_graph.policies.planning.forms import Route, form_of
from der_graph.policies.training.routes.lesson import RouteLesson, Unseen
from der_graph.policies.training.routes.tree import RouteTree
from der_graph.policies.training.selection import routes_at_prices

PRICES = 7
"""Prices compared, log-evenly over the range of training."""
_ERRORS = 2.0  # standard errors by which a policy must be better on the dev questions alone
_DOUBT = 1.0  # standard errors that the planner is believed, and the others must prove
_LEAST = 0.002  # utility by which it must be better on all questions
_FLATTERED = 0.03  # utility by which an agent may look better on what it has learnt from
_ROWS = 800  # training questions, at most
_FITTED = 4_000  # training questions from which a planner learns, at most
_ROUTES = 10_000  # from which a planner learns how experts react to one another

Utility = npt.NDArray[np.float64]
Order = tuple[tuple[int, ...], bool]
"""Experts, and whether to stop as soon as two agree."""


class Compared(NamedTuple):
    """The comparison.

    Attributes:
        takeovers: Policies that were better, with their prices.
        planner: The planner, if it is one of them.
        lines: What to tell people.
    """

    takeovers: list[Takeover]
    planner: Planner | None
    lines: list[str]


class _Tried(NamedTuple):
    """Policies, one a price, and their utility on training and on dev questions: (prices, questions)."""

    policies: Sequence[Takeover]
    train: Utility
    dev: Utility

    def lead_over(self, own: _Tried, k: int, *, flattered: bool) -> tuple[float, float]:
        """How much better one is than the agent at a price, by position, and how much after doubts.

        Args:
            own: The agent.
            k: Position of the price.
            flattered: Has the agent learnt from the training questions that it is compared on?
        """
        train, dev = self.train[k] - own.train[k], self.dev[k] - own.dev[k]
        all_ = np.concatenate([train, dev])
        doubt = _DOUBT * _error(all_)
        gain = float(all_.mean())
        lead = gain + doubt if self.policies[k].planner else gain - doubt
        if flattered:
            lead = max(lead, float(dev.mean()) - _ERRORS * _error(dev))
        return gain, lead


def compare_with_others(
    agent: DERAgent,
    lesson: RouteLesson,
    source: AnswerSource,
    dev: AnswerSource,
    rules: RouteRules,
    *,
    seed: int = 0,
    unseen: Sequence[Unseen] = (),
) -> Compared:
    """Compare an agent with other policies at the prices of its range.

    Args:
        agent: The agent.
        lesson: What it has learnt from.
        source: The training questions.
        dev: The dev questions.
        rules: What is allowed on a route.
        seed: Of the choice of training questions.
        unseen: The networks of its ensemble, with what each has not learnt from.
    """
    low, high = agent.cost_weight_range
    prices = np.geomspace(low, high, PRICES).tolist() if low < high else [low]
    between = [float(np.sqrt(a * b)) for a, b in pairwise(prices)]
    bands = list(zip([low, *between], [*between, high], strict=True))
    total = max(agent.observer.total, 1e-12)
    drawn = np.random.default_rng(seed).permutation(len(source.examples))
    if unseen:
        some = drawn[np.isin(drawn, np.concatenate([each.questions for each in unseen]))][:_ROWS]
    else:
        some = drawn[:_ROWS]
    fold = lesson.fold[some]
    planners, planner = (
        _planners(lesson, source, drawn[:_FITTED].tolist(), np.unique(fold).tolist())
        if len(some)
        else ({}, None)
    )
    orders, charged = Orders.of(lesson.tree), np.asarray(prices) / total

    def fixed(rows: npt.NDArray[np.bool_] | None = None) -> list[Takeover]:
        """At each price the order that is best on some questions."""
        best = [orders.orders[i] for i in orders.best(charged, rows)]
        return [
            Takeover(*band, tuple(rules.names[i] for i in order), until)
            for band, (order, until) in zip(bands, best, strict=True)
        ]

    def deciding(
        policies: Sequence[Takeover], observer: Observer, network: RoutingNetwork | None = None
    ) -> DERAgent:
        settings = agent.settings
        if policies:
            settings = {**settings, "takeovers": policies, "planner": planner}
        return DERAgent(observer, network or agent.network, **settings)

    def own_on_train() -> Utility:
        """Of the agent, by networks that have not learnt from the question where there are such."""
        if not unseen:
            return on_train(())
        found = np.zeros((len(prices), len(some)))
        for network, questions in unseen:
            mine = np.flatnonzero(np.isin(some, questions))
            shown = deciding((), lesson.observer, network)
            found[:, mine] = _utility(shown, source, rules, prices, total, some[mine].tolist())
        return found

    def on_train(policies: Sequence[Takeover], rows: Sequence[int] = some.tolist()) -> Utility:
        shown = deciding(policies, lesson.observer)
        return _utility(shown, source, rules, prices, total, rows)

    def of_orders() -> Utility:
        """Of the orders that were best on the other folds' questions; they cannot end on refusals."""
        found = np.zeros((len(prices), len(some)))
        for f in np.unique(fold).tolist():
            rows = lesson.fold != f
            mine = np.flatnonzero(fold == f)
            policies = fixed(rows if rows.any() else None)
            found[:, mine] = on_train(policies, some[mine].tolist())
        return found

    own_train = own_on_train()
    router = [Takeover(*band) for band in bands]
    others = [(router, on_train(router)), (fixed(), of_orders())]
    if planner is not None:
        plans = [Takeover(*band, planner=True) for band in bands]
        others.append(
            (plans, _held_out_plans(planners, lesson, source, rules, prices, total, some))
        )
    # Dev questions may cost new answers: a policy that cannot be better decides at no price.
    flattered = 0.0 if unseen else _FLATTERED
    tried: list[tuple[list[Takeover], Sequence[Takeover], Utility]] = []
    for policies, train in others:
        gains = train - own_train
        likely = [
            policy
            for policy, gain in zip(policies, gains, strict=True)
            if _may_be_better(gain, flattered=flattered)
        ]
        if likely:
            tried.append((likely, policies, train))
    deciders = [deciding(likely, agent.observer) for likely in ((), *(each[0] for each in tried))]
    own_dev, *on_dev = _utilities(deciders, dev, rules, prices, total)
    own = _Tried((), own_train, own_dev)
    compared = [
        (likely, _Tried(policies, train, utility))
        for (likely, policies, train), utility in zip(tried, on_dev, strict=True)
    ]
    taken: list[tuple[Takeover, float]] = []
    nearest = -np.inf
    for k in range(len(prices)):
        found = [
            (*each.lead_over(own, k, flattered=not unseen), each.policies[k])
            for likely, each in compared
            if each.policies[k] in likely
        ]
        if not found:
            continue
        nearest = max(nearest, *(gain for gain, _, _ in found))
        gain, lead, policy = max(found, key=lambda each: each[1])
        if lead > _LEAST:
            taken.append((policy, gain))
    takeovers = _joined([policy for policy, _ in taken])
    lines = [
        _line(each, max(gain for p, gain in taken if each.decides((p.low + p.high) / 2)))
        for each in takeovers
    ]
    if not takeovers:
        near = f" (the nearest: {nearest:+.3f})" if np.isfinite(nearest) else ""
        lines.append(
            f"no router, no fixed order and no plan did better than the agent at any price{near}"
        )
    planned = any(each.planner for each in takeovers)
    return Compared(takeovers, planner if planned else None, lines)


def _line(takeover: Takeover, gain: float) -> str:
    """What people are told of a takeover, and of how much better it was where it was best."""
    prices = f"at prices from {takeover.low:.2g} to {takeover.high:.2g} {takeover}"
    if gain > _LEAST:
        return f"{prices} did better and takes over, by {gain:.3f} at most"
    return f"{prices} did as well, as far as the questions can tell, and takes over ({gain:+.3f})"


class Orders(NamedTuple):
    """Fixed orders, to their end or until two agree, and what they bring.

    Attributes:
        orders: Each order.
        quality: (questions, orders) of the answer at the end.
        cost: (questions, orders) of all calls.
    """

    orders: list[Order]
    quality: npt.NDArray[np.float32]
    cost: npt.NDArray[np.float32]

    @classmethod
    def of(cls, tree: RouteTree) -> Orders:
        """All orders of a tree."""
        rows = np.arange(len(tree.quality))
        orders: list[Order] = []
        ends: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
        for position, route in enumerate(tree.routes[1:], start=1):
            along = tree.along[position]
            quality = tree.quality[:, along]
            paid = np.cumsum(tree.cost[:, along], axis=1)
            orders.append((route, False))
            ends.append((quality[:, -1], paid[:, -1]))
            if len(along) > 1:
                value = tree.value[:, along]
                agreed = np.array(
                    [(value[:, [k]] == value[:, :k]).any(axis=1) for k in range(len(along))]
                ).T
                agreed[:, -1] = True
                stops = agreed.argmax(axis=1)
                orders.append((route, True))
                ends.append((quality[rows, stops], paid[rows, stops]))
        quality, cost = (np.stack(each, axis=1) for each in zip(*ends, strict=True))
        return cls(orders, quality, cost)

    def best(self, charged: Utility, rows: npt.NDArray[Any] | None = None) -> list[int]:
        """For each price of a unit of cost, the order that was worth most; the first of equals."""
        quality, cost = (
            (each if rows is None else each[rows]).mean(axis=0, dtype=np.float64)
            for each in (self.quality, self.cost)
        )
        worth = quality - charged[:, None] * cost
        near = worth >= worth.max(axis=1, keepdims=True) - 1e-9
        return [int(k) for k in near.argmax(axis=1)]


def _planners(
    lesson: RouteLesson, source: AnswerSource, among: Sequence[int], folds: Sequence[int]
) -> tuple[dict[int, Planner], Planner]:
    """Planners that have learnt from these training questions: without each of these folds, and from all."""
    observer = lesson.observer
    first = source.first_answers()
    quality = np.array([[o.quality for o in row] for row in first])
    values = [[o.answer["value"] for o in row] for row in first]
    texts = [[o.answer["text"] for o in row] for row in first]
    reads = any(source.reads_answers(i) for i in range(len(source.experts)))
    routes = _routes(lesson.tree) if reads else []

    def fit(rows: Sequence[int]) -> Planner:
        place = {row: i for i, row in enumerate(rows)}
        return Planner.fit(
            observer.names,
            observer.costs.tolist(),
            [source.questions[i] for i in rows],
            quality[list(rows)],
            [values[i] for i in rows],
            texts=[texts[i] for i in rows],
            routes=[r._replace(question=place[r.question]) for r in routes if r.question in place],
            encoder=observer.encoder,
        )

    rest = {f: [i for i in among if lesson.fold[i] != f] for f in folds}
    return {f: fit(rows or among) for f, rows in rest.items()}, fit(among)


def _routes(tree: RouteTree) -> list[Route]:
    """Some of the routes of more than one expert, as planners learn from them."""
    longer = np.flatnonzero(tree.depth > 1)
    draw, found = np.random.default_rng(0), []
    for _ in range(min(_ROUTES, len(longer) * len(tree.quality))):
        i, q = int(draw.choice(longer)), int(draw.integers(len(tree.quality)))
        answers = tree.answers(i, q)
        if all(answer["error"] is None for answer in answers):
            forms = tuple(form_of(answer["text"], answer["value"]) for answer in answers)
            said = tuple(answer["value"] for answer in answers)
            qualities = tuple(map(float, tree.quality[q, tree.along[i]]))
            found.append(Route(q, tree.routes[i], forms, said, qualities))
    return found


def _held_out_plans(
    planners: Mapping[int, Planner],
    lesson: RouteLesson,
    source: AnswerSource,
    rules: RouteRules,
    prices: Sequence[float],
    total: float,
    rows: npt.NDArray[np.int64],
) -> Utility:
    """(prices, rows) utility of the planner that has not learnt from the question."""
    found = np.zeros((len(prices), len(rows)))
    for fold, planner in planners.items():
        mine = np.flatnonzero(lesson.fold[rows] == fold)
        at = rows[mine].tolist()
        scale = sum(planner.costs) / total  # a planner counts prices in what its experts cost
        found[:, mine] = _utility(planner, source, rules, prices, total, at, scale)
    return found


def _may_be_better(gain: Utility, flattered: float) -> bool:
    """Is it possible, seen from the training questions, which may flatter the agent by so much?"""
    if not len(gain):
        return True
    return bool(gain.mean() + _ERRORS * _error(gain) > -flattered)


def _error(gain: Utility) -> float:
    return float(gain.std() / np.sqrt(len(gain)))


def _joined(policies: Sequence[Takeover]) -> list[Takeover]:
    """The same with neighbours that are one policy made one."""
    found: list[Takeover] = []
    for each in policies:
        if found and found[-1].high == each.low:
            longer = replace(each, low=found[-1].low)
            if replace(found[-1], high=each.high) == longer:
                found[-1] = longer
                continue
        found.append(each)
    return found


def _utility(
    agent: RoutingAgent,
    source: AnswerSource,
    rules: RouteRules,
    prices: Sequence[float],
    total: float,
    rows: Sequence[int] | None = None,
    scale: float = 1.0,
) -> Utility:
    """(prices, rows) quality less the price of cost; `scale` times the price is what the agent is told."""
    return _utilities([agent], source, rules, prices, total, rows, scale)[0]


def _utilities(
    agents: Sequence[RoutingAgent],
    source: AnswerSource,
    rules: RouteRules,
    prices: Sequence[float],
    total: float,
    rows: Sequence[int] | None = None,
    scale: float = 1.0,
) -> list[Utility]:
    """The same for some agents together."""
    told = [scale * price for price in prices]
    return [
        np.asarray(each.quality - np.array(prices)[:, None] * each.cost / total)
        for each in routes_at_prices(agents, source, rules, told, rows)
    ]
