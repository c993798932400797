"""Selection among the answers of everyone: comparisons, scores, reward models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import an_answer
from tiny_models import save_tiny, tiny_tokenizer

from der_graph.errors import MetricError
from der_graph.policies.baselines.rankers import RewardRanker, highest, pairwise

ANSWERS = [an_answer("a", "short"), an_answer("b", "the longest one"), an_answer("c", "no")]


def test_the_highest_score_wins_and_the_first_of_equals() -> None:
    def length(question: str, texts: Sequence[str]) -> list[float]:
        assert question == "How?"
        return [float(len(text)) for text in texts]

    assert highest(length)(ANSWERS, "How?") == 1
    assert highest(lambda question, texts: [0.0] * len(texts))(ANSWERS, "How?") == 0


@pytest.mark.parametrize("scores", [[1.0], [1.0, float("nan"), 0.0]])
def test_a_ranker_that_gives_no_numbers_is_refused(scores: list[float]) -> None:
    with pytest.raises(MetricError, match="for 3 answers; it must give one finite number for each"):
        highest(lambda question, texts: scores)(ANSWERS, "How?")


def test_pairs_are_compared_in_both_orders() -> None:
    seen = []

    def compare(question: str, first: str, second: str) -> float:
        seen.append((first, second))
        # A judge that prefers what it reads first, by 1, and "no" over "short", by 3: order must not decide.
        bias = {("no", "short"): 3.0, ("short", "no"): -3.0}
        return 1.0 + bias.get((first, second), 0.0)

    # no: +3 against short in both orders; the bias of 1 cancels.
    assert pairwise(compare)(ANSWERS, "How?") == 2
    assert len(seen) == 6


def reward_model(folder: Path, *, labels: int = 1, template: bool = True) -> Path:
    """A real sequence classifier of random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer() if template else tiny_tokenizer(template=None)
    shape: dict[str, Any] = {"num_labels": labels}
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=256, pad_token_id=0, initializer_range=0.5,
        **shape,
    )  # fmt: skip
    make: Any = LlamaForSequenceClassification
    model = make(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("labels", [1, 2])
def test_a_reward_model_scores_each_answer_for_itself(
    tmp_path: Path, template: bool, labels: int
) -> None:
    folder = reward_model(tmp_path, labels=labels, template=template)
    ranker = RewardRanker(str(folder), device="cpu", batch_size=2)
    texts = [answer["text"] for answer in ANSWERS]
    together = ranker.score("How?", texts)
    alone = [ranker.score("How?", [text])[0] for text in texts]
    assert together == pytest.approx(alone, abs=1e-4)  # padding changes nothing
    assert len(set(together)) == 3
    assert ranker(ANSWERS, "How?") == together.index(max(together))
    assert ranker.score("Why not, then?", texts) != pytest.approx(together)


def test_what_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="cannot be read"):
        RewardRanker(str(tmp_path / "nowhere")).load()
    chat = save_tiny(tmp_path / "chat")
    with pytest.raises(
        MetricError, match="is a LlamaForCausalLM; a ranker is a sequence classifier"
    ):
        RewardRanker(str(chat)).load()
    three = reward_model(tmp_path / "three", labels=3)
    with pytest.raises(MetricError, match="has 3 labels; it must have one"):
        RewardRanker(str(three)).load()
