"""One method of a comparison, and what all methods of a comparison have in common.

A method is an agent, the rules of its routes, and the experts as it needs them: votes are independent
only where nobody reads another's answer, and a mixture's aggregator reads everyone's. Which methods there
are is in `methods.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from numpy import float64
from numpy.typing import NDArray

from der_graph.nodes.expert import Expert
from der_graph.nodes.hub import RoutingAgent
from der_graph.nodes.ktp import KTPTemplate
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import Outcome
from der_graph.policies.encoder import TextEncoder
from der_graph.policies.voting import Select
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

    @property
    def names(self) -> tuple[str, ...]:
        """The experts' names."""
        return self.rules.names

    @property
    def costs(self) -> tuple[float, ...]:
        """The experts' costs."""
        return self.rules.costs
