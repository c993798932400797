"""Rankers: models that read the question and every answer, and say which answer is best.

    question, answers ──scores──> one number an answer ──argmax──> RunAll(select=...)

LLM-Blender's PairRanker compares two answers at a time (Jiang et al., ACL 2023, arXiv 2306.02561): `pairwise`
turns any such comparison into a selection. `RewardRanker` scores one answer at a time with a reward
model, which is any sequence classifier of transformers with one label, or with two of which the second
means good. What the ranker itself costs is not in the costs of a route; say it beside the figures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from der_graph.errors import MetricError
from der_graph.nodes.reliability.copying import BeginsAnew
from der_graph.policies.baselines.voting import Select
from der_graph.state import Answer

MAX_TOKENS = 1024
"""Longest question and answer together that a reward model is given, unless it reads less."""


def highest(score: Callable[[str, Sequence[str]], Sequence[float]]) -> Select:
    """Select the answer with the highest score, the first of equals.

    Args:
        score: Takes the question and the answers' texts; gives one number an answer.

    Returns:
        A selection for `RunAll`.

    Examples:
        >>> longest = highest(lambda question, answers: [len(text) for text in answers])
        >>> longest([{"text": "no"}, {"text": "perhaps"}], "Is it?")
        1
    """

    def select(answers: Sequence[Answer], question: str) -> int:
        texts = [answer["text"] for answer in answers]
        scores = np.asarray(score(question, texts), dtype=np.float64)
        if scores.shape != (len(texts),) or not np.isfinite(scores).all():
            raise MetricError(
                f"the ranker gave {scores.tolist()} for {len(texts)} answers; "
                "it must give one finite number for each"
            )
        return int(np.argmax(scores))

    return select


def pairwise(compare: Callable[[str, str, str], float]) -> Select:
    """Select the answer that wins most comparisons, each pair in both orders; PairRanker's `max logits`.

    Args:
        compare: Takes the question and two answers; above 0 if the first is better, below 0 if the second is.

    Returns:
        A selection for `RunAll`; k answers take k (k - 1) comparisons.
    """

    def score(question: str, texts: Sequence[str]) -> list[float]:
        total = [0.0] * len(texts)
        for i, first in enumerate(texts):
            for j, second in enumerate(texts):
                if i != j:
                    advantage = compare(question, first, second)
                    total[i] += advantage
                    total[j] -= advantage
        return total

    return highest(score)


class RewardRanker(BeginsAnew):
    """A reward model from transformers as a selection for `RunAll`; loaded when first used.

    Args:
        model_id: Hub id or local folder of a sequence classifier with one label (the reward), or two
            (bad, good).
        device: `auto` (GPU where there is one), `cpu`, `cuda:0` ...
        batch_size: Answers per forward pass.
    """

    def __init__(self, model_id: str, *, device: str = "auto", batch_size: int = 16) -> None:
        self.model_id = model_id
        self._device = device
        self._batch_size = batch_size
        self._begin()

    def _begin(self) -> None:
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.RLock()
        self._select = highest(self.score)

    def __call__(self, answers: Sequence[Answer], question: str) -> int:
        """Position of the answer with the highest reward."""
        return self._select(answers, question)

    def load(self) -> tuple[Any, Any]:
        """Load tokenizer and model, once.

        Raises:
            MetricError: If the model cannot be read, or is no classifier with one or two labels.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        try:
            config = AutoConfig.from_pretrained(self.model_id)
            kinds = config.architectures or []
            if not any("SequenceClassification" in kind for kind in kinds):
                # transformers would put an untrained head on any model, and its scores would be noise.
                raise MetricError(
                    f"ranker '{self.model_id}' is a {', '.join(kinds) or config.model_type}; a ranker is a "
                    "sequence classifier (a reward model) with one label, or two"
                )
            tokenizer = AutoTokenizer.from_pretrained(self.model_id)
            model: Any = AutoModelForSequenceClassification.from_pretrained(self.model_id)
        except (OSError, ValueError) as error:
            if isinstance(error, MetricError):
                raise
            raise MetricError(
                f"ranker '{self.model_id}' cannot be read: {str(error).splitlines()[0]}"
            ) from error
        if config.num_labels not in (1, 2):
            raise MetricError(
                f"ranker '{self.model_id}' has {config.num_labels} labels; it must have one (the reward) "
                "or two (bad, good)"
            )
        if model.config.pad_token_id is None:  # decoders find the last token by it
            model.config.pad_token_id = tokenizer.pad_token_id
        device = self._device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return tokenizer, model.eval().to(device)

    def score(self, question: str, answers: Sequence[str]) -> list[float]:
        """The reward of each answer.

        Args:
            question: The question.
            answers: The answers' texts.

        Returns:
            One number an answer; higher is better.
        """
        import torch

        tokenizer, model = self.load()
        size = 1 if tokenizer.pad_token_id is None else self._batch_size
        rewards: list[float] = []
        for start in range(0, len(answers), size):
            batch = self._encode(tokenizer, question, answers[start : start + size])
            with torch.inference_mode():
                logits = model(**batch.to(model.device)).logits.float()
            values = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
            rewards += values.tolist()
        return rewards

    def _encode(self, tokenizer: Any, question: str, answers: Sequence[str]) -> Any:
        """Reward models with a chat template read a conversation, the others a pair of texts."""
        longest = min(tokenizer.model_max_length, MAX_TOKENS)
        options = {
            "padding": len(answers) > 1,
            "truncation": True,
            "max_length": longest,
            "return_tensors": "pt",
        }
        if not getattr(tokenizer, "chat_template", None):
            pairs = [question] * len(answers), list(answers)
            return tokenizer(*pairs, **{**options, "truncation": "longest_first"})
        tokenizer.truncation_side = "left"  # the end of the answer is what is judged
        chats = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
            for text in answers
        ]
        texts = tokenizer.apply_chat_template(chats, tokenize=False)
        return tokenizer(texts, add_special_tokens=False, **options)
