"""References where nobody wrote any: what the experts agree on, each weighed by how good it seems to be.

    questions ──every expert's answer──> values ──relearn: skills──> the value that is likely right

The skills are those that make the answers most probable, as in learning from service without any outcome.
Questions on which no value is more likely right than not are left out, so what is learnt is learnt on the
easier part. Answers that cannot be compared, such as letters or essays, need a judge in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from der_graph.data import Example
from der_graph.errors import DataError
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import KTPTemplate
from der_graph.policies.answers import AnswerSource
from der_graph.policies.answers.cache import AnswerCache
from der_graph.policies.planning.belief import believe
from der_graph.policies.planning.forms import read_route
from der_graph.policies.planning.knowledge import Knowledge
from der_graph.policies.planning.learning.relearning import Served, relearn
from der_graph.policies.planning.probing.sizes import sizes_of
from der_graph.policies.quality import get_metric
from der_graph.state import Answer

LIKELY = 0.5
"""Probability of being right from which a value stands for the reference."""


def agreed_examples(
    experts: Sequence[Expert],
    examples: Sequence[Example],
    *,
    ktp: str | KTPTemplate | None = None,
    cache: AnswerCache | None = None,
    cost_unit: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> list[Example]:
    """The questions on which experts agree, with what they agree on as reference, for the metric `agreement`.

    Args:
        experts: The experts; all are asked every question.
        examples: The questions; their references are not looked at.
        ktp: The graph's template.
        cache: Where answers are kept.
        cost_unit: What the experts' costs count.
        say: Gets a line.

    Raises:
        DataError: If there are fewer than three experts, or they agree on nothing.
    """
    if len(experts) < 3:
        raise DataError(
            f"the metric 'agreement' needs three experts at least, to see who is right where two differ; "
            f"there are {len(experts)}. Give references, or a judge"
        )
    source = AnswerSource(experts, examples, get_metric("agreement"), ktp=ktp, cache=cache)
    rows = [[outcome.answer for outcome in row] for row in source.first_answers()]
    kept = [
        replace(example, reference=value)
        for example, value in zip(examples, agreed_values(experts, rows, cost_unit), strict=True)
        if value is not None
    ]
    say(f"experts agree on {len(kept)} of {len(examples)} questions; the others are left out")
    if not kept:
        raise DataError(
            "experts agree on nothing that can be compared: give references, or a judge"
        )
    return kept


def agreed_values(
    experts: Sequence[Expert], rows: Sequence[Sequence[Answer]], cost_unit: str = ""
) -> list[str | None]:
    """For each question the value that is more likely right than not; None where none is.

    Args:
        experts: The experts.
        rows: Their answers: [question][expert].
        cost_unit: What their costs count.
    """
    sizes = sizes_of(experts, cost_unit)
    names = [expert.name for expert in experts]
    base = Knowledge.from_prior(
        names, [expert.cost for expert in experts], sizes=sizes if all(sizes) else None
    )
    position = {name: i for i, name in enumerate(names)}
    told = [read_route(row, position, base.never[0]) for row in rows]
    known = relearn(base, [Served(0, route, None) for route in told])
    found: list[str | None] = []
    for row, route in zip(rows, told, strict=True):
        right = believe(known.tables(0), route).joint[0].sum(axis=0)
        values: list[str | None] = []  # of each class, in the order in which `believe` opens them
        of = {answer["expert"]: answer["value"] for answer in row}
        for answer in route:
            value = of[names[answer.expert]]
            if answer.step < 0 and (value is None or value not in values):
                values.append(value)
        best = int(right[1:].argmax()) if len(right) > 1 else -1
        found.append(values[best] if best >= 0 and right[1 + best] >= LIKELY else None)
    return found
