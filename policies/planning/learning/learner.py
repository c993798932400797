r"""The planner that learns while it serves.

    decide ──> experts ──> ended(route) ──> store <── rate(route, score) of any process
       ^                                      │ every few routes, or seconds
       └──────────── skills <────relearn──────┘

Every process learns from the same routes in the same way, so all come to the same skills. Nothing is learnt
in the request: a thread of its own keeps routes and learns. Exploring asks, now and then, an expert first of
whom little is known, within a share of what is spent.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from langgraph.store.base import BaseStore

from der_graph.errors import BudgetError, DataError
from der_graph.nodes.decision import Choice, RoutingAgent
from der_graph.nodes.providers.secrets import mask_secrets
from der_graph.nodes.reliability.copying import renew_in_children
from der_graph.policies.planning.belief import Told
from der_graph.policies.planning.forms import read_route
from der_graph.policies.planning.knowledge import Knowledge
from der_graph.policies.planning.learning.relearning import Served, relearn
from der_graph.policies.planning.learning.route_store import (
    KEEP,
    Kept,
    Memory,
    checked_score,
    open_store,
)
from der_graph.policies.planning.planner import Planner
from der_graph.policies.planning.tables import mean_skill
from der_graph.state import Answer, Situation, good_answers

Judge = Callable[[str, str], float]
"""Says how good an answer is, in [0, 1]: question and answer in."""

_EVERY = 25  # routes after which skills are learnt anew
_SECONDS = 30.0  # after which other processes' routes are read
_PAUSE = 30.0  # seconds after which a store that could not be written is tried again
_LAST_TRY = 5.0  # seconds that the end of a server waits for its store
# Of a value that a store can never take; the last two as databases name theirs (PEP 249).
_NEVER_TAKEN = {"ValueError", "TypeError", "DataError", "IntegrityError"}
log = logging.getLogger("der_graph.learning")


class Learner:
    """A planner that learns from the routes that it served.

    Args:
        planner: What is known to begin with; stays the prior.
        store: A LangGraph store that is used synchronously, or the path of a SQLite file.
        explore: Share of all cost that may be spent on asking an expert first of whom little is known.
        acting: Shadow mode: this agent decides; what the planner would have chosen is noted and compared.
        judge: Scores a sample of final answers, in a thread of its own.
        judge_share: Share of the routes that it scores.
        seed: Of what is drawn.

    Raises:
        BudgetError: If a share is not from 0 to 1.
        DataError: If a file or database is of another pool, or the store cannot be used.
    """

    def __init__(
        self,
        planner: Planner,
        store: BaseStore | str | os.PathLike[str],
        *,
        explore: float = 0.0,
        acting: RoutingAgent | None = None,
        judge: Judge | None = None,
        judge_share: float = 0.05,
        seed: int = 0,
    ) -> None:
        for name, share in (("explore", explore), ("judge_share", judge_share)):
            if not 0 <= share <= 1:
                raise BudgetError(f"{name} is {share}; it is a share, from 0 to 1")
        self.planner = planner
        self._store = store
        shared = isinstance(store, BaseStore)
        self.memory = Memory(open_store(store), planner.names, shared=shared)
        self.explore = explore
        self.acting = acting
        self._judge, self._judge_share = judge, judge_share
        self._base: Knowledge = planner.knowledge
        # one for each thread that draws: a generator is not safe to share
        self._exploring_rng, self._judging_rng = np.random.default_rng(seed).spawn(2)
        self._spent = self._explored = 0.0
        self._since, self._read = 0, 0.0
        self._compared = {"decisions": 0, "same": 0, "planner_expects_more": 0.0}
        self._employ()
        renew_in_children(self._employ)
        self._work.submit(self._learn)

    def _employ(self) -> None:
        self._lock = threading.Lock()
        self._work = ThreadPoolExecutor(1, "der-learning")
        self._waiting: deque[Kept] = deque(maxlen=KEEP)  # routes that the store does not hold yet
        self._again = 0.0  # when it is tried again

    def __deepcopy__(self, memo: dict[int, Any]) -> Learner:
        """Itself: what it knows is in its store, which a copy would share."""
        return self

    def __reduce__(self) -> Any:
        settings: dict[str, Any] = {"explore": self.explore, "acting": self.acting}
        settings |= {"judge": self._judge, "judge_share": self._judge_share}
        start = copy.copy(self.planner)
        start.knowledge = self._base
        return partial(Learner, start, self._store, **settings), ()

    @property
    def names(self) -> tuple[str, ...]:
        """The experts, in order."""
        return self.planner.names

    @property
    def alone(self) -> Sequence[str]:
        """Experts that the acting agent wants to be shown no earlier answer."""
        return tuple(getattr(self.acting, "alone", ()))

    @property
    def encoder(self) -> Any:
        """Tells the kind of a question; None for one kind."""
        return self.planner.encoder

    @property
    def cost_weight(self) -> float:
        """The price of cost where a request names none."""
        return self.planner.cost_weight

    @property
    def cost_weight_range(self) -> tuple[float, float]:
        """Prices that are offered."""
        return self.planner.cost_weight_range

    @property
    def decides_at_once(self) -> bool:
        """Is a decision too short for a thread?"""
        return self.acting is None and self.planner.decides_at_once

    def check_pool(self, names: Sequence[str]) -> None:
        """Check that the experts are those that are known, in this order."""
        self.planner.check_pool(names)
        if self.acting is not None:
            self.acting.check_pool(names)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation."""
        pairs = zip(self.planner.decide(situations), situations, strict=True)
        planned = [self._exploring(choice, seen) for choice, seen in pairs]
        if self.acting is None:
            return planned
        acting = self.acting.decide(situations)
        return [self._compare(*pair) for pair in zip(acting, planned, strict=True)]

    def ended(self, key: str, question: str, answers: Sequence[Answer]) -> None:
        """Note a route that has ended; returns at once."""
        with self._lock:
            self._spent += sum(answer["cost"] for answer in answers)
        self._work.submit(self._keep, key, question, list(answers))

    def rate(self, key: str, score: float) -> None:
        """Note what a user said of a route, of whichever process.

        Args:
            key: Id of the route: the message's (`der-...`), or the completion's.
            score: How good the answer was, from 0 to 1.

        Raises:
            DataError: If there is no such route, or the score is none.
            Exception: Of the store, if it cannot be used.
        """
        self._work.submit(self._rate, key, checked_score(score)).result()

    def flush(self) -> None:
        """Wait until all that was noted is kept, and learn from it."""
        self._again = 0.0
        self._work.submit(self._write).result()
        self._work.submit(self._learn).result()

    def settle(self, seconds: float = _LAST_TRY) -> int:
        """Try a last time to keep the routes that wait, as the process ends; it may go on afterwards.

        Args:
            seconds: Most that it waits for the store.

        Returns:
            How many routes are lost, with a warning.
        """
        self._again = 0.0
        until = time.monotonic() + seconds
        with suppress(TooLate):
            self._work.submit(self._write, until).result(seconds)
        lost = len(self._waiting)
        if lost:
            log.warning("the store could not be written: %d routes are not learnt from", lost)
        return lost

    def skills(self) -> list[dict[str, Any]]:
        """What is believed of each expert on each kind of question, as plain data."""
        known = self.planner.knowledge
        means = mean_skill(known.logit, known.spread)
        before = mean_skill(self._base.logit, self._base.spread)
        return [
            {
                "expert": name,
                "kind": known.kind_names[g] if known.kind_names else g,
                "skill": round(float(means[g, i]), 4),
                "before": round(float(before[g, i]), 4),
                "source": known.source[g][i],
                "log_odds": float(known.logit[g, i]),
                "standard_error": round(float(known.precision[g, i] ** -0.5), 4),
            }
            for g in range(len(known.logit))
            for i, name in enumerate(known.names)
        ]

    def comparison(self) -> dict[str, float]:
        """How the planner in the shadow differs from the agent that acts, in this process.

        Returns:
            `decisions`; `same`, the share that are the same; `planner_expects_more`, by how much the planner
            expects its own choice to be better where they differ, in quality after price.
        """
        with self._lock:
            seen = dict(self._compared)
        differ = seen["decisions"] - seen["same"]
        return {
            "decisions": seen["decisions"],
            "same": seen["same"] / max(seen["decisions"], 1),
            "planner_expects_more": seen["planner_expects_more"] / max(differ, 1),
        }

    def _exploring(self, choice: Choice, seen: Situation) -> Choice:
        """Perhaps another expert first: one that is known least, if the budget of exploring pays."""
        if not self.explore or seen.answers or self.acting is not None:
            return choice
        kind = self.planner.kinds_of([seen.question])[0]
        precision = np.where(seen.mask[:-1], self.planner.knowledge.precision[kind], np.inf)
        known_least = np.flatnonzero(precision <= precision.min() * 1.5)
        with self._lock:
            expert = int(self._exploring_rng.choice(known_least))
            cost = self.planner.costs[expert]
            if expert == choice.index or self._explored + cost > self.explore * self._spent:
                return choice
            self._explored += cost
        known, name = self.planner.knowledge, self.names[expert]
        told = {
            **(choice.explanation or {}),
            "explored": True,
            "why": f"exploring: little is known of {name} on such questions",
            "source": known.source[kind][expert],
            "skill": round(float(mean_skill(known.logit[kind][[expert]], known.spread)[0]), 3),
        }
        told.pop("expected_gain", None)  # that of the choice that was not taken
        sure = [float(i == expert) for i in range(len(choice.probabilities))]
        return replace(choice, index=expert, probabilities=sure, value=None, explanation=told)

    def _compare(self, acting: Choice, planned: Choice) -> Choice:
        names = [*self.names, "END"]
        other = names[planned.index]
        worth = (planned.explanation or {}).get("worth", {})
        gain = worth.get(other, 0.0) - worth.get(names[acting.index], worth.get(other, 0.0))
        with self._lock:
            self._compared["decisions"] += 1
            self._compared["same"] += acting.index == planned.index
            self._compared["planner_expects_more"] += gain if acting.index != planned.index else 0.0
        shadow = {"shadow": {"choice": other, "why": (planned.explanation or {}).get("why", "")}}
        return replace(acting, explanation={**(acting.explanation or {}), **shadow})

    def _keep(self, key: str, question: str, answers: list[Answer]) -> None:
        """In the thread of learning: keep a route, and learn where enough is new."""
        try:
            kind = self.planner.kinds_of([question])[0]
            position = {name: i for i, name in enumerate(self.names)}
            told = read_route(answers, position, self._base.never[kind])
            if not told:
                return
            named = tuple((self.names[t.expert], t.value, t.step) for t in told)
            score = None
            if self._judge is not None and self._judging_rng.random() < self._judge_share:
                score = min(
                    1.0, max(0.0, float(self._judge(question, good_answers(answers)[-1]["text"])))
                )
        except Exception as error:  # learning must not end serving
            log.warning("a route was not learnt from: %s: %s", type(error).__name__, error)
            return
        self._waiting.append(Kept(key, self.memory.now(), kind, named, score))
        if self._write() and (self._since >= _EVERY or time.monotonic() - self._read > _SECONDS):
            self._learn()

    def _write(self, until: float = float("inf")) -> bool:
        """In the thread of learning: give the store what it does not hold yet; says if all is there.

        A store that is locked, full or away is left alone for a while: each try may take seconds, which
        feedback, and the end of the process, would wait for. A route that it can never take is dropped.

        Args:
            until: When to leave off.
        """
        if time.monotonic() < self._again:
            return False
        while self._waiting and time.monotonic() < until:
            try:
                self.memory.add(self._waiting[0])
                self._since += 1
            except Exception as error:
                told = mask_secrets(f"{type(error).__name__}: {error}")
                if not _NEVER_TAKEN & {kind.__name__ for kind in type(error).__mro__}:
                    self._again = time.monotonic() + _PAUSE
                    log.warning(
                        "what is learnt from cannot be written (%s); tried again in %.0f s, %d routes wait",
                        told,
                        _PAUSE,
                        len(self._waiting),
                    )
                    return False
                log.warning("a route was not learnt from, as the store cannot take it: %s", told)
            self._waiting.popleft()
        return not self._waiting

    def _rate(self, key: str, score: float) -> None:
        """In the thread of learning, as the route may have just ended."""
        written = self._write()
        for i, route in enumerate(self._waiting):
            if route.key == key:
                self._waiting[i] = route._replace(score=score)
                return
        if not written:
            raise TimeoutError(
                "the store could not be written just now, and is left alone for a while"
            )
        try:
            self.memory.rate(key, score)
        except DataError:  # there is no such route; the store is well
            raise
        except Exception:
            self._again = time.monotonic() + _PAUSE
            raise

    def _learn(self) -> None:
        """In the thread of learning: skills by all routes of the store."""
        self._since, self._read = 0, time.monotonic()
        try:
            routes = self.memory.routes()
            at = {name: i for i, name in enumerate(self.names)}
            kinds = len(self._base.logit)
            served = [
                Served(r.kind, tuple(Told(at[e], v, f) for e, v, f in r.told), r.score)
                for r in routes
                if r.kind < kinds
            ]
            self.planner.update(relearn(self._base, served, self.planner.knowledge))
        except Exception as error:
            log.warning("nothing was learnt: %s: %s", type(error).__name__, error)
