r"""Mathematical answers of any form: 1 if the answer is equal to the reference, as algebra.

`1/2`, `0.5` and `\frac{1}{2}` are one answer. Parsing and comparing are Hugging Face's math-verify.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import ModuleType

from der_graph.data import Example
from der_graph.errors import require
from der_graph.policies.quality.metric import is_answered, references
from der_graph.state import Answer


class MathVerify:
    """Equality of mathematical expressions.

    Args:
        timeout: Seconds that parsing or comparing one answer may take; slower ones count as wrong.
            Enforced by a signal, so only on the main thread; elsewhere there is no limit.

    Raises:
        MissingDependencyError: If math-verify is not installed.
    """

    name = "math"

    def __init__(self, *, timeout: int = 3) -> None:
        self._package: ModuleType = require("math_verify", extra="metrics", why="the metric 'math'")
        self._timeout = timeout

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[float]:
        """Judge each answer by the example at its position; see `QualityMetric`."""
        pairs = zip(answers, examples, strict=True)
        return [
            float(is_answered(answer) and self._equal(answer["text"], references(example)))
            for answer, example in pairs
        ]

    def _equal(self, text: str, targets: list[str]) -> bool:
        main = threading.current_thread() is threading.main_thread()
        limit = self._timeout if main else None
        given = self._package.parse(text, parsing_timeout=limit)
        for target in targets:
            # LaTeX is only recognised between math marks, which a bare reference lacks.
            bare = target.lstrip("# ")
            gold = self._package.parse(
                bare if "$" in bare or "\\boxed" in bare else f"${bare}$", parsing_timeout=limit
            )
            if self._package.verify(gold, given, timeout_seconds=limit):
                return True
        return False
