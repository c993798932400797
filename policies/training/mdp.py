"""Many routes in lockstep: the Markov decision process of DER, without any library around it.

State s_t = (question, answers so far, t, cost so far); action a_t = an expert or END; transition y_t =
M_a(KTP(x, y_0..y_{t-1})) (paper, section 3.1). All routes take a step together, so that those which chose the
same expert share one batched generation. The training environment and the evaluation both run on it, with
the rules (masks) of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.errors import AllExpertsFailedError, PoolError
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource, Request
from der_graph.state import Answer, DERContext, Situation, good_answers

_LANES = 256
_SLOW_LANES = 4_096


class Advance(NamedTuple):
    """What one step did to each route; arrays of shape (routes,).

    Attributes:
        quality: Quality of the route's present answer, in [0, 1].
        previous: Quality before the step; 0 before the first answer.
        cost: Cost of the step, in the pool's unit; 0 for END.
        first: Was it the route's first call?
        chose_end: Did the agent choose END?
        ended: Is the route over, by END or because no expert is left to ask?
    """

    quality: npt.NDArray[np.float32]
    previous: npt.NDArray[np.float32]
    cost: npt.NDArray[np.float32]
    first: npt.NDArray[np.bool_]
    chose_end: npt.NDArray[np.bool_]
    ended: npt.NDArray[np.bool_]


@dataclass
class Route:
    """One route in progress."""

    example: int
    context: DERContext = field(default_factory=DERContext)
    answers: list[Answer] = field(default_factory=list)
    qualities: list[float] = field(default_factory=list)
    spent: float = 0.0
    seconds: float = 0.0
    quality: float = 0.0
    choices: list[int] = field(default_factory=list)


class Lockstep:
    """A fixed number of routes that take their steps together.

    Args:
        source: Answers and their qualities.
        rules: What is allowed on a route.
        routes: How many run at once.
    """

    def __init__(self, source: AnswerSource, rules: RouteRules, routes: int) -> None:
        self.source = source
        self.rules = rules
        self.routes = [Route(-1) for _ in range(routes)]
        self._masks: list[list[bool]] = [[] for _ in range(routes)]

    def start(self, position: int, example: int, context: DERContext | None = None) -> None:
        """Begin a new route at a position.

        Raises:
            PoolError: If the request has a `ktp` of its own: here the source writes the prompts.
        """
        if context is not None and context.ktp is not None:
            raise PoolError(
                f"ktp={context.ktp!r} cannot be set per request here: AnswerSource(ktp=...)"
            )
        self.routes[position] = Route(example, context or DERContext())
        self._masks[position] = self._mask(self.routes[position])

    def mask(self, position: int) -> list[bool]:
        """Which choices the route at a position has now: one bool per expert, END last."""
        return self._masks[position]

    def situation(self, position: int) -> Situation:
        """What the agent sees of the route at a position."""
        route = self.routes[position]
        context = route.context
        return Situation(
            question=self.source.questions[route.example],
            answers=route.answers,
            mask=self._masks[position],
            spent=route.spent,
            max_steps=self.rules.steps(context.max_steps),
            max_cost=context.max_cost,
            cost_weight=context.cost_weight,
            deadline_left=None if context.deadline is None else context.deadline - route.seconds,
        )

    def advance(self, actions: Sequence[int], positions: Sequence[int] | None = None) -> Advance:
        """Take one step on every route, or on those at some positions.

        Args:
            actions: For each route, an expert's index or N for END; allowed by its mask.
            positions: Which routes; all if left out.

        Raises:
            ValueError: If an action is not allowed.
        """
        where = list(range(len(self.routes))) if positions is None else list(positions)
        end = len(self.rules.names)
        requests: list[Request] = []
        asking: list[int] = []
        for position, action in zip(where, actions, strict=True):
            route = self.routes[position]
            if not self._masks[position][action]:
                raise ValueError(f"choice {action} is not allowed here: {self._masks[position]}")
            route.choices.append(int(action))
            if action != end:
                # The list is replaced, never changed: situations hold on to it.
                requests.append(Request(route.example, int(action), route.answers))
                asking.append(position)
        outcomes = dict(zip(asking, self.source.ask(requests), strict=True))
        rows = []
        for position, action in zip(where, actions, strict=True):
            route = self.routes[position]
            previous, first = route.quality, not route.answers
            if action == end:
                rows.append((route.quality, previous, 0.0, False, True, True))
                continue
            answer, quality = outcomes[position]
            route.answers = [*route.answers, answer]
            route.spent += answer["cost"]
            route.seconds += answer["seconds"]
            if answer["error"] is None:  # a failed call leaves the answer before it standing
                route.quality = quality
            route.qualities.append(route.quality)
            self._masks[position] = mask = self._mask(route)
            rows.append((route.quality, previous, answer["cost"], first, False, not any(mask[:-1])))
        return _advance(rows)

    def _mask(self, route: Route) -> list[bool]:
        try:
            mask, _ = self.rules.mask(
                route.answers, route.context, spent=route.spent, elapsed=route.seconds
            )
        except AllExpertsFailedError:
            # One question that nobody could answer must not end a run of thousands: quality 0.
            return [False] * (len(self.rules.names) + 1)
        return mask


def _advance(rows: list[tuple[float, float, float, bool, bool, bool]]) -> Advance:
    numbers = np.array([row[:3] for row in rows], dtype=np.float32).reshape(-1, 3)
    flags = np.array([row[3:] for row in rows], dtype=np.bool_).reshape(-1, 3)
    return Advance(*numbers.T, *flags.T)


@dataclass(frozen=True)
class Episode:
    """A finished route.

    Attributes:
        example: Position of the question.
        experts: The experts asked, in order, by index.
        answers: Their answers.
        final: Position in `answers` of the one that counts.
        quality: Its quality, in [0, 1].
        cost: Cost of the route, in the pool's unit.
    """

    example: int
    experts: list[int]
    answers: list[Answer]
    final: int
    quality: float
    cost: float

    @property
    def calls(self) -> int:
        """Experts asked."""
        return len(self.experts)


def run_routes(
    agent: RoutingAgent | Sequence[RoutingAgent],
    source: AnswerSource,
    rules: RouteRules,
    *,
    examples: Sequence[int] | None = None,
    context: DERContext | Sequence[DERContext] | None = None,
    lanes: int | None = None,
) -> list[Episode]:
    """Let an agent route questions, many at once.

    Args:
        agent: The trained agent or a baseline, or one for each question. Experts that it asks `alone` are
            shown no earlier answer; several agents ask the same ones so.
        source: Answers and their qualities.
        rules: What is allowed on a route.
        examples: Positions of the questions; all if left out.
        context: Settings of every request, or of each.
        lanes: Routes that run at once; where left out more with experts that are asked at the same time, so
            that slow calls are waited for together.

    Returns:
        One episode per question, in the order given.

    Raises:
        ValueError: If agents ask different experts alone.
    """
    wanted = list(range(len(source.examples)) if examples is None else examples)
    contexts = [context] * len(wanted) if isinstance(context, DERContext | None) else context
    agents = agent if isinstance(agent, Sequence) else [agent] * len(wanted)
    different = list({id(each): each for each in agents}.values())
    alone = {frozenset(getattr(each, "alone", ())) for each in different}
    if len(alone) > 1:
        raise ValueError("agents that ask different experts alone cannot route together")
    source = source.asking_alone(*alone) if alone else source
    if lanes is None:
        slow = any(map(source.at_once, range(len(source.experts))))
        lanes = _SLOW_LANES if slow else _LANES
    requests = list(zip(agents, wanted, contexts, strict=True))
    done: list[Episode] = []
    for start in range(0, len(requests), lanes):
        chunk = requests[start : start + lanes]
        lockstep = Lockstep(source, rules, len(chunk))
        for position, (_, example, its_context) in enumerate(chunk):
            lockstep.start(position, example, its_context)
        open_routes = list(range(len(chunk)))
        while open_routes:
            choices: dict[int, int] = {}
            for one in different:
                mine = [p for p in open_routes if chunk[p][0] is one]
                if mine:
                    made = one.decide([lockstep.situation(p) for p in mine])
                    choices.update(zip(mine, [choice.index for choice in made], strict=True))
            step = lockstep.advance([choices[p] for p in open_routes], open_routes)
            open_routes = [p for p, ended in zip(open_routes, step.ended, strict=True) if not ended]
        done += [
            _episode(its_agent, route, len(rules.names), source.examples[route.example].question)
            for (its_agent, _, _), route in zip(chunk, lockstep.routes, strict=True)
        ]
    return done


def _episode(agent: RoutingAgent, route: Route, end: int, question: str) -> Episode:
    good = [i for i, answer in enumerate(route.answers) if answer["error"] is None]
    final = good[-1] if good else len(route.answers) - 1
    select = getattr(agent, "select", None)  # baselines that vote over the answers
    if select is not None and good:
        final = good[select(good_answers(route.answers), question)]
    return Episode(
        example=route.example,
        experts=[choice for choice in route.choices if choice != end],
        answers=route.answers,
        final=final,
        quality=route.qualities[final] if good else 0.0,
        cost=route.spent,
    )
