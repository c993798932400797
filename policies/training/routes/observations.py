"""A route tree as tensors: what the network would see at every route, and what its choices would bring.

    question, request (price, budget, steps, prices of experts) ──> masks, observations at every inner route
    probabilities of the choices ──summed from the end of the tree to its beginning──> expected utility

Differentiable in the probabilities, so the exact gradient of the utility is there without sampling.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from der_graph.policies.observation import FeatureNames
from der_graph.policies.training.routes.tree import RouteTree

Floats = npt.NDArray[np.float32]

_NOTHING = 0.02  # what asking an expert costs that the tree has left out, beside its price


class Requests(NamedTuple):
    """What questions are asked with; tensors with a row per question.

    Attributes:
        price: (n,) price of cost.
        steps: (n,) longest route.
        budget: (n,) in shares of the cost of asking everyone; inf for none.
        present: bool, (n, experts) may the expert be asked?
        share: (n, experts) price of one call in shares of the cost of asking everyone.
    """

    price: torch.Tensor
    steps: torch.Tensor
    budget: torch.Tensor
    present: torch.Tensor
    share: torch.Tensor

    @classmethod
    def plain(cls, price: torch.Tensor, steps: int, share: torch.Tensor) -> Requests:
        """Requests with a price and nothing else."""
        n, experts = len(price), len(share)
        return cls(
            price,
            torch.full((n,), steps),
            torch.full((n,), torch.inf),
            torch.ones(n, experts, dtype=torch.bool),
            share.expand(n, experts),
        )


class TreeObservations:
    """The observations of a tree's inner routes for any request.

    Args:
        tree: Routes and outcomes.
        base: (questions, inner routes, size): observations without bounds, at any price.
        features: Names of the features, in order.
        context: Number of context features C.
        costs: Price of one call of each expert.
        dims: Where the question features are: (first, number).
        steps: Longest route of a request without bounds; that of the tree where left out.
        total: Cost of asking everyone in the pool; the tree's experts may be some of them.
    """

    def __init__(
        self,
        tree: RouteTree,
        base: Floats,
        features: FeatureNames,
        context: int,
        costs: Sequence[float],
        dims: tuple[int, int],
        steps: int | None = None,
        total: float | None = None,
    ) -> None:
        self.tree = tree
        self.steps = steps or tree.longest
        self.base = torch.from_numpy(base)
        self.rows = torch.arange(base.shape[1])  # of the inner routes in `base`
        self.dims = dims
        total = max(sum(costs) if total is None else total, 1e-12)
        self.share = torch.tensor(costs, dtype=torch.float32) / total
        inner = tree.inner
        self.inner = torch.from_numpy(inner)
        self.depth = torch.from_numpy(tree.depth[inner])
        self.children = torch.from_numpy(tree.children[inner])
        self.answered = torch.from_numpy(tree.answered[:, inner])
        self.may_end = torch.from_numpy(tree.may_end[:, inner])
        self.quality = torch.from_numpy(tree.quality)
        self.paid = torch.from_numpy(
            tree.cost / total
        )  # of the last call, at the prices of training
        self.cut = torch.zeros(
            len(tree.routes), dtype=torch.bool
        )  # of the inner routes those left out
        self.asked = torch.zeros(len(inner), tree.experts)
        for i, route in enumerate(inner):
            self.asked[i, list(tree.routes[route])] = 1.0
        self._state = {name: i for i, name in enumerate(features.state)}
        columns = len(features.expert)
        self._expert = {
            name: slice(context + i, context + columns * tree.experts, columns)
            for i, name in enumerate(features.expert)
        }

    def part(self, kept: torch.Tensor) -> TreeObservations:
        """The same for some of the inner routes: the others end where they are, or badly if they may not.

        Args:
            kept: Positions among the inner routes, rising; with each route those that lead to it, where
                `values` is wanted.
        """
        some = copy.copy(self)
        some.cut = self.cut.clone()
        some.cut[self.inner] = True
        some.cut[self.inner[kept]] = False
        some.rows = self.rows[kept]
        some.answered, some.may_end = self.answered[:, kept], self.may_end[:, kept]
        for name in ("inner", "depth", "children", "asked"):
            setattr(some, name, getattr(self, name)[kept])
        return some

    def reached(self, probabilities: torch.Tensor) -> torch.Tensor:
        """(n, inner routes): how probably each inner route is come to.

        Args:
            probabilities: (n, inner routes, experts + 1) of the choices.
        """
        at = {int(route): i for i, route in enumerate(self.inner)}
        found = torch.zeros(probabilities.shape[:2])
        found[:, 0] = 1.0
        for i, children in enumerate(self.children.tolist()):  # parents before children
            for expert, child in enumerate(children):
                if child in at:
                    found[:, at[child]] = found[:, i] * probabilities[:, i, expert]
        return found

    def masks(self, questions: torch.Tensor, requests: Requests) -> torch.Tensor:
        """Which choices the rules allow: bool, (n, inner routes, experts + 1).

        Args:
            questions: (n,).
            requests: Theirs.
        """
        spent = requests.share @ self.asked.T  # (n, inner)
        fits = spent[:, :, None] + requests.share[:, None] <= requests.budget[:, None, None] + 1e-6
        early = self.answered[questions] < requests.steps[:, None]
        allowed = fits & early[:, :, None] & requests.present[:, None] & (self.asked == 0)[None]
        end = (self.depth > 0) & (self.may_end[questions] | ~allowed.any(dim=2))
        return torch.cat([allowed, end[:, :, None]], dim=2)

    def observe(
        self, questions: torch.Tensor, requests: Requests, masks: torch.Tensor
    ) -> torch.Tensor:
        """(n, inner routes, size): what the network sees of some questions with their requests."""
        seen = self.base[questions[:, None], self.rows]
        state, steps, done = self._state, requests.steps[:, None], self.answered[questions]
        spent = requests.share @ self.asked.T
        left = torch.clamp(requests.budget[:, None] - spent, 0.0, 1.0)
        values = {
            "step": done / steps,
            "steps_left": (steps - done == 1).float(),
            "calls_left": torch.clamp((steps - done) / 5.0, 0.0, 1.0),
            "log_price": torch.log10(requests.price.clamp(min=1e-4))[:, None].expand_as(spent),
            "spent": spent,
            "budget_left": left,
        }
        for name, value in values.items():
            if name in state:
                seen[:, :, state[name]] = value
        charge = (requests.price[:, None] * requests.share)[:, None].expand(-1, len(self.depth), -1)
        seen[:, :, self._expert["charge"]] = charge
        seen[:, :, self._expert["allowed"]] = masks[:, :, :-1].float()
        return seen

    def values(
        self,
        questions: torch.Tensor,
        requests: Requests,
        masks: torch.Tensor,
        probabilities: torch.Tensor,
    ) -> torch.Tensor:
        """What routes bring in expectation, from each inner route on: (n, inner routes).

        Args:
            questions: (n,).
            requests: Theirs.
            masks: Theirs; a route from which nothing but END is allowed has ended.
            probabilities: (n, inner routes, experts + 1).
        """
        quality, tree = self.quality[questions], self.tree
        # At the prices of the request: what a call cost, by how much its expert has changed its price.
        ratio = requests.share / self.share.clamp(min=1e-9)
        # Who is cut off where there is no answer yet loses more than asking everyone in vain would cost.
        stuck = self.cut & torch.from_numpy(~tree.may_end)[questions]
        worth = torch.where(stuck, -1.0 - requests.price[:, None], quality)  # (n, routes)
        found = torch.zeros(len(questions), len(self.depth))
        for depth in range(int(self.depth.max()), -1, -1):
            at = torch.nonzero(self.depth == depth).ravel()
            children = self.children[at]
            here = quality[:, self.inner[at]]
            after = worth[:, children.clamp(min=0)]
            paid = self.paid[questions][:, children.clamp(min=0)] * ratio[:, None]
            unknown = (
                here[:, :, None]
                - _NOTHING
                - requests.share[:, None] * requests.price[:, None, None]
            )
            known = after - paid * requests.price[:, None, None]
            choices = torch.where(children[None] >= 0, known, unknown)
            chance = probabilities[:, at]
            value = (chance[:, :, :-1] * choices).sum(dim=2) + chance[:, :, -1] * here
            found = found.index_copy(1, at, value)
            worth = worth.index_copy(1, self.inner[at], value)
        assert tree.routes[0] == ()
        return found
