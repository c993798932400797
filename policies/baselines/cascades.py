"""The best agreement cascades: for each kind of question and each price of cost, whom to ask until two agree.

    first answers ──clusters of questions, every order of up to four experts──> the order worth most

A cascade asks its experts in turn until an answer has the value of an earlier one, or the order is through;
the last answer counts. The best order is found by trying all of them on training questions. That has few
degrees of freedom, so it hardly overfits: a strong baseline, and a good policy to begin training from
(`der_graph.policies.training.warm_start`). Experts are taken to answer without reading each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from der_graph.errors import DataError
from der_graph.nodes.decision import Choice
from der_graph.policies.baselines.routers import scikit_learn
from der_graph.policies.baselines.simple import Baseline, certain
from der_graph.policies.observation import TextEncoder
from der_graph.policies.observation.price_of_cost import PRICE
from der_graph.state import Situation, good_answers

Floats = NDArray[np.float64]

PRICES: tuple[float, ...] = tuple(np.geomspace(0.01, 4.0, 24).tolist())
"""Prices of cost that a plan is made for; a request takes the nearest."""
_REMEMBERED = 50_000  # questions whose cluster is kept


class BestCascades(Baseline):
    """For each cluster of questions and each price, the agreement cascade that was best in training.

    Args:
        names: The pool's experts.
        costs: Their costs.
        encoder: Turns questions into vectors.
        clusters: Kinds of questions, found by k-means. More of them overfit.
        longest: Most experts in a cascade; all orders are tried, so the time grows like
            `experts ** longest`. A request with a smaller `max_steps` has cascades of its own.
        experts: Only so many experts are tried, the ones worth most by themselves at some price.
        price: Where a request names no `cost_weight`: quality given up for the cost of asking everyone.
    """

    def __init__(
        self,
        names: Sequence[str],
        costs: Sequence[float],
        encoder: TextEncoder,
        *,
        clusters: int = 2,
        longest: int = 4,
        experts: int = 12,
        price: float = PRICE,
    ) -> None:
        super().__init__(names, costs)
        self.encoder = encoder
        self.price = price
        self._clusters = clusters
        self._longest = longest
        self._experts = experts
        self._shares = np.asarray(self.costs) / (sum(self.costs) or 1.0)
        self._plans: list[list[list[tuple[int, ...]]]] = []  # by length - 1, cluster, price
        self._known: dict[str, int] = {}

    def fit(
        self,
        questions: Sequence[str],
        qualities: ArrayLike,
        values: Sequence[Sequence[str | None]],
    ) -> BestCascades:
        """Try all cascades on training questions.

        Args:
            questions: (n,) questions.
            qualities: (n, experts) quality of every expert's own answer, in [0, 1].
            values: (n, experts) what each answer comes to (`Answer.value`); None agrees with nobody.

        Returns:
            The baseline itself.

        Raises:
            DataError: If there are no questions, or the shapes do not fit.
            MissingDependencyError: If scikit-learn is not installed.
        """
        table = np.asarray(qualities, dtype=np.float64)
        shape = (len(questions), len(self.names))
        if not len(questions) or table.shape != shape or len(values) != len(questions):
            raise DataError(
                f"qualities of shape {table.shape} and {len(values)} rows of values for {shape[0]} "
                f"questions and {shape[1]} experts; cascades need one of each, and one question at least"
            )
        kmeans = scikit_learn("sklearn.cluster", "cascades by kind of question").KMeans
        count = min(self._clusters, len(set(questions)))
        vectors = self._encode(questions)
        self._kmeans: Any = kmeans(n_clusters=count, n_init=4, random_state=0).fit(vectors)
        member = np.eye(count)[self._kmeans.labels_]
        search = _Search(table, _codes(values), self._shares, member / member.sum(0), self._longest)
        nothing = np.zeros(len(table))
        search.extend((), np.ones(len(table)), nothing, nothing, self._tried(table))
        self._plans = search.plans
        self._known = {}
        return self

    def plan(
        self, question: str, price: float | None = None, max_steps: int | None = None
    ) -> list[str]:
        """Whom to ask for a question, in order, at a price, on a route of at most so many calls."""
        self._assign([question])
        return [self.names[index] for index in self._order(question, price, max_steps)]

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation; new questions are encoded as one batch."""
        self._assign([seen.question for seen in situations])
        return [self._choice(seen) for seen in situations]

    def _choice(self, seen: Situation) -> Choice:
        price = self.price if seen.cost_weight is None else seen.cost_weight
        plan = self._order(seen.question, price, seen.max_steps)
        values = [a["value"] for a in good_answers(seen.answers) if a["value"] is not None]
        wanted = len(self.names)
        if len(values) == len(set(values)):  # nobody agrees
            asked = {answer["expert"] for answer in seen.answers}
            left = [i for i in plan if self.names[i] not in asked and seen.mask[i]]
            wanted = left[0] if left else wanted
        return certain(self.allowed(wanted, seen), seen, price)

    def _assign(self, questions: Sequence[str]) -> None:
        if not self._plans:
            raise DataError("the cascades know no questions yet: call fit first")
        if len(self._known) > _REMEMBERED:
            self._known = {}
        new = [question for question in dict.fromkeys(questions) if question not in self._known]
        if new:
            clusters = self._kmeans.predict(self._encode(new)).tolist()
            self._known.update(zip(new, clusters, strict=True))

    def _order(self, question: str, price: float | None, max_steps: int | None) -> tuple[int, ...]:
        wanted = max(self.price if price is None else price, 1e-9)
        nearest = int(np.abs(np.log(PRICES) - np.log(wanted)).argmin())
        length = min(max_steps or self._longest, self._longest)
        return self._plans[length - 1][self._known[question]][nearest]

    def _tried(self, table: Floats) -> list[int]:
        """The experts worth most by themselves, each at the price that suits it, in the pool's order."""
        worth = table.mean(0)[:, None] - self._shares[:, None] * np.array(PRICES)
        behind = (worth.max(0) - worth).min(1)  # the best one, where it is least so
        return sorted(np.argsort(behind, kind="stable")[: self._experts].tolist())

    def _encode(self, questions: Sequence[str]) -> Floats:
        return np.asarray(self.encoder.encode(list(questions)), dtype=np.float64)


