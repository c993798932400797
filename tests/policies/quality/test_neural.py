"""Neural quality metrics, on tiny checkpoints made here; always in [0, 1], always batched."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from answered import answer, example, quality

from der_graph.errors import MetricError
from der_graph.policies.quality import get_metric

WORDS = ["the", "red", "fox", "paris", "dog", "a", "quick", "rome", "is", "capital"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Random two-layer models of the three kinds, each with its tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # waiting for a second thread takes longer than these models do
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    # No model_max_length, as in many real checkpoints: the metrics must find the limit themselves.
    tokenizer = transformers.BertTokenizer(vocab=str(vocabulary))
    size = {"vocab_size": 15, "max_position_embeddings": 32}
    bert: dict[str, Any] = {
        **size,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    layers = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}
    bart: dict[str, Any] = {
        **size,
        **{
            f"{side}_{key}": value
            for side in ("encoder", "decoder")
            for key, value in layers.items()
        },
        "d_model": 16,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "decoder_start_token_id": 3,
        "forced_eos_token_id": 3,
    }
    models = {
        "bert": transformers.BertModel(transformers.BertConfig(**bert)),
        "bart": transformers.BartForConditionalGeneration(transformers.BartConfig(**bart)),
        "bleurt": transformers.BertForSequenceClassification(
            transformers.BertConfig(**bert, num_labels=1)
        ),
        "classifier": transformers.BertForSequenceClassification(
            transformers.BertConfig(**bert, num_labels=3)
        ),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    yield {name: str(folder / name) for name in models}
    torch.set_num_threads(threads)


NEURAL: list[tuple[str, str, dict[str, Any]]] = [
    ("bertscore", "bert", {}),
    ("bartscore", "bart", {}),
    ("bleurt", "bleurt", {"low": -3.0, "high": 3.0}),
]

TEXTS = ["the red fox", "paris", "", "rome is the capital", "a dog " * 60]

TARGETS = ["the red fox", "rome", "paris", "rome | paris", "a quick dog"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("name", "checkpoint", "more"), NEURAL)
def test_neural_metrics(
    checkpoints: dict[str, str], name: str, checkpoint: str, more: dict[str, Any]
) -> None:
    metric = get_metric(
        name, checkpoint=checkpoints[checkpoint], device="cpu", batch_size=2, **more
    )
    answers = [answer(text, error=None if text else "down") for text in TEXTS]
    examples = [example(target) for target in TARGETS]
    batched = metric.score(answers, examples)
    assert all(0 <= value <= 1 for value in batched)
    assert batched[2] == 0.0
    # Padding beside other texts changes nothing, and of several spellings the best one counts.
    alone = [
        quality(metric, text, target) if text else 0.0
        for text, target in zip(TEXTS, TARGETS, strict=True)
    ]
    assert batched == pytest.approx(alone, abs=1e-5)
    spellings = [quality(metric, TEXTS[3], target) for target in ("rome", "paris")]
    assert batched[3] == pytest.approx(max(spellings), abs=1e-5)
    assert metric.score([answer("dog")], [example("")]) == [0.0]
    assert metric.score([], []) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_bertscore_is_f1_rescaled(checkpoints: dict[str, str]) -> None:
    plain = get_metric("bertscore", checkpoint=checkpoints["bert"], device="cpu")
    rescaled = get_metric("bertscore", checkpoint=checkpoints["bert"], device="cpu", low=0.5)
    assert quality(plain, "the red fox", "the red fox") == pytest.approx(1.0, abs=1e-5)
    f1 = quality(plain, "the red fox", "paris is rome")
    assert f1 < 0.999
    assert quality(rescaled, "the red fox", "paris is rome") == pytest.approx(
        max(0, (f1 - 0.5) / 0.5), abs=1e-5
    )


def test_bartscore_is_the_inverse_perplexity(checkpoints: dict[str, str]) -> None:
    import torch
    import transformers

    folder = checkpoints["bart"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()

    def mean_log_likelihood(source: str, target: str) -> float:
        given_ids = tokenizer(source, return_tensors="pt")["input_ids"]
        wanted = tokenizer(target, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            return -float(model(input_ids=given_ids, labels=wanted).loss)

    text, reference = "rome is the capital", "paris"
    recall = mean_log_likelihood(text, reference)
    precision = mean_log_likelihood(reference, text)
    wanted = {"recall": recall, "precision": precision, "f": (recall + precision) / 2}
    for direction, value in wanted.items():
        metric = get_metric("bartscore", checkpoint=folder, device="cpu", direction=direction)
        assert quality(metric, text, reference) == pytest.approx(math.exp(value), rel=1e-4)


def test_neural_settings_are_checked(checkpoints: dict[str, str], tmp_path: Path) -> None:
    for name in ("bertscore", "bartscore", "bleurt"):
        with pytest.raises(MetricError, match="cannot be loaded"):
            get_metric(name, checkpoint=str(tmp_path), device="cpu")
    for name in ("bertscore", "bleurt"):
        with pytest.raises(MetricError, match="device 'gpu' is unknown"):
            get_metric(name, checkpoint=checkpoints["bleurt"], device="gpu")
    with pytest.raises(MetricError, match="has 3 outputs"):
        get_metric("bleurt", checkpoint=checkpoints["classifier"], device="cpu")
    with pytest.raises(MetricError, match="low=1 must be below high=1"):
        get_metric("bleurt", low=1, high=1)
    with pytest.raises(MetricError, match="choose one of: precision, recall, f"):
        get_metric("bartscore", direction="both")
    with pytest.raises(MetricError, match="low=1"):
        get_metric("bertscore", low=1)


def test_a_broken_checkpoint_does_not_pass_as_a_quality(checkpoints: dict[str, str]) -> None:
    metric: Any = get_metric("bleurt", checkpoint=checkpoints["bleurt"], device="cpu")
    metric._network.model.classifier.bias.data.fill_(math.nan)
    with pytest.raises(MetricError, match="'q1': the metric gave NaN for an answer of 'a'"):
        quality(metric, "dog", "fox")
