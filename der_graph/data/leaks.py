"""Questions that should not meet: in training and in dev, or asked twice with two right answers.

    questions ──digest──> what an agent's folder keeps of them ──> has this question been seen?

Digests and not texts, so an agent's folder tells nobody what it was trained on. Knows nothing of agents.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Sequence

from der_graph.data.files import Example

# Of a digest: two of a million questions are the same by chance once in five hundred runs.
_BYTES = 6


def same_question(example: Example) -> str:
    """A question, with the conversation before it, as two of them are compared: case and spaces aside."""
    return "\n".join(
        " ".join(text.split()).casefold()
        for text in (*(turn for _, turn in example.history), example.question)
    )


def digests_of(examples: Sequence[Example]) -> str:
    """Digests of questions, as text for a config file."""
    return base64.b64encode(b"".join(sorted({_digest(e) for e in examples}))).decode()


def seen_before(examples: Sequence[Example], digests: str) -> list[int]:
    """Positions of the questions whose digest is among those that `digests_of` gave."""
    packed = base64.b64decode(digests)
    known = {packed[start : start + _BYTES] for start in range(0, len(packed), _BYTES)}
    return [i for i, example in enumerate(examples) if _digest(example) in known]


def shared_questions(examples: Sequence[Example], others: Collection[Example]) -> list[int]:
    """Positions of the questions that are among the others too."""
    there = {same_question(other) for other in others}
    return [i for i, example in enumerate(examples) if same_question(example) in there]


def duplicates(examples: Sequence[Example]) -> tuple[list[int], list[tuple[int, int]]]:
    """Questions that come twice.

    Returns:
        Positions of those that came before, and pairs of positions of one question with different
        references: (first, later).
    """
    first: dict[str, int] = {}
    again: list[int] = []
    conflicts: list[tuple[int, int]] = []
    for i, example in enumerate(examples):
        before = first.setdefault(same_question(example), i)
        if before != i:
            again.append(i)
            known, now = examples[before].reference.strip(), example.reference.strip()
            if known and now and known.casefold() != now.casefold():
                conflicts.append((before, i))
    return again, conflicts


def _digest(example: Example) -> bytes:
    return hashlib.blake2b(
        same_question(example).encode("utf-8", "replace"), digest_size=_BYTES
    ).digest()
