"""Training text for the translator: real and synthetic problems as token trees.

A tree is one story (the shared prefix) and one or more branches (a question with its expression).
The story is then computed once for all its questions, and the model sees side by side that the same
story needs another expression when the question changes.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import augment
import word_problem_generator

HELD_OUT_SHARE = 0.08

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Row:
    """One packed training row.

    Attributes:
      tokens: The token ids.
      positions: The position of each token in its own story plus branch.
      tree: Which tree each token belongs to.
      branch: Which branch of the tree, -1 for the story.
      target: Whether the token is part of an expression, that is, counts in the loss.
    """

    tokens: list[int]
    positions: list[int]
    tree: list[int]
    branch: list[int]
    target: list[bool]

    def problems(self) -> int:
        """How many problems (branches) the row holds."""
        pairs = zip(self.tree, self.branch, strict=True)
        return len({(tree, branch) for tree, branch in pairs if branch >= 0})


@dataclass(frozen=True)
class Tree:
    """A story and its branches: (prompt tokens, expression tokens)."""

    story: list[int]
    branches: list[tuple[list[int], list[int]]]

    def __len__(self) -> int:
        return len(self.story) + sum(len(q) + len(e) for q, e in self.branches)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Reads a JSON Lines file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def is_held_out(row: dict[str, Any]) -> bool:
    """Whether a row of the training file is kept for measuring; decided by a hash of its id."""
    digest = hashlib.sha256(str(row["id"]).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SHARE


def prompt(question: str) -> str:
    """The prompt of the translator; the expression follows after one space."""
    return f"Problem: {question}\nExpression:"


def _tree(story: str, questions: list[tuple[str, str]], encode: Encode, stop: list[int]) -> Tree:
    branches = [
        (encode(f"{question}\nExpression:"), encode(f" {expression}") + stop)
        for question, expression in questions
    ]
    return Tree(encode(f"Problem:{story}"), branches)


def real_tree(row: dict[str, Any], rng: random.Random, encode: Encode, stop: list[int]) -> Tree:
    """A real problem, augmented."""
    question, expression = augment.augment(row["question"], row["expression"], rng)
    return _tree("", [(f" {question}", expression)], encode, stop)


def synthetic_tree(rng: random.Random, encode: Encode, stop: list[int], most: int = 4) -> Tree:
    """A generated story with up to `most` of its questions."""
    group = word_problem_generator.generate_group(rng)
    chosen = rng.sample(group.questions, min(most, len(group.questions)))
    story = f" {group.story}" if group.story else ""
    return _tree(story, [(f" {q}", e) for q, e in chosen], encode, stop)


def trees(
    rows: list[dict[str, Any]],
    synthetic_share: float,
    rng: random.Random,
    encode: Encode,
    stop: list[int],
) -> Iterator[Tree]:
    """An endless, seeded mix of real and synthetic trees."""
    while True:
        if rng.random() < synthetic_share:
            yield synthetic_tree(rng, encode, stop)
        else:
            yield real_tree(rng.choice(rows), rng, encode, stop)


def pack(source: Iterator[Tree], rows: int, length: int) -> list[Row]:
    """Fills rows with trees, first fit; trees that fit nowhere end it.

    Args:
      source: The trees.
      rows: How many rows.
      length: Tokens in a row.

    Returns:
      The rows, unpadded.
    """
    packed = [Row([], [], [], [], []) for _ in range(rows)]
    misses = 0
    number = 0
    while misses < 2 * rows:
        tree = next(source)
        row = next((r for r in packed if len(r.tokens) + len(tree) <= length), None)
        if row is None:
            misses += 1
            continue
        _append(row, tree, number)
        number += 1
    return packed


def _append(row: Row, tree: Tree, number: int) -> None:
    pieces = [(tree.story, -1, 0, False)]
    for index, (question, expression) in enumerate(tree.branches):
        start = len(tree.story)
        pieces.append((question, index, start, False))
        pieces.append((expression, index, start + len(question), True))
    for tokens, branch, start, target in pieces:
        row.tokens.extend(tokens)
        row.positions.extend(range(start, start + len(tokens)))
        row.tree.extend([number] * len(tokens))
        row.branch.extend([branch] * len(tokens))
        row.target.extend([target] * len(tokens))