class _Search:
    """Tries all orders, an expert more at a time; keeps the best per longest order, cluster and price.

    Args:
        quality: (n, experts).
        codes: (n, experts) equal for equal values of a question; -1 for none.
        shares: (experts,) cost as a share of asking everyone.
        member: (n, clusters) weight of each question in each cluster's mean.
        longest: Most experts in an order.
    """

    def __init__(
        self,
        quality: Floats,
        codes: NDArray[np.int64],
        shares: Floats,
        member: Floats,
        longest: int,
    ) -> None:
        self._quality, self._codes, self._shares = quality, codes, shares
        self._member, self._longest = member, longest
        clusters = member.shape[1]
        self._best = np.full((longest, clusters, len(PRICES)), -np.inf)
        self.plans: list[list[list[tuple[int, ...]]]] = [
            [[()] * len(PRICES) for _ in range(clusters)] for _ in range(longest)
        ]

    def extend(
        self, order: tuple[int, ...], live: Floats, settled: Floats, cost: Floats, tried: list[int]
    ) -> None:
        """Try every expert after an order, and go on from each.

        Args:
            order: Who was asked.
            live: (n,) 1 where nobody agreed yet, else 0.
            settled: (n,) quality where somebody did, else 0.
            cost: (n,) spent so far, as a share of asking everyone.
            tried: Who may be asked.
        """
        after = [index for index in tried if index not in order]
        if not after or not live.any():
            return
        # If the order ended with each of them:
        quality = settled[:, None] + live[:, None] * self._quality[:, after]
        costs = cost[:, None] + live[:, None] * self._shares[after]
        mean_quality, mean_cost = quality.T @ self._member, costs.T @ self._member
        worth = mean_quality[:, :, None] - mean_cost[:, :, None] * np.array(PRICES)
        first = worth.argmax(0)
        better = worth.max(0) > self._best[len(order) :]  # for all routes that it fits in
        for length, cluster, at in np.argwhere(better).tolist():
            length += len(order)
            self._best[length, cluster, at] = worth[first[cluster, at], cluster, at]
            self.plans[length][cluster][at] = (*order, after[first[cluster, at]])
        if len(order) + 1 == self._longest:
            return
        for k, index in enumerate(after):
            mine = self._codes[:, [index]]
            agreed = ((self._codes[:, list(order)] == mine) & (mine >= 0)).any(1)
            ends = live * agreed
            self.extend(
                (*order, index),
                live - ends,
                settled + ends * self._quality[:, index],
                costs[:, k],
                tried,
            )


def _codes(values: Sequence[Sequence[str | None]]) -> NDArray[np.int64]:
    """Equal numbers for equal values of a question; -1 for none."""
    rows = []
    for row in values:
        number: dict[str, int] = {}
        rows.append([-1 if v is None else number.setdefault(v, len(number)) for v in row])
    return np.array(rows, dtype=np.int64)
