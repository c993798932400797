"""Learning over a route tree: the routing network follows the exact gradient of what its routes bring.

    tree, request (price, budget, steps, prices of experts) ──network──> probabilities at every route
        ──summed over the tree──> expected utility of the question ──gradient──> network

PPO estimates this gradient from sampled routes; where the outcome of every route is known there is nothing to
sample, and a chain of three experts of which the first two answer nothing useful is found at once. The
network first learns the choices of a teacher (`backward_induction`), then improves on them; routes that it
hardly comes to any more are then let go, which leaves a small part of a large tree. Requests are drawn anew
for every question and pass, so one network serves every price and bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from der_graph.policies.agent.network import FixedHead
from der_graph.policies.observation.price_of_cost import PRICE_RANGE
from der_graph.policies.training.routes.induction import Worth
from der_graph.policies.training.routes.observations import Requests, TreeObservations

_SHARP = 4.0  # scores of the network in training, times this, are logits
_UNIT = 0.2  # utility that counts as one score
_ATTEMPTS = 4  # at imitating the teacher
_NEAR = 0.005  # utility by which a good imitation may be behind
_CHANCE = 0.1  # as much, for one question; it falls with the root of their number
_COMPARED = 200  # questions on which that is told
_GUESSED = 4  # the critic learns from every so many-th route of a batch
_ALIKE = 30  # routes of one length that are imitated in one update, at most
_NARROWED = (0.1, 0.35)  # when routes that are hardly come to are let go, in shares of all updates
_LET_GO = 0.01  # probability of coming to any of these
_WORST = -0.5  # a choice that is worse than the best one by more need not be told from others


@dataclass(frozen=True)
class TreeSettings:
    """How to learn over a tree.

    Attributes:
        imitation: Updates that imitate the teacher; as many again, up to three times, while it does worse
            than the teacher.
        following: Updates that follow the gradient, at least.
        passes: Times that every question is seen while following the gradient, at least.
        most: Updates that follow the gradient, at most.
        batch: Questions in a batch.
        rate: Learning rate of Adam while following the gradient; falls linearly.
        decay: Weight decay.
        noise: Deviation of the noise on question features, in their standard deviations: few questions
            must not be told apart too finely.
        price_range: Prices drawn, log-uniformly.
        evenly: Share of the requests whose price is drawn evenly instead: high prices are few on a log scale,
            and it is there that a wrong choice costs most.
        budget_share: Share of the requests with a budget.
        short_share: Share with fewer steps.
        part_share: Share with some experts left out.
        repriced_share: Share with other prices of the experts.
        seed: Of requests, batches and noise.
    """

    imitation: int = 330
    following: int = 330
    passes: int = 70
    most: int = 1_000
    batch: int = 50
    rate: float = 1e-3
    decay: float = 0.02
    noise: float = 0.5
    price_range: tuple[float, float] = PRICE_RANGE
    budget_share: float = 0.1
    short_share: float = 0.2
    evenly: float = 0.4
    part_share: float = 0.15
    repriced_share: float = 0.15
    seed: int = 0


class Stopped(Exception):
    """Learning was told to stop."""


class TreeLearner:
    """Teaches a network over a tree.

    Args:
        network: With an output for every expert; changed in place.
        observations: Of the tree.
        settings: How.
        left_out: Positions of questions that it does not learn from.

    Attributes:
        left_out: As given.
    """

    def __init__(
        self,
        network: FixedHead,
        observations: TreeObservations,
        settings: TreeSettings,
        left_out: Sequence[int] = (),
    ) -> None:
        self.network = network
        self.seen = observations
        self.settings = settings
        self._random = torch.Generator().manual_seed(settings.seed)
        self.left_out = torch.tensor(left_out, dtype=torch.long)
        rest = np.setdiff1d(np.arange(len(observations.base)), self.left_out.numpy())
        self._own = torch.from_numpy(rest)
        self._stopped: Callable[[], bool] = lambda: False

    def learn(self, worth: Worth, stopped: Callable[[], bool] = lambda: False) -> None:
        """Imitate the teacher, then follow the gradient.

        Args:
            worth: What the teacher thinks that choices are worth.
            stopped: Asked before each batch; it is left as it is where that says so.

        Raises:
            Stopped: If it did.
        """
        settings = self.settings
        self._stopped = stopped
        self._centre()
        for _ in range(_ATTEMPTS):
            self._update(settings.imitation, 2e-3, 1e-4, lambda some: self._imitate(some, worth))
            # What few questions show of the teacher is too uncertain to be followed closely.
            if self._behind(worth) <= max(_NEAR, _CHANCE / len(self._own) ** 0.5):
                break
        passes = settings.passes * len(self._own) // settings.batch
        updates = min(max(settings.following, passes), max(settings.following, settings.most))
        whole, shares = self.seen, list(_NARROWED)

        def narrow(done: float) -> None:
            if shares and done >= shares[0]:
                shares.pop(0)
                self._narrow()

        self._update(updates, settings.rate, 0.0, self._follow, narrow)
        self.seen = whole
        with torch.no_grad():  # from here on the scores are logits
            last: torch.nn.Linear = self.network.actor[-1]  # type: ignore[assignment]
            last.weight.mul_(_SHARP)
            last.bias.mul_(_SHARP)

    def utility(self, price: float, questions: torch.Tensor | None = None) -> torch.Tensor:
        """(questions,) utility of the most probable choices at a price, once learnt."""
        found = []
        among = torch.arange(len(self.seen.base)) if questions is None else questions
        with torch.no_grad():
            for some in torch.split(among, 200):
                prices = torch.full((len(some),), price)
                requests = Requests.plain(prices, self.seen.steps, self.seen.share)
                masks = self.seen.masks(some, requests)
                observed = self.seen.observe(some, requests, masks)
                scores = self.network.actor(observed).masked_fill(~masks, -torch.inf)
                best = torch.nn.functional.one_hot(scores.argmax(dim=2), scores.shape[2]).float()
                found.append(self.seen.values(some, requests, masks, best)[:, 0])
        return torch.cat(found)

    def _update(
        self,
        count: int,
        rate: float,
        least: float,
        loss_of: Callable[[torch.Tensor], torch.Tensor],
        before: Callable[[float], None] = lambda done: None,
    ) -> None:
        """So many updates; the rate falls linearly to `least`. `before` each gets the share done."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=rate, weight_decay=self.settings.decay
        )
        for turn, some in enumerate(self._batches(count)):
            self._go_on()
            optimizer.param_groups[0]["lr"] = rate * (1 - turn / count) + least
            before(turn / count)
            loss = loss_of(some)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            optimizer.step()

    def _go_on(self) -> None:
        if self._stopped():
            raise Stopped

    def _behind(self, worth: Worth) -> float:
        """How much less utility than the teacher's it has, at the price where that is most."""
        some = self._shuffled()[:_COMPARED]
        wanted = worth.utility[some.numpy()].mean(axis=0)
        return max(
            float(wanted[i]) - float(self.utility(float(worth.prices[i]), some).mean())
            for i in range(0, len(worth.prices), 2)
        )

    def _centre(self) -> None:
        """Begin as if the observations were centred and of unit deviation: large pools saturate tanh."""
        some = self._shuffled()[: self.settings.batch]
        requests = self._draw(len(some))
        observed = self.seen.observe(some, requests, self.seen.masks(some, requests)).flatten(0, 1)
        mean, deviation = observed.mean(dim=0), observed.std(dim=0).clamp(min=0.2)
        with torch.no_grad():
            for layers in (self.network.actor, self.network.critic):
                first: torch.nn.Linear = layers[0]  # type: ignore[assignment]
                first.weight.div_(deviation)
                first.bias.sub_(first.weight @ mean)

    def _shuffled(self) -> torch.Tensor:
        """The questions that it learns from, in a random order."""
        return self._own[torch.randperm(len(self._own), generator=self._random)]

    def _batches(self, count: int) -> Iterator[torch.Tensor]:
        """Batches of questions, every question once before any a second time."""
        left = torch.zeros(0, dtype=torch.long)
        for _ in range(count):
            while len(left) < min(self.settings.batch, len(self._own)):
                left = torch.cat([left, self._shuffled()])
            yield left[: self.settings.batch]
            left = left[self.settings.batch :]

    def _imitate(self, some: torch.Tensor, worth: Worth) -> torch.Tensor:
        at = torch.randint(len(worth.prices), (len(some),), generator=self._random)
        price = torch.from_numpy(worth.prices)[at]
        requests = Requests.plain(price, self.seen.steps, self.seen.share)
        routes = self._some_routes()
        part = self.seen.part(routes)
        allowed = part.masks(some, requests)
        wanted = torch.from_numpy(
            worth.choices[some.numpy()[:, None], routes.numpy()[None], :, at.numpy()[:, None]]
        )
        best = wanted.amax(dim=2, keepdim=True)
        wanted = torch.clamp(wanted - best, min=_WORST) / _UNIT
        observed = self._blurred(part.observe(some, requests, allowed))
        scores = self.network.actor(observed)
        error = ((scores - wanted) ** 2)[allowed].mean()
        loss: torch.Tensor = error + self._guessing(observed, best.squeeze(2))
        return loss

    def _some_routes(self) -> torch.Tensor:
        """Inner routes to imitate at: half of each length, and not too many, as they say nearly the same."""
        depth, found = self.seen.depth, []
        for length in range(int(depth.max()) + 1):
            at = torch.nonzero(depth == length).ravel()
            count = min((len(at) + 1) // 2, _ALIKE)
            found.append(at[torch.randperm(len(at), generator=self._random)[:count]])
        return torch.cat(found)

    def _narrow(self) -> None:
        """Let go of the routes that are hardly come to any more: they take time, and teach nothing."""
        reached = torch.zeros(len(self.seen.depth))
        with torch.no_grad():
            for some in torch.split(self._own, self.settings.batch):
                self._go_on()
                requests = self._draw(len(some))
                masks = self.seen.masks(some, requests)
                scores = self.network.actor(self.seen.observe(some, requests, masks)) * _SHARP
                chances = torch.softmax(scores.masked_fill(~masks, -1e9), dim=2)
                reached += self.seen.reached(chances).sum(dim=0) / len(self._own)
        # No route is come to more often than the one that it goes on from; where as often, it goes first.
        order = torch.from_numpy(np.lexsort((-self.seen.depth.numpy(), reached.numpy())))
        kept = order[torch.cumsum(reached[order], dim=0) > _LET_GO]
        self.seen = self.seen.part(torch.sort(kept).values)

    def _follow(self, some: torch.Tensor) -> torch.Tensor:
        requests = self._draw(len(some))
        masks = self.seen.masks(some, requests)
        observed = self._blurred(self.seen.observe(some, requests, masks))
        scores = (self.network.actor(observed) * _SHARP).masked_fill(~masks, -1e9)
        values = self.seen.values(some, requests, masks, torch.softmax(scores, dim=2))
        return self._guessing(observed, values.detach()) - values[:, 0].mean()

    def _guessing(self, observed: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Error of the critic, on some of the routes: it has enough of them."""
        routes = torch.randperm(observed.shape[1], generator=self._random)
        routes = routes[: max(1, len(routes) // _GUESSED)]
        guessed = self.network.critic(observed[:, routes]).squeeze(2)
        loss: torch.Tensor = (guessed - values[:, routes]).square().mean()
        return loss

    def _blurred(self, observed: torch.Tensor) -> torch.Tensor:
        first, dims = self.seen.dims
        if not self.settings.noise or not dims:
            return observed
        part = observed[:, :, first : first + dims]
        deviation = part.std(dim=(0, 1), keepdim=True)
        noise = torch.randn(len(part), 1, dims, generator=self._random)
        observed[:, :, first : first + dims] = part + self.settings.noise * deviation * noise
        return observed

    def _prices(self, n: int) -> torch.Tensor:
        settings, random = self.settings, self._random
        low, high = settings.price_range
        share = torch.rand(n, generator=random)
        evenly = low + share * (high - low)
        on_a_log_scale = torch.exp(np.log(low) + share * (np.log(high) - np.log(low)))
        return torch.where(
            torch.rand(n, generator=random) < settings.evenly, evenly, on_a_log_scale
        )

    def _draw(self, n: int) -> Requests:
        settings, random, seen = self.settings, self._random, self.seen
        price = self._prices(n)
        plain = Requests.plain(price, seen.steps, seen.share)
        share, present = plain.share, plain.present

        def chosen(wanted: float) -> torch.Tensor:
            return torch.rand(n, generator=random) < wanted

        factor = torch.exp(0.5 * torch.randn(share.shape, generator=random))
        moved = share * factor
        # The tree's experts may be some of the pool: together they cost what they did.
        whole = share.sum(dim=1, keepdim=True) / moved.sum(dim=1, keepdim=True).clamp(min=1e-9)
        moved = moved * whole
        share = torch.where(chosen(settings.repriced_share)[:, None], moved, share)
        stays = torch.rand(share.shape, generator=random) < 0.6
        stays |= ~stays.any(dim=1, keepdim=True)
        present = ~chosen(settings.part_share)[:, None] | stays
        steps = torch.randint(1, max(2, seen.steps), (n,), generator=random)
        steps = torch.where(chosen(settings.short_share), steps, plain.steps)
        cheapest = torch.where(present, share, torch.inf).amin(dim=1).clamp(min=1e-6)
        top = torch.log(torch.clamp(1.0 / cheapest, min=1.0))
        budget = cheapest * torch.exp(torch.rand(n, generator=random) * top) * (1 + 1e-6)
        budget = torch.where(chosen(settings.budget_share), budget, torch.inf)
        return Requests(price, steps, budget, present, share)
