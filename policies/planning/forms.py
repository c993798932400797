r"""What answers look like, and which of them are steps: never right by themselves, but good for others.

answer ──form──> refusal, expression, open text, short value ──results on training questions──> step?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.nodes.values import is_refusal
from der_graph.policies.observation.evidence import appearance
from der_graph.policies.planning.belief import NOT_COMPARABLE, Told
from der_graph.policies.planning.tables import Floats, Ints
from der_graph.state import Answer

FORMS = ("refusal", "expression", "open", "value")
"""What an answer looks like: it says nothing; a calculation that is not done; a text; a short value."""
_USUALLY_RIGHT = np.array([0.0, 0.3, 0.3, 0.3])  # of each form, where nothing is known
_NEVER = 0.03  # answers that are right less often are steps
_PRIOR = 5.0  # answers that a broader mean counts for


class Route(NamedTuple):
    """A route that was tried on a training question. What is learnt is how the last answer was.

    Attributes:
        question: Position of the training question.
        experts: Who answered, in order.
        forms: Form of each answer, by position in `FORMS`.
        values: What each answer comes to; None for nothing.
        qualities: Of each answer, in [0, 1].
    """

    question: int
    experts: tuple[int, ...]
    forms: tuple[int, ...]
    values: tuple[str | None, ...]
    qualities: tuple[float, ...]


def form_of(text: str, value: str | None) -> int:
    """The form of an answer, by position in `FORMS`."""
    has_value, _, expression, _, hedges = appearance(text, value)
    if hedges or is_refusal(text):
        return 0
    if expression and _calculates(value or ""):
        return 1
    return 3 if has_value else 2


def _calculates(value: str) -> bool:
    """Is it a calculation, not a tuple or an interval?"""
    return "," not in value and any(sign in value[1:] for sign in "+-*")


def never_right(
    forms: Ints, quality: Floats, label: Ints, routes: Sequence[Route], count: int
) -> npt.NDArray[np.bool_]:
    """Which forms of which experts are steps.

    Args:
        forms: (Q, N) of first answers; -1 unknown.
        quality: (Q, N) of these; NaN unknown.
        label: (Q,) kind of each question.
        routes: Further answers.
        count: Number of kinds, G.

    Returns:
        (G, N, F).
    """
    experts = forms.shape[1]
    number, right = np.zeros((2, count, experts, len(FORMS)))
    rows, columns = np.nonzero((forms >= 0) & ~np.isnan(quality))
    at = label[rows], columns, forms[rows, columns]
    np.add.at(number, at, 1.0)
    np.add.at(right, at, quality[rows, columns])
    for route in routes:
        place = int(label[route.question]), route.experts[-1], route.forms[-1]
        number[place] += 1.0
        right[place] += route.qualities[-1]
    prior = 2.0 * _PRIOR
    everywhere = (right.sum(axis=0) + prior * _USUALLY_RIGHT) / (number.sum(axis=0) + prior)
    rate = (right + _PRIOR * everywhere) / (number + _PRIOR)
    never: npt.NDArray[np.bool_] = rate < _NEVER
    return never


def read_route(
    answers: Sequence[Answer], position: Mapping[str, int], never: npt.NDArray[np.bool_]
) -> tuple[Told, ...]:
    """What the answers of a route are to the model; of an expert asked twice the last one counts.

    Args:
        answers: The route's answers; failed ones and those of strangers say nothing.
        position: Where each expert stands in the pool.
        never: (N, F) which forms of each expert's answers are steps.
    """
    numbers: dict[str, int] = {}
    found: dict[int, Told] = {}
    for answer in answers:
        expert = position.get(answer["expert"], -1)
        if expert < 0 or answer["error"] is not None:
            continue
        # What is said beside a call of tools ("I do not know, so I look it up") is no answer.
        form = form_of("" if answer.get("tool_calls") else answer["text"], answer["value"])
        value = answer["value"]
        found.pop(expert, None)
        if never[expert, form]:
            found[expert] = Told(expert, NOT_COMPARABLE, form)
        elif value is None:
            found[expert] = Told(expert, NOT_COMPARABLE, -1)
        else:
            found[expert] = Told(expert, numbers.setdefault(value, len(numbers)), -1)
    return tuple(found.values())
