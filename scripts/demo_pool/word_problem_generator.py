"""Synthetic word problems: one story, several questions, the expression for each.

    problem = generate(random.Random(7))
    problem.question, problem.expression, problem.answer

The point of these problems is what collections of real ones lack: numbers the question does not
need, and the same story under different questions, so that the question has to be read. Sentences
are the project's own. `FAMILIES` lets callers draw from schemas that others have not used.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import schemas_change
import schemas_compare
import schemas_groups
import schemas_mixed
import schemas_parts
import schemas_transfer
import schemas_two_steps
from augment import plain_style
from expressions import evaluate, format_value, numbers
from word_problem_world import FLUFF, Group, Schema, World

FAMILIES: dict[str, tuple[Schema, ...]] = {
    "change": schemas_change.SCHEMAS + schemas_transfer.SCHEMAS,
    "compare": schemas_compare.SCHEMAS,
    "groups": schemas_groups.SCHEMAS,
    "mixed": schemas_mixed.SCHEMAS,
    "parts": schemas_parts.SCHEMAS + schemas_two_steps.SCHEMAS,
}
# Texts like the SVAMP files (lower case, no commas); the rest is ordinary writing.
_PLAIN_SHARE = 0.7
_FLUFF_SHARE = 0.15


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
      question: The whole text.
      expression: What to compute.
      answer: Its value.
      family: The family of its schema.
    """

    question: str
    expression: str
    answer: str
    family: str


def _usable(expression: str, text: str) -> bool:
    """Positive answers only, and no number that the reader would have to guess."""
    value = evaluate(expression)
    given = set(numbers(text))
    return value is not None and value > 0 and set(numbers(expression)) <= given


def generate_group(rng: random.Random, families: Sequence[str] | None = None) -> Group:
    """Generates a story with its questions.

    Args:
      rng: The source of randomness.
      families: Which families of schemas to draw from; all by default.

    Returns:
      The story and at least one question with a positive answer.
    """
    return _draw(rng, families)[1]


def _draw(rng: random.Random, families: Sequence[str] | None) -> tuple[str, Group]:
    schemas = [(f, s) for f in families or FAMILIES for s in FAMILIES[f]]
    while True:
        family, schema = rng.choice(schemas)
        group = schema(World(rng))
        questions = [(q, e) for q, e in group.questions if _usable(e, f"{group.story} {q}")]
        if not questions:
            continue
        story = group.story
        if story and rng.random() < _FLUFF_SHARE:
            story = f"{rng.choice(FLUFF)} {story}"
        if rng.random() < _PLAIN_SHARE:
            story = plain_style(story)
            questions = [(plain_style(q), e) for q, e in questions]
        # Reading "how many are left" off the text needs no expression; keep only a few of those.
        computed = [(q, e) for q, e in questions if " " in e]
        if not computed or rng.random() < 0.1:
            computed = questions
        return family, Group(story, computed)


def generate(rng: random.Random, families: Sequence[str] | None = None) -> Problem:
    """Generates one problem.

    Args:
      rng: The source of randomness.
      families: Which families of schemas to draw from; all by default.

    Returns:
      The problem.
    """
    family, group = _draw(rng, families)
    question, expression = rng.choice(group.questions)
    value = evaluate(expression)
    assert value is not None, expression
    return Problem(f"{group.story} {question}".strip(), expression, format_value(value), family)
