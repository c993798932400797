"""Which methods are compared: DER at every point of its knob, and every baseline that applies to a pool.

    pool, agent, wanted names ──build_methods──> [Method], [Skipped with its reason]

A method is an agent, the rules of its routes, and the experts as it needs them: votes are independent only
where nobody reads another's answer, and a mixture's aggregator reads everyone's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy import float64
from numpy.typing import NDArray

from der_graph.errors import DataError, DERError, PluginError
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import KTPTemplate
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.rules import RouteRules
from der_graph.plugins import find_plugin, known_names, plugins
from der_graph.policies.answers import Outcome
from der_graph.policies.baselines import (
    PREDICTORS,
    Baseline,
    BestCascades,
    FixedOrder,
    OneShotRouter,
    Oracle,
    Random,
    Single,
)
from der_graph.policies.baselines.mixture import (
    MixtureOfAgents,
    mixture_experts,
    transfers,
    without_transfer,
)
from der_graph.policies.baselines.voting import Cascade, RunAll, Select, nearest_to_all
from der_graph.policies.observation import TextEncoder
from der_graph.policies.planning import Planner
from der_graph.policies.planning.probing.sizes import sizes_of
from der_graph.state import DERContext


class Skipped(NamedTuple):
    """A method that was not run.

    Attributes:
        name: The method.
        reason: Why not, and what would make it possible.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Method:
    """One method of a comparison.

    Attributes:
        name: As in the report: `der`, `der@0.1`, `single:big`, `run_all:vote` ...
        family: `der`, `single`, `reference`, `cascade`, `run_all`, `mixture`, `router` or `oracle`.
        label: What a reader sees, in words.
        agent: Who decides.
        rules: What is allowed on its routes.
        experts: The experts as the method needs them.
        context: Settings of every request.
        curve: Methods of one curve differ in the price of cost alone.
        together: How many of the first calls wait for no other, and may run at the same time.
    """

    name: str
    family: str
    label: str
    agent: RoutingAgent
    rules: RouteRules
    experts: Sequence[Expert]
    context: DERContext = field(default_factory=DERContext)
    curve: str | None = None
    together: int = 1


class Learnt(NamedTuple):
    """What baselines that learn are given.

    Attributes:
        questions: (n,) training questions, as agents read them.
        qualities: (n, experts) quality of every expert's own answer.
        values: [question][expert] what that answer comes to; see `Answer.value`.
    """

    questions: Sequence[str]
    qualities: NDArray[float64]
    values: Sequence[Sequence[str | None]]


