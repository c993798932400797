r"""The agent that plans: it needs no training, and explains each decision.

    situation ──kind, answers──> state ──tree (remembered)──> worth of each choice ──> the best one

For up to `WIDTH` experts the plan is exact to `DEPTH` calls. In a larger pool the most promising are chosen
for each state, and planned for to a smaller depth. Trees do not depend on price, budget or lists, so they are
remembered; the largest, of the first decision, are made when the pool is checked, not in the first request.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from der_graph.nodes.decision import Choice, check_same
from der_graph.nodes.reliability.copying import BeginsAnew
from der_graph.nodes.rules import COST_TOLERANCE
from der_graph.policies.observation import TextEncoder
from der_graph.policies.observation.last_used import LastUsed
from der_graph.policies.observation.price_of_cost import PRICE, PRICE_RANGE
from der_graph.policies.planning.belief import Told
from der_graph.policies.planning.candidates import candidates
from der_graph.policies.planning.choices import explanation_of, probabilities
from der_graph.policies.planning.fitting import fit_knowledge
from der_graph.policies.planning.forms import read_route
from der_graph.policies.planning.knowledge import Knowledge
from der_graph.policies.planning.tables import Ints
from der_graph.policies.planning.tree import Bounds, Tree, Worth
from der_graph.state import Situation, good_answers

DEPTH = 4
"""Calls planned ahead at the first decision; a later one plans what is left of them, two at least."""
WIDTH = 12
"""Experts up to which all are planned for."""
_AT_ONCE = 8  # experts of whom the largest tree is made in 20 ms, and those after answers in 4
_SHALLOW = 3  # calls ahead in a larger pool
_TIE = 1e-9  # worths that differ less are equal: END, then the cheapest
_TREES = 2_000  # remembered
_WORTHS = 100_000

Kept = TypeVar("Kept")


class Planner(BeginsAnew):
    """Asks whom the plan says, and ends where no question is worth its price.

    Each choice is explained: `kind` of question; `source` of the chosen expert's skill (`prior`, `hint`,
    `probes`, `learnt`, `served`) and that `skill`; `right_now`, the probability that the last answer is
    right; `expected_gain`, utility above ending now, after the price; `worth` of each choice that is
    allowed, by name; `why`, all that in words.

    Args:
        knowledge: What is known of the pool.
        costs: Price of one call of each expert, in the pool's order.
        seconds: Usual time of one call of each; None where unknown.
        encoder: Tells the kind of a question; needed where the knowledge has kinds.
        price: Quality given up for the cost of asking everyone, where a request names no `cost_weight`.
        depth: Calls planned ahead.
    """

    cost_weight_range = PRICE_RANGE
    """Prices that are swept and offered; any other can be asked for."""

    def __init__(
        self,
        knowledge: Knowledge,
        costs: Sequence[float],
        *,
        seconds: Sequence[float | None] = (),
        encoder: TextEncoder | None = None,
        price: float = PRICE,
        depth: int = DEPTH,
    ) -> None:
        if len(costs) != len(knowledge.names):
            raise ValueError(f"{len(knowledge.names)} experts, but {len(costs)} costs")
        self.knowledge = knowledge
        self.costs = tuple(float(cost) for cost in costs)
        self.encoder = encoder
        self.price = price
        self.depth = depth
        self._seconds_given = tuple(seconds)
        self._cost = np.asarray(self.costs)
        self._total = float(self._cost.sum()) or 1.0
        self._seconds = np.array([s or 0.0 for s in seconds] or [0.0] * len(costs))
        self._position = {name: i for i, name in enumerate(knowledge.names)}
        self._everyone = np.arange(len(costs))
        self._begin()

    def _begin(self) -> None:
        self._trees: LastUsed[tuple[Any, ...], Tree] = LastUsed(_TREES)
        self._worths: LastUsed[tuple[Any, ...], Worth] = LastUsed(_WORTHS)
        self._named: npt.NDArray[np.float32] | None = None
        self._lock = threading.RLock()

    @property
    def cost_weight(self) -> float:
        """The price of cost where a request names none."""
        return self.price

    @property
    def decides_at_once(self) -> bool:
        """Is a decision too short for a thread: no sentence to encode, no large tree?"""
        known = self.knowledge
        small = len(self.names) <= _AT_ONCE and self.depth <= DEPTH
        return small and (self.encoder is None or len(known.logit) == 1)

    @property
    def fingerprint(self) -> str:
        """Changes when a decision may change."""
        known = self.knowledge
        parts = [known.logit, known.never, known.chance, self._cost, self._seconds]
        parts += [known.transfer.right_shift, known.transfer.wrong_shift]
        parts += [] if known.copies is None else [known.copies]
        parts += [] if known.kinds is None else [*known.kinds.arrays.values()]
        plain = (
            self.names,
            self.price,
            self.depth,
            known.comparable,
            known.kind_names,
            known.spread,
        )
        digest = hashlib.sha256(repr(plain).encode())
        for array in parts:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    @property
    def names(self) -> tuple[str, ...]:
        """The experts, in order."""
        return self.knowledge.names

    @classmethod
    def from_prior(cls, names: Sequence[str], costs: Sequence[float], **settings: Any) -> Planner:
        """A planner for a pool of which nothing but sizes, prices or hints is known.

        Args:
            names: The experts.
            costs: Price of one call of each.
            settings: `sizes` and `hints` as in `Knowledge.from_prior`; the rest as for the class.
        """
        known = {key: settings.pop(key) for key in ("sizes", "hints") if key in settings}
        return cls(Knowledge.from_prior(names, costs, **known), costs, **settings)

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        costs: Sequence[float],
        questions: Sequence[str],
        qualities: npt.ArrayLike,
        values: Sequence[Sequence[str | None]],
        **settings: Any,
    ) -> Planner:
        """A planner that learns from questions, few or many.

        Args:
            names: The experts.
            costs: Price of one call of each.
            questions: Training questions.
            qualities: (questions, experts) of each expert's own answer; NaN unknown.
            values: What each answer comes to.
            settings: `seconds`, `price` and `depth` as for the class; the rest as for `fit_knowledge`.
        """
        own = {key: settings.pop(key) for key in ("seconds", "price", "depth") if key in settings}
        known = fit_knowledge(names, costs, questions, qualities, values, **settings)
        return cls(known, costs, encoder=settings.get("encoder"), **own)

    def check_pool(self, names: Sequence[str]) -> None:
        """Check that the experts are those that are known, in this order; and make the largest trees.

        Raises:
            AgentPoolMismatchError: If they are not.
        """
        check_same("the planner was made", self.names, names)
        self.prepare()

    def for_pool(self, names: Sequence[str], costs: Sequence[float]) -> Planner:
        """The planner for some of its experts, in any order, at present prices."""
        if tuple(names) == self.names and np.allclose(costs, self.costs):
            return self
        given = dict(zip(self.names, self._seconds_given, strict=False))
        planner = Planner(
            self.knowledge.take(names),
            costs,
            seconds=[given.get(name) for name in names],
            encoder=self.encoder,
            price=self.price,
            depth=self.depth,
        )
        planner.prepare()
        return planner

    def with_name(self, old: str, new: str) -> Planner:
        """The same planner, which knows an expert under another name."""
        names = tuple(new if name == old else name for name in self.names)
        return Planner(
            replace(self.knowledge, names=names, _tables={}),
            self.costs,
            seconds=self._seconds_given,
            encoder=self.encoder,
            price=self.price,
            depth=self.depth,
        )

    def prepare(self) -> None:
        """Make the trees of the first decision."""
        if len(self.names) <= WIDTH:
            for kind in range(len(self.knowledge.logit)):
                self._tree(kind, (), self._everyone, self.depth)

    def update(self, knowledge: Knowledge) -> None:
        """Know better from now on: the same experts, other skills."""
        fresh = Planner(knowledge, self.costs, seconds=self._seconds_given, depth=self.depth)
        fresh.prepare()  # here, and not in the next request
        with self._lock:
            self.knowledge = knowledge
            self._trees, self._worths = fresh._trees, fresh._worths

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation; new questions are encoded as one batch."""
        kinds = self.kinds_of([seen.question for seen in situations])
        return [self._choice(seen, kind) for seen, kind in zip(situations, kinds, strict=True)]

    def kinds_of(self, questions: Sequence[str]) -> list[int]:
        """The kind of each question, by number."""
        known = self.knowledge
        if self.encoder is None or len(known.logit) == 1:
            return [0] * len(questions)
        if known.kinds is not None:
            return known.kinds.of(questions, self.encoder)
        if self._named is None:
            self._named = self.encoder.encode(list(known.kind_names))
        nearest = (self.encoder.encode(list(questions)) @ self._named.T).argmax(axis=1)
        return [int(kind) for kind in nearest]

    def _choice(self, seen: Situation, kind: int) -> Choice:
        price = max(0.0, self.price if seen.cost_weight is None else seen.cost_weight)
        told = read_route(seen.answers, self._position, self.knowledge.never[kind])
        mask = np.array(seen.mask[:-1], dtype=np.bool_)
        left = seen.max_steps - len(good_answers(seen.answers))
        experts, worth = self._worth(seen, kind, told, mask, price, left)
        end = worth.end if seen.mask[-1] else -np.inf
        best = len(self.names)
        value = end
        order = np.lexsort((experts, self._cost[experts]))
        for k in order.tolist():
            if worth.ask[k] > value + _TIE:
                best, value = int(experts[k]), float(worth.ask[k])
        if not np.isfinite(value):  # all that may be asked has been asked before
            best, value = int(np.flatnonzero(seen.mask)[0]), worth.end
        return Choice(
            index=best,
            probabilities=probabilities(seen.mask, experts, worth.ask, end, best),
            value=float(value),
            cost_weight=price,
            explanation=explanation_of(
                self.knowledge, kind, best, experts, worth, value, seen.mask[-1]
            ),
        )

    def _worth(
        self,
        seen: Situation,
        kind: int,
        told: tuple[Told, ...],
        mask: npt.NDArray[np.bool_],
        price: float,
        left: int,
    ) -> tuple[Ints, Worth]:
        """What each candidate and ending are worth."""
        whole = len(self.names) <= WIDTH
        deepest = self.depth if whole else min(self.depth, _SHALLOW)
        depth = max(1, min(left, max(2, deepest - len(told))))
        experts = (
            self._everyone
            if whole
            else candidates(
                self.knowledge.tables(kind), told, mask, self._cost / self._total, price
            )
        )
        budget = (
            np.inf if seen.max_cost is None else seen.max_cost * (1 + COST_TOLERANCE) - seen.spent
        )
        time = np.inf if seen.deadline_left is None else seen.deadline_left
        allowed = mask[experts]
        key = (kind, told, experts.tobytes(), depth, price, budget, time, allowed.tobytes())
        with self._lock:
            found = self._worths.known([key]).get(key)
            if found is None:
                tree = self._tree(kind, told, experts, depth)
                found = tree.solve(price / self._total, Bounds(allowed, budget, time))
                if np.isinf(time):  # what is left of a deadline is never the same again
                    self._worths.remember({key: found})
        return experts, found

    def _tree(self, kind: int, told: tuple[Told, ...], experts: Ints, depth: int) -> Tree:
        key = (kind, told, experts.tobytes(), depth)
        with self._lock:
            found = self._trees.known([key]).get(key)
            if found is None:
                found = Tree(
                    self.knowledge.tables(kind),
                    told,
                    experts,
                    self._cost[experts],
                    self._seconds[experts],
                    depth,
                )
                self._trees.remember({key: found})
        return found
