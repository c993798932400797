"""One `generate` call of transformers for one or many prompts, watched token by token.

    prompts ──left-padded──> model.generate ──each token──> Watch ──> Row (ids, text, log-probability, finish)

A stopping criterion sees every new token of every row, so it does what four pieces of transformers do
apart: it reads the text, ends rows at stop strings, adds up log-probabilities without keeping the scores of
all steps, and lets another thread stop the call within one token. Knows nothing of LangChain.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from der_graph.nodes.drawing import SeededDraws
from der_graph.nodes.generation_settings import GenerationSettings
from der_graph.nodes.loading import LoadedModel
from der_graph.nodes.prompts import Prompt
from der_graph.nodes.reading import AnswerReader, TokenReader


@dataclass
class Row:
    """One prompt and what came of it.

    Attributes:
        prompt: The prompt.
        tokens: Reads the ids.
        reader: Splits the text.
        count: Tokens generated, the end token included.
        logprob: Sum of their log-probabilities, in nats.
        finish: `stop`, `length` (cut by `max_new_tokens`, the context or `max_time`), or None while open.
        cancel: Ends this row once set.
        max_time: Seconds after which it is cut, or None.
        show: Gets each piece of the answer as soon as it is known.
        shown: Has it got one?
    """

    prompt: Prompt
    tokens: TokenReader
    reader: AnswerReader
    count: int = 0
    logprob: float = 0.0
    finish: str | None = None
    cancel: threading.Event | None = None
    max_time: float | None = None
    show: Callable[[str], None] | None = None
    shown: bool = False

    @property
    def given_up(self) -> bool:
        """Does nobody wait for it any more?"""
        return self.cancel is not None and self.cancel.is_set()

    def add(self, text: str) -> None:
        """Read a piece of text, and show what is known of the answer."""
        self._show(self.reader.feed(text))

    def close(self) -> None:
        """Nothing follows; a row that is still open has used up its tokens."""
        self.finish = self.finish or "length"
        self.add(self.tokens.close())
        self._show(self.reader.close())

    def reopened(self) -> Row:
        """A new row for the same prompt."""
        row = Row(self.prompt, self.tokens.reopened(), self.reader.reopened())
        row.cancel, row.max_time, row.show = self.cancel, self.max_time, self.show
        return row

    def _show(self, text: str) -> None:
        if self.show is not None and text:
            self.shown = True
            self.show(text)


@dataclass
class Watch:
    """Sees every step of a `generate` call. Used as its stopping criterion and as a logits processor.

    Attributes:
        rows: One per sequence of the batch.
        ends: Ids that end a row.
        logprobs: Add up log-probabilities? Costs one pass over the vocabulary per token.
        cancel: Ends everything once set.
        start: `time.monotonic()` from which the time of the rows is counted.
    """

    rows: Sequence[Row]
    ends: frozenset[int]
    logprobs: bool = True
    cancel: threading.Event | None = None
    start: float = field(default_factory=time.monotonic)
    _logits: Any = field(default=None, repr=False)

    def note_scores(self, input_ids: Any, scores: Any) -> Any:
        """Logits processor: remember this step's scores (batch, vocabulary); changes nothing."""
        self._logits = scores
        return scores

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Stopping criterion: read the newest token of each row; gives which rows are done, (batch,) bool."""
        newest = input_ids[:, -1]
        tokens = newest.tolist()
        added = self._added(newest)
        over = self.cancel is not None and self.cancel.is_set()
        seconds = time.monotonic() - self.start
        for row, token, logprob in zip(self.rows, tokens, added, strict=True):
            if row.finish is None:
                self._read(row, token, logprob)
                late = row.max_time is not None and seconds >= row.max_time
                if row.finish is None and (over or late or row.given_up):
                    row.finish = "length"
        done = [row.finish is not None for row in self.rows]
        return newest.new_tensor(done).bool()

    def _added(self, newest: Any) -> list[float]:
        if not self.logprobs or self._logits is None:
            return [0.0] * len(self.rows)
        chosen = self._logits.gather(1, newest[:, None])[:, 0] - self._logits.logsumexp(-1)
        self._logits = None
        return [float(value) for value in chosen.tolist()]

    def _read(self, row: Row, token: int, logprob: float) -> None:
        row.count += 1
        row.logprob += logprob
        if token in self.ends:
            row.finish = "stop"
            return
        row.add(row.tokens.feed(token))
        if row.reader.stopped:
            row.finish = "stop"


def generate_rows(
    loaded: LoadedModel,
    rows: Sequence[Row],
    settings: GenerationSettings,
    *,
    max_new_tokens: int,
    logprobs: bool = True,
    cancel: threading.Event | None = None,
) -> None:
    """Fill rows by one `generate` call. Returns early, with what there is, once `cancel` is set.

    Args:
        loaded: The model.
        rows: Open rows; they are filled in place.
        settings: How to generate; each row has its own `max_time`.
        max_new_tokens: Longest answer of these rows; the caller has looked at the room in the context.
        logprobs: Add up log-probabilities?
        cancel: Stops the call within one token.
    """
    import torch
    import transformers

    cancel = cancel or threading.Event()
    watch = Watch(rows, frozenset(loaded.end_tokens), logprobs, cancel)
    padded, mask = _padded(rows, loaded.tokenizer.pad_token_id or 0)

    def work() -> None:
        if cancel.is_set() or all(row.given_up for row in rows):
            return  # given up while others had their turn
        device = loaded.model.device
        processors: list[Any] = [watch.note_scores]
        if _seeded(settings):
            processors.append(SeededDraws(settings, len(rows), device))
        with torch.inference_mode():
            loaded.model.generate(
                input_ids=torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=_config(transformers, loaded, settings, max_new_tokens),
                logits_processor=transformers.LogitsProcessorList(processors),
                stopping_criteria=transformers.StoppingCriteriaList([watch]),
            )

    loaded.run(work, cancel)
    for row in rows:
        row.close()


def _padded(rows: Sequence[Row], pad: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts of one length, (batch, width), padded on the left; and their attention mask."""
    width = max(len(row.prompt.ids) for row in rows)
    gaps = [width - len(row.prompt.ids) for row in rows]
    padded = [[pad] * gap + list(row.prompt.ids) for row, gap in zip(rows, gaps, strict=True)]
    return padded, [[0] * gap + [1] * (width - gap) for gap in gaps]


def _seeded(settings: GenerationSettings) -> bool:
    """Are tokens drawn by `SeededDraws`, and not by transformers?"""
    return settings.sampling and settings.seed is not None


def _config(
    transformers: Any, loaded: LoadedModel, settings: GenerationSettings, max_new_tokens: int
) -> Any:
    # Everything is spelt out: what is None here is taken from the checkpoint, whose makers often sample.
    drawn = settings.sampling and not _seeded(settings)
    values: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "do_sample": drawn,
        "num_beams": 1,
        "pad_token_id": loaded.tokenizer.pad_token_id or 0,
        "eos_token_id": loaded.end_tokens or None,
        "repetition_penalty": settings.repetition_penalty or 1.0,
        "no_repeat_ngram_size": settings.no_repeat_ngram_size or 0,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 50,
        "use_cache": True,
    }
    if drawn:
        values["temperature"] = 1.0 if settings.temperature is None else settings.temperature
        values["top_p"] = 1.0 if settings.top_p is None else settings.top_p
        values["top_k"] = 0 if settings.top_k is None else settings.top_k
        values["min_p"] = settings.min_p
    return transformers.GenerationConfig(**values)