@dataclass(frozen=True)
class Setting:
    """What all methods have in common.

    Attributes:
        experts: The pool's experts, in order.
        rules: What is allowed on a route.
        ktp: The graph's template.
        questions: The questions of the evaluation, as agents read them.
        first: Every expert's first answer to them, for the oracles: [example][expert].
        cost_weights: Points of the knob.
        encoder: For routers and centroids; None leaves them out.
        train: What routers and cascades learn from, or None.
        ranker: Selects among all answers (`run_all:rank`), or None.
        fixed_orders: Orders of the method `fixed_order`; the pool's where there is none.
        seed: Of what is random.
        expected: What a call of each expert is expected to cost; what the rules say where left out.
    """

    experts: Sequence[Expert]
    rules: RouteRules
    questions: Sequence[str]
    first: Sequence[Sequence[Outcome]]
    cost_weights: Sequence[float]
    ktp: str | KTPTemplate | None = None
    encoder: TextEncoder | None = None
    train: Learnt | None = None
    ranker: Select | None = None
    fixed_orders: Sequence[Sequence[str]] = ()
    seed: int = 0
    expected: tuple[float, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The experts' names."""
        return self.rules.names

    @property
    def costs(self) -> tuple[float, ...]:
        """What calls of the experts are expected to cost."""
        return self.expected or self.rules.costs


BASELINES = (
    "single", "random", "fixed_order", "cascade", "run_all", "mixture", "router", "planner", "oracle",
)  # fmt: skip
"""Groups of baselines, by the name that `--baselines` takes; `run_all:vote` and the like name one method."""

GOOD_ENOUGH = 0.73
"""Quality from which on the cheapest oracle takes an answer: p0 of the paper."""


def check_wanted(wanted: Sequence[str]) -> None:
    """Check names of baselines.

    Raises:
        DataError: If one is unknown.
    """
    routers = [f"router:{kind}" for kind in PREDICTORS]
    for name in wanted:
        group = name.split(":")[0]
        if name in plugins("baselines"):
            continue
        if group not in BASELINES or (group == "router" and name not in ("router", *routers)):
            raise DataError(
                f"baseline '{name}' is unknown; choose from: {known_names('baselines', BASELINES)}, "
                f"a single method of one of them, such as run_all:vote or one of {', '.join(routers)}, "
                "or none"
            )


def build_methods(
    agent: RoutingAgent, setting: Setting, wanted: Sequence[str] = BASELINES
) -> tuple[list[Method], list[Skipped]]:
    """Make DER and all baselines that are wanted and apply.

    Args:
        agent: The trained agent.
        setting: What the methods have in common.
        wanted: Groups of baselines (see `BASELINES`), or methods by name.

    Raises:
        DataError: If a name is unknown.
    """
    check_wanted(wanted)
    found = _der(agent, setting)
    skipped: list[Skipped] = []
    for name in plugins("baselines"):
        if name in wanted or wanted == BASELINES:
            methods, left_out = _of_another_package(name, setting)
            found += methods
            skipped += left_out
    for group in BASELINES:
        named = [name for name in wanted if name.startswith(f"{group}:")]
        if group not in wanted and not named:
            continue
        if group == "router":
            kinds = [k for k in PREDICTORS if group in wanted or f"router:{k}" in named]
            methods, left_out = _routers(setting, kinds)
        else:
            methods, left_out = _GROUPS[group](setting)
        if group not in wanted:
            methods = [m for m in methods if (m.curve or m.name) in named]
            there = {m.curve or m.name for m in methods} | {s.name for s in left_out}
            for name in named:
                if name not in there and group not in there:
                    raise DataError(f"there is no baseline '{name}' for this pool")
        found += methods
        skipped += left_out
    for method in found:
        method.agent.check_pool(setting.names)
    return found, skipped


Made = tuple[list[Method], list[Skipped]]


def _der(agent: RoutingAgent, setting: Setting) -> list[Method]:
    def at(price: float | None) -> Method:
        name = "der" if price is None else f"der@{price:g}"
        label = "DER" if price is None else f"DER, price {price:g}"
        context = DERContext(cost_weight=price)
        return Method(
            name, "der", label, agent, setting.rules, setting.experts, context, curve="der"
        )

    return [at(None), *(at(price) for price in setting.cost_weights)]


def _of_another_package(name: str, setting: Setting) -> Made:
    """A baseline that another package brings; one with a method `fit` learns from `--train`."""
    made = find_plugin("baselines", name)
    if not (isinstance(made, type) and issubclass(made, Baseline)):
        raise PluginError(f"baselines '{name}' is {made!r}; it must be a subclass of Baseline")
    agent = made(setting.names, setting.costs)
    fit = getattr(agent, "fit", None)
    if fit is not None:
        if setting.train is None:
            return [], [Skipped(name, "it learns from questions of its own: give --train")]
        fit(*setting.train)
    return [Method(name, "reference", name, agent, setting.rules, setting.experts)], []


def _singles(setting: Setting) -> Made:
    return [
        Method(
            f"single:{name}", "single", f"{name} alone", Single(setting.names, setting.costs, name),
            setting.rules, setting.experts,
        )
        for name in setting.names
    ], []  # fmt: skip


def _random(setting: Setting) -> Made:
    agent = Random(setting.names, setting.costs, setting.seed)
    return [Method("random", "reference", "random", agent, setting.rules, setting.experts)], []


def _fixed_order(setting: Setting) -> Made:
    made = []
    for order in setting.fixed_orders or [setting.names[: setting.rules.max_steps]]:
        agent = FixedOrder(setting.names, setting.costs, order)
        name, label = f"fixed_order:{'>'.join(order)}", f"always {' → '.join(order)}"
        if not setting.fixed_orders:
            name, label = "fixed_order", "the pool's order, with transfer"
        made.append(Method(name, "reference", label, agent, setting.rules, setting.experts))
    return made, []


def _cascades(setting: Setting) -> Made:
    rules = _everyone(setting)
    alone = without_transfer(setting.experts, setting.ktp)
    made = [
        Method(
            f"cascade:{agree}", "cascade", f"cheapest first until {agree} agree",
            Cascade(setting.names, setting.costs, agree), rules, alone,
        )
        for agree in (2, 3)
        if len(setting.names) >= agree
    ]  # fmt: skip
    best = "cascade:best"
    if setting.train is None or setting.encoder is None:
        reason = "the best cascades are found on questions of their own: give --train"
        return made, [Skipped(best, reason)]
    try:
        agent = BestCascades(setting.names, setting.costs, setting.encoder).fit(*setting.train)
    except DERError as error:  # scikit-learn is an extra
        return made, [Skipped(best, str(error))]
    label = "best order until 2 agree"
    return made + _over_prices(best, "cascade", label, agent, setting, rules, alone), []


def _run_all(setting: Setting) -> Made:
    names, costs, rules = setting.names, setting.costs, _everyone(setting)
    alone = without_transfer(setting.experts, setting.ktp)

    def method(kind: str, label: str, select: Select | None) -> Method:
        agent = RunAll(names, costs, select)
        name = f"run_all:{kind}"
        return Method(name, "run_all", label, agent, rules, alone, together=len(names))

    made = [method("vote", "run-all, majority vote", None)]
    skipped = []
    if any(transfers(expert, setting.ktp) for expert in setting.experts):
        # In the pool's order, which is the order that its author meant knowledge to flow in.
        agent = RunAll(names, costs, order=names)
        label = "run-all in a chain, vote"
        made.append(
            Method("run_all:vote_chain", "run_all", label, agent, rules, setting.experts)
        )  # fmt: skip
    if setting.ranker is not None:
        made.append(method("rank", "run-all, ranker", setting.ranker))
    elif setting.encoder is not None:
        made.append(method("centroid", "run-all, nearest to all", nearest_to_all(setting.encoder)))
        reason = "no ranker was given (--ranker); run_all:centroid stands in for it"
        skipped.append(Skipped("run_all:rank", reason))
    return made, skipped


def _mixture(setting: Setting) -> Made:
    if any(isinstance(expert.model, RecordedChat) for expert in setting.experts):
        return [], [
            Skipped("mixture", "recorded answers cannot be aggregated: it takes a live pool")
        ]
    # Who aggregates is settled before the test questions are seen: the best on --train, else the dearest.
    if setting.train is not None:
        best = int(np.argmax(setting.train.qualities.mean(axis=0)))
    else:
        best = int(np.argmax(setting.costs))
    aggregator = setting.names[best]
    rules = replace(setting.rules, max_steps=len(setting.names) + 1, repeat_experts=True)
    return [
        Method(
            f"mixture:{aggregator}", "mixture", f"mixture of agents, {aggregator} aggregates",
            MixtureOfAgents(setting.names, setting.costs, aggregator), rules,
            mixture_experts(setting.experts, aggregator, setting.ktp), together=len(setting.names),
        )
    ], []  # fmt: skip


def _oracles(setting: Setting) -> Made:
    table = [[outcome.quality for outcome in row] for row in setting.first]
    made = []
    kinds: Mapping[str, tuple[str, float | None]] = {
        "oracle": ("oracle: best single answer", None),
        "oracle:cheapest": ("oracle: cheapest good answer", GOOD_ENOUGH),
    }
    for name, (label, enough) in kinds.items():
        agent = Oracle(setting.names, setting.costs, setting.questions, table, enough)
        made.append(Method(name, "oracle", label, agent, setting.rules, setting.experts))
    return made, []


def _routers(setting: Setting, kinds: Sequence[str]) -> Made:
    if setting.train is None or setting.encoder is None:
        return [], [
            Skipped("router", "one-shot routers learn from questions of their own: give --train")
        ]
    made: list[Method] = []
    skipped: list[Skipped] = []
    for kind in kinds:
        router = OneShotRouter(setting.names, setting.costs, setting.encoder, PREDICTORS[kind]())
        name = f"router:{kind}"
        try:
            router.fit(setting.train.questions, setting.train.qualities)
        except DERError as error:  # scikit-learn is an extra
            skipped.append(Skipped(name, str(error)))
            continue
        made += _over_prices(
            name, "router", f"{kind} router", router, setting, setting.rules, setting.experts
        )
    return made, skipped


def _planner(setting: Setting) -> Made:
    """The planner that has learnt from the training questions; without any, by sizes or prices alone."""
    names, costs = setting.names, setting.costs
    sizes = sizes_of(setting.experts)
    known: dict[str, Any] = {"sizes": sizes} if all(sizes) else {}
    if setting.train is None:
        label, agent = "planner, no data", Planner.from_prior(names, costs, **known)
    else:
        label = "planner, no PPO"
        agent = Planner.fit(names, costs, *setting.train, encoder=setting.encoder, **known)
    return _over_prices(
        "planner", "router", label, agent, setting, setting.rules, setting.experts
    ), []  # fmt: skip


def _over_prices(
    name: str,
    family: str,
    label: str,
    agent: RoutingAgent,
    setting: Setting,
    rules: RouteRules,
    experts: Sequence[Expert],
) -> list[Method]:
    """A method at its default price, and at every point of the knob."""
    made = []
    for price in (None, *setting.cost_weights):
        at, shown = ("", "") if price is None else (f"@{price:g}", f", price {price:g}")
        context = DERContext(cost_weight=price)
        made.append(
            Method(name + at, family, label + shown, agent, rules, experts, context, curve=name)
        )
    return made


def _everyone(setting: Setting) -> RouteRules:
    """Routes as long as the pool."""
    return replace(setting.rules, max_steps=len(setting.names), repeat_experts=False)


_GROUPS = {
    "single": _singles,
    "random": _random,
    "fixed_order": _fixed_order,
    "cascade": _cascades,
    "run_all": _run_all,
    "mixture": _mixture,
    "planner": _planner,
    "oracle": _oracles,
}
