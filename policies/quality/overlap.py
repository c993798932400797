"""Shared words with the reference: token F1 and ROUGE-L, each from 0 to 1.

Token F1 is that of SQuAD's evaluation script (Rajpurkar et al., 2016); ROUGE-L (Lin, 2004) is
computed by Google's rouge-score package, with stemming, as in most published tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from der_graph.data import Example
from der_graph.errors import require
from der_graph.nodes.extraction import normalize_text
from der_graph.policies.quality.metric import references, score_text_pairs
from der_graph.state import Answer


def token_f1(answer: Answer, example: Example) -> float:
    """Harmonic mean of precision and recall of the answer's words, best over the spellings."""
    return max(word_f1(answer["text"], reference) for reference in references(example))


def word_f1(text: str, reference: str) -> float:
    """F1 of two bags of normalised words.

    Examples:
        >>> word_f1("the red fox", "a quick red fox")
        0.8
    """
    given, wanted = normalize_text(text).split(), normalize_text(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


class RougeL:
    """ROUGE-L F-measure: the longest common subsequence of words.

    Args:
        stem: Cut words to their stems first (Porter).

    Raises:
        MissingDependencyError: If rouge-score is not installed.
    """

    name = "rouge_l"

    def __init__(self, *, stem: bool = True) -> None:
        package = require("rouge_score.rouge_scorer", extra="metrics", why="ROUGE-L")
        self._scorer: Any = package.RougeScorer(["rougeL"], use_stemmer=stem)

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[float]:
        """Judge each answer by the example at its position; see `QualityMetric`."""
        return score_text_pairs(answers, examples, self._compare)

    def _compare(self, texts: list[str], targets: list[str]) -> list[float]:
        pairs = zip(targets, texts, strict=True)
        return [
            float(self._scorer.score(target, text)["rougeL"].fmeasure) for target, text in pairs
        ]
