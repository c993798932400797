"""Likeness to the reference, judged by a neural network: BERTScore, BARTScore, BLEURT.

Each takes a checkpoint by hub id or local folder through transformers, works in batches on the GPU if there
is one, and maps the model's own scale to [0, 1] by a formula that its docstring gives. torch and
transformers are imported when a metric is made. An empty reference gives quality 0.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from der_graph.errors import MetricError, PoolError, require
from der_graph.nodes.huggingface import loading as models
from der_graph.policies.quality.metric import TextPairs


class BERTScore(TextPairs):
    """BERTScore F1, the quality of the DER paper.

    Zhang et al., ICLR 2020, computed by their bert-score package.

    quality = clip((F1 - low) / (1 - low), 0, 1). With `low=0` it is F1 itself, as in the paper,
    whose p0 of 0.73 is on that scale; `low` near 0.8 spreads the narrow range that large models
    use.

    Args:
        checkpoint: Hub id or folder of an encoder.
        layer: Layer whose vectors are compared, from 1; None for the one that bert-score recommends
            for this checkpoint, or the last where it knows none.
        low: F1 that is worth 0, in [0, 1).
        device: `auto`, `cpu`, `cuda:0` ...
        batch_size: Texts per forward pass.

    Raises:
        MetricError: If the checkpoint or a setting cannot be used.
        MissingDependencyError: If a package is not installed.
    """

    name = "bertscore"

    def __init__(
        self,
        *,
        checkpoint: str = "roberta-large",
        layer: int | None = None,
        low: float = 0.0,
        device: str = "auto",
        batch_size: int = 32,
    ) -> None:
        if not 0 <= low < 1:
            raise MetricError(f"bertscore: low={low}; it must be in [0, 1)")
        transformers = require("transformers", extra=EXTRA, why="BERTScore")
        package = require("bert_score", extra=EXTRA, why="BERTScore")
        self._low = low
        with loading(self.name, checkpoint):
            config = transformers.AutoConfig.from_pretrained(checkpoint)
            known = package.utils.model2layers
            layers = layer or known.get(checkpoint) or config.num_hidden_layers
            self._scorer: Any = package.BERTScorer(
                model_type=checkpoint,
                num_layers=layers,
                batch_size=batch_size,
                device=pick_device(device),
            )
        # Tokenizers saved without a limit would feed more positions than the encoder has.
        tokenizer = self._scorer._tokenizer
        tokenizer.model_max_length = longest_input(tokenizer, config)

    def _compare(self, texts: list[str], targets: list[str]) -> list[float]:
        f1 = self._scorer.score(texts, targets)[2].tolist()
        return [(value - self._low) / (1 - self._low) for value in f1]


class BARTScore(TextPairs):
    """BARTScore: how likely a seq2seq model finds one text given the other.

    Yuan et al., NeurIPS 2021.

    quality = exp(mean log-likelihood per token), the inverse of the perplexity, in (0, 1].

    Args:
        checkpoint: Hub id or folder of an encoder-decoder; the paper's own is BART large fine-tuned
            on CNN/DailyMail.
        direction: `precision` (reference -> answer), `recall` (answer -> reference), or `f`, which
            averages the two log-likelihoods.
        device: `auto`, `cpu`, `cuda:0` ...
        batch_size: Pairs per forward pass.
        max_length: Tokens after which a text is cut off.

    Raises:
        MetricError: If the checkpoint or a setting cannot be used.
        MissingDependencyError: If a package is not installed.
    """

    name = "bartscore"

    def __init__(
        self,
        *,
        checkpoint: str = "facebook/bart-large-cnn",
        direction: str = "f",
        device: str = "auto",
        batch_size: int = 4,
        max_length: int = 512,
    ) -> None:
        if direction not in {"precision", "recall", "f"}:
            raise MetricError(
                f"bartscore: direction={direction!r}; choose one of: precision, recall, f"
            )
        self._direction = direction
        self._network = Network(
            self.name, checkpoint, "AutoModelForSeq2SeqLM", device, batch_size, max_length
        )

    def _compare(self, texts: list[str], targets: list[str]) -> list[float]:
        likelihoods = []
        if self._direction in {"precision", "f"}:
            likelihoods.append(self._log_likelihoods(targets, texts))
        if self._direction in {"recall", "f"}:
            likelihoods.append(self._log_likelihoods(texts, targets))
        return [math.exp(sum(values) / len(values)) for values in zip(*likelihoods, strict=True)]

    def _log_likelihoods(self, sources: list[str], targets: list[str]) -> list[float]:
        """Mean log-likelihood of each target's tokens given its source, in nats, <= 0."""
        network, torch = self._network, self._network.torch
        found: list[float] = []
        for start in range(0, len(sources), network.batch_size):
            batch = slice(start, start + network.batch_size)
            given = network.encode(sources[batch])
            wanted = network.encode(targets[batch])
            labels = wanted["input_ids"]
            padding = wanted["attention_mask"] == 0
            with torch.inference_mode():
                # The model shifts the labels into the decoder's input; -100 keeps padding out of
                # it.
                logits = network.model(**given, labels=labels.masked_fill(padding, -100)).logits
                losses = torch.nn.functional.cross_entropy(
                    logits.float().transpose(1, 2), labels, reduction="none"
                ).masked_fill(padding, 0.0)
            found += (-losses.sum(dim=1) / (~padding).sum(dim=1)).tolist()
        return found


