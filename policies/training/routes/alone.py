"""Who does better without the answer before.

An earlier answer helps whoever can check or continue it. It harms whoever repeats what it is shown, right or
wrong: such an expert is worth more as an independent witness. Which of the two an expert is depends on who
else is there and on what an answer costs, so whole routes are compared: those on which everyone is shown the
answer before, and those on which some are asked alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from der_graph.policies.answers import AnswerSource, Outcome, Request
from der_graph.policies.training.routes.induction import backward_induction
from der_graph.policies.training.routes.lesson import RouteLesson
from der_graph.policies.training.routes.tree import Route, RouteTree

_PRICES = 4  # at which routes are compared, log-evenly over the range of training
_LONGEST = 3  # experts on a route that is compared
_ROWS = 1_000  # questions on which they are, at most
_REACTS = (
    0.02  # share of its answers that an expert changes; below, it does not matter what it is shown
)
_LEAST = 0.005  # utility that asking alone must bring
_ERRORS = 2.0  # standard errors that it must be above
_STEP = 0.001  # utility for which one expert more is asked alone


@dataclass(frozen=True)
class Alone:
    """Who is asked alone, and what that brings.

    Attributes:
        experts: Their names.
        gain: Mean utility that it brings over the prices of training, on questions not learnt from.
        error: Standard error of the gain.
    """

    experts: tuple[str, ...]
    gain: float = 0.0
    error: float = 0.0

    def line(self) -> str:
        """What to say of it."""
        names = ", ".join(self.experts)
        them = "it is" if len(self.experts) == 1 else "they are"
        return (
            f"an earlier answer misleads {names}: {them} asked without it, which brings "
            f"{self.gain:+.3f} +- {self.error:.3f} utility; --transfer always shows it to everyone"
        )


def better_alone(lesson: RouteLesson, price_range: tuple[float, float]) -> Alone:
    """Find the experts that do better without the answer before. Nobody is asked anything new.

    Beginning with nobody, or with everybody who could be, whatever is better, one expert after another
    changes sides as long as that brings something.

    Args:
        lesson: Routes on which everyone is shown the answer before.
        price_range: Prices of cost that the agent is trained for.
    """
    tree, source = lesson.tree, lesson.source
    names = [expert.name for expert in source.experts]
    chosen = sorted({expert for route in tree.routes for expert in route})
    could = [i for i in chosen if source.experts[i].ktp is None and _reacts(tree, i)]
    if not could or tree.longest < 2:
        return Alone(())
    rows = np.random.default_rng(0).permutation(len(source.examples))[:_ROWS]
    total = max(lesson.observer.total, 1e-12)
    prices = np.geomspace(*price_range, _PRICES).tolist()
    tried: dict[frozenset[int], npt.NDArray[np.float64]] = {}

    def utility(alone: frozenset[int]) -> npt.NDArray[np.float64]:
        """(rows,) of the best predicted choices, on questions that the prediction has not seen."""
        if alone not in tried:
            asked = source.asking_alone([names[i] for i in alone])
            known = known_tree(asked, chosen, min(_LONGEST, tree.longest), rows.tolist())
            worth = backward_induction(
                known, lesson.features[rows], lesson.fold[rows], prices, total
            )
            tried[alone] = worth.utility.mean(axis=1, dtype=np.float64)
        return tried[alone]

    def worth(alone: frozenset[int]) -> float:
        # Who is shown the answer before is the rule, and who is asked alone the exception.
        return float(utility(alone).mean()) - _STEP * len(alone)

    nobody = frozenset[int]()
    best = max((nobody, frozenset(could)), key=worth)
    while True:
        closest = max((best ^ {i} for i in could), key=worth)
        if worth(closest) <= worth(best):
            break
        best = closest
    gain = utility(best) - utility(nobody)
    error = float(gain.std() / np.sqrt(len(gain)))
    if gain.mean() < max(_LEAST, _ERRORS * error):
        return Alone(())
    return Alone(tuple(names[i] for i in sorted(best)), float(gain.mean()), error)


def _reacts(tree: RouteTree, expert: int) -> bool:
    """Does an expert say something else after another one's answer than alone?"""
    own = tree.outcomes[tree.position[(expert,)]]
    after = [tree.outcomes[i] for r, i in tree.position.items() if len(r) == 2 and r[1] == expert]
    changed = [
        a.answer["text"] != b.answer["text"]
        for each in after
        for a, b in zip(own, each, strict=True)
    ]
    return bool(changed) and float(np.mean(changed)) >= _REACTS


def known_tree(
    source: AnswerSource, experts: Sequence[int], longest: int, questions: Sequence[int]
) -> RouteTree:
    """The routes that are known on all of some questions, without asking anyone.

    Args:
        source: Answers.
        experts: Who may be on a route, by position; their first answers must be known.
        longest: Most experts on a route.
        questions: Positions of the questions, in the order that the tree has them.
    """
    routes: list[Route] = [()]
    along: dict[Route, list[list[Outcome]]] = {(): [[] for _ in questions]}
    for route in routes:  # grows as it goes
        if len(route) == longest:
            continue
        before = [[outcome.answer for outcome in each] for each in along[route]]
        for expert in experts:
            if expert in route:
                continue
            asked = zip(questions, before, strict=True)
            found = source.known([Request(q, expert, answers) for q, answers in asked])
            if found is not None:
                longer = (*route, expert)
                along[longer] = [[*o, new] for o, new in zip(along[route], found, strict=True)]
                routes.append(longer)
    outcomes = [[], *([each[-1] for each in along[route]] for route in routes[1:])]
    return RouteTree(routes, outcomes, len(source.experts), max(map(len, routes)))
