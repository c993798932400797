"""Seeded draws: every prompt of a batch has random numbers of its own.

    scores ──temperature, top_k, top_p, min_p──> probabilities ──generator of the row──> token of the row

The random numbers of torch belong to the whole program: those who share a batch, and models that run in other
threads, take numbers from one another, so that a seed repeats an answer only where nobody else is at work.
Here a prompt draws what it would draw alone, whoever is beside it, and the program's own numbers stay as they
were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from der_graph.nodes.huggingface.settings import GenerationSettings


class SeededSampler:
    """Draws the next tokens. The last logits processor of a call that takes the likeliest token.

    Args:
        settings: Of a call that samples, with a seed: every row starts from it.
        rows: Prompts in the batch.
        device: Where the scores are.
    """

    def __init__(self, settings: GenerationSettings, rows: int, device: Any) -> None:
        import torch

        assert settings.seed is not None
        self._torch: Any = torch
        self._generators = [torch.Generator(device).manual_seed(settings.seed) for _ in range(rows)]
        self._warpers = warpers(settings)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Give every row a single token that can be chosen: the one that is drawn, (batch, vocabulary)."""
        only = self._torch.full_like(scores, float("-inf"))
        return only.scatter_(1, draw(scores, self._warpers, self._generators), 0.0)


def draw(scores: Any, warpers: Sequence[Any], generators: Sequence[Any]) -> Any:
    """Draw a token for each row by random numbers of its own.

    Args:
        scores: Of the next tokens, (batch, vocabulary).
        warpers: What is done to them before; see `warpers`.
        generators: A `torch.Generator` for each row.

    Returns:
        Token ids, (batch, 1).
    """
    import torch

    for warper in warpers:
        scores = warper(None, scores)
    chances = torch.softmax(scores, dim=-1)
    drawn = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(chances, generators, strict=True)
    ]
    return torch.stack(drawn)


def penalties(settings: GenerationSettings) -> list[Any]:
    """What transformers does to the scores by the tokens that came before, in its order."""
    import transformers

    found: list[Any] = []
    if settings.repetition_penalty not in (None, 1.0):
        found.append(
            transformers.RepetitionPenaltyLogitsProcessor(penalty=settings.repetition_penalty)
        )
    if settings.no_repeat_ngram_size:
        found.append(transformers.NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    return found


def warpers(settings: GenerationSettings) -> list[Any]:
    """What transformers does to the scores before it draws, in its order."""
    import transformers

    found: list[Any] = []
    if settings.temperature not in (None, 1.0):
        found.append(transformers.TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        found.append(transformers.TopKLogitsWarper(settings.top_k))
    if settings.top_p is not None and settings.top_p < 1.0:
        found.append(transformers.TopPLogitsWarper(settings.top_p))
    if settings.min_p is not None:
        found.append(transformers.MinPLogitsWarper(settings.min_p))
    return found