class BLEURT(TextPairs):
    """BLEURT (Sellam et al., ACL 2020): a regression head trained on people's ratings.

    quality = clip((output - low) / (high - low), 0, 1). BLEURT-20 puts out about 0 to 1 by itself;
    the first BLEURT about -1.5 to 1.

    Args:
        checkpoint: Hub id or folder of a sequence classifier with one output, fed with the
            reference and the answer, in this order.
        low: Output that is worth 0.
        high: Output that is worth 1.
        device: `auto`, `cpu`, `cuda:0` ...
        batch_size: Pairs per forward pass.
        max_length: Tokens after which a pair is cut off.

    Raises:
        MetricError: If the checkpoint or a setting cannot be used.
        MissingDependencyError: If a package is not installed.
    """

    name = "bleurt"

    def __init__(
        self,
        *,
        checkpoint: str = "Elron/bleurt-base-512",
        low: float = -1.5,
        high: float = 1.0,
        device: str = "auto",
        batch_size: int = 32,
        max_length: int = 512,
    ) -> None:
        if not low < high:
            raise MetricError(f"bleurt: low={low} must be below high={high}")
        self._low, self._high = low, high
        self._network = Network(
            self.name,
            checkpoint,
            "AutoModelForSequenceClassification",
            device,
            batch_size,
            max_length,
        )
        outputs = self._network.model.config.num_labels
        if outputs != 1:
            raise MetricError(
                f"bleurt: the checkpoint '{checkpoint}' has {outputs} outputs; a BLEURT has one, "
                "a regression"
            )

    def _compare(self, texts: list[str], targets: list[str]) -> list[float]:
        network = self._network
        outputs: list[float] = []
        for start in range(0, len(texts), network.batch_size):
            batch = slice(start, start + network.batch_size)
            with network.torch.inference_mode():
                logits = network.model(**network.encode(targets[batch], texts[batch])).logits
            outputs += logits.float().squeeze(-1).tolist()
        return [(output - self._low) / (self._high - self._low) for output in outputs]


EXTRA = "metrics"
"""The extra of this package that brings what neural metrics need."""


class Network:
    """A checkpoint with its tokenizer on its device."""

    def __init__(
        self,
        metric: str,
        checkpoint: str,
        auto_class: str,
        device: str,
        batch_size: int,
        max_length: int,
    ) -> None:
        self.torch: Any = require("torch", extra=EXTRA, why=f"the metric '{metric}'")
        transformers = require("transformers", extra=EXTRA, why=f"the metric '{metric}'")
        self.batch_size = batch_size
        self.device = pick_device(device)
        with loading(metric, checkpoint):
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint)
            model = getattr(transformers, auto_class).from_pretrained(checkpoint)
        self.model: Any = model.to(self.device).eval()
        self.max_length = min(max_length, longest_input(self.tokenizer, self.model.config))

    def encode(self, *texts: list[str]) -> Any:
        """Tokenize texts, or pairs of them, into one padded batch on the device."""
        encoded = self.tokenizer(
            *texts, return_tensors="pt", padding=True, truncation=True, max_length=self.max_length
        )
        return encoded.to(self.device)


def pick_device(device: str) -> str:
    """The device that a setting means: `auto` is the GPU if there is one, else the CPU.

    Raises:
        MetricError: If there is no such device here.
    """
    torch = require("torch", extra=EXTRA, why="neural quality metrics")
    try:
        return str(models.pick_device(torch, device))
    except PoolError as error:
        raise MetricError(str(error)) from None


def longest_input(tokenizer: Any, config: Any) -> int:
    """The most tokens that both a tokenizer and its model take."""
    positions = getattr(config, "max_position_embeddings", None) or 512
    # RoBERTa's positions begin after its padding index, so two of them are never used.
    offset = 2 if "roberta" in getattr(config, "model_type", "") else 0
    return int(min(tokenizer.model_max_length, positions - offset))


@contextlib.contextmanager
def loading(metric: str, checkpoint: str) -> Iterator[None]:
    """Turn the many ways in which a checkpoint fails to load into one error."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MetricError(
            f"metric '{metric}': the checkpoint '{checkpoint}' cannot be loaded ({reason}); give a "
            "hub id or the folder of a transformers model"
        ) from error
