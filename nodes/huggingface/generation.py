"""One `generate` call of transformers for one or many prompts, watched token by token.

    requests ──groups with the same settings──> batches ──left-padded──> model.generate ──each token──> Watch
    Watch ──> Row (ids, text, log-probability, finish) ──> AIMessage

`Answerer` sorts requests into groups and batches, leaves room for the answer in the model's context, and
halves a batch that does not fit in memory. A stopping criterion, `Watch`, sees every new token of every
row: it reads the text, ends rows at stop strings, adds up log-probabilities without keeping the scores of
all steps, and lets another thread stop the call within one token.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from der_graph.errors import ExpertError
from der_graph.nodes.huggingface.continuous import Engine
from der_graph.nodes.huggingface.decoding import TokenReader
from der_graph.nodes.huggingface.loading import LoadedModel, ran_out_of_memory
from der_graph.nodes.huggingface.prompts import DEFAULT_STOP, PromptWriter
from der_graph.nodes.huggingface.rows import Row
from der_graph.nodes.huggingface.sampling import SeededSampler
from der_graph.nodes.huggingface.settings import GenerationSettings
from der_graph.nodes.providers.thoughts import AnswerReader
from der_graph.nodes.reliability import Cancel, in_thread, resolve_futures


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
                row.take(token, logprob, self.ends)
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
        processors: list[Any] = [watch.note_scores]
        with loaded.on_device(), torch.inference_mode():
            device = loaded.model.device
            if _seeded(settings):
                processors.append(SeededSampler(settings, len(rows), device))
            loaded.model.generate(
                input_ids=torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=_config(transformers, loaded, settings, max_new_tokens),
                logits_processor=transformers.LogitsProcessorList(processors),
                stopping_criteria=transformers.StoppingCriteriaList([watch]),
            )

    with nullcontext() if loaded.engine is None else loaded.engine.paused():
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
    """Are tokens drawn by `SeededSampler`, and not by transformers?"""
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
        "num_return_sequences": 1,
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


class Request(NamedTuple):
    """One prompt with its settings.

    Attributes:
        messages: The prompt.
        settings: How to answer it.
        cancel: Ends this answer within one token once set; the others of its batch go on.
        show: Gets each piece of the answer as soon as it is known, in the thread that generates.
    """

    messages: Sequence[BaseMessage]
    settings: GenerationSettings
    cancel: threading.Event | None = None
    show: Callable[[str], None] | None = None


class Answered(NamedTuple):
    """A finished row, and what its message says about the model."""

    row: Row
    model: str
    logprobs: bool


@dataclass(frozen=True)
class Answerer:
    """A loaded model with everything that its answers depend on but the settings of a call.

    Attributes:
        name: For messages and metadata.
        loaded: The model.
        writer: Writes its prompts.
        tags: The marks of a thought, or None.
        logprobs: Add up log-probabilities?
        max_batch_size: Most prompts in one call.
        engine: Answers in continuous batches; None: in static ones.
    """

    name: str
    loaded: LoadedModel
    writer: PromptWriter
    tags: tuple[str, str] | None
    logprobs: bool
    max_batch_size: int
    engine: Engine | None = None

    def begin_all(
        self, requests: Sequence[Request], cancel: threading.Event | None = None
    ) -> Sequence[Answered | Exception | Future[Answered]]:
        """Answer several prompts, or begin to: with an engine, answers are futures, each done by itself.

        Args:
            requests: The prompts, each with its settings.
            cancel: Stops all within one token once set.
        """
        if self.engine is None:
            return self.answer_all(requests, cancel)
        results: list[Answered | Exception | Future[Answered]] = []
        static: list[tuple[Request, Future[Answered]]] = []
        for request in requests:
            try:
                row, room = self.open_row(request)
            except ExpertError as error:
                results.append(error)
                continue
            answered: Future[Answered] = Future()
            results.append(answered)
            if not self.engine.takes(row, request.settings, room):
                static.append((request, answered))
                continue
            events = [each for each in (request.cancel, cancel) if each is not None]
            row.cancel = Cancel(events) if len(events) > 1 else next(iter(events), None)
            begun = self.engine.submit(row, request.settings, room)
            begun.add_done_callback(functools.partial(self._end, row, answered))
        if static:
            # Not here: whoever comes next need not wait for them.
            rest = [request for request, _ in static]
            work = functools.partial(self.answer_all, rest, cancel)
            in_thread(lambda: resolve_futures([future for _, future in static], work))
        return results

    def _end(self, row: Row, answered: Future[Answered], begun: Future[None]) -> None:
        def work() -> list[Answered]:
            begun.result()
            return [Answered(row, self.name, self.logprobs)]

        resolve_futures([answered], work)

    def answer_all(
        self, requests: Sequence[Request], cancel: threading.Event | None = None
    ) -> list[Answered | Exception]:
        """Answer several prompts; the error of one does no harm to the others.

        Args:
            requests: The prompts, each with its settings.
            cancel: Stops all within one token once set; what is answered then is not complete.

        Returns:
            An answer or an error for each, in order.
        """
        results: list[Answered | Exception] = [ExpertError("not answered")] * len(requests)
        groups: dict[tuple[GenerationSettings, int], list[tuple[int, Row]]] = {}
        for index, request in enumerate(requests):
            try:
                row, room = self.open_row(request)
            except ExpertError as error:
                results[index] = error
            else:
                # A prompt near the end of the context has less room; the others are not cut with it. The
                # time that is left differs with every request, and rows are cut one by one.
                alike = replace(request.settings, max_time=None)
                groups.setdefault((alike, room), []).append((index, row))
        for (settings, room), members in groups.items():
            for start in range(0, len(members), self.max_batch_size):
                part = members[start : start + self.max_batch_size]
                done = self._answer_rows([row for _, row in part], settings, room, cancel)
                for (index, _), result in zip(part, done, strict=True):
                    results[index] = result
        return results

    @functools.cached_property
    def _tokens(self) -> TokenReader:
        """Made once: some tokenizers have thousands of special tokens to look at."""
        return TokenReader(self.loaded.tokenizer, keep=self.tags or ())

    def open_row(self, request: Request) -> tuple[Row, int]:
        """Write the prompt of a request, and see how many tokens its answer may have.

        Raises:
            ExpertError: If the model cannot read it.
        """
        settings = request.settings
        if (
            self.writer.plain is not None
            and self.writer.prompt_format is None
            and not settings.stop
        ):
            settings = settings.updated({"stop": DEFAULT_STOP}, "stop")
        prompt = self.writer(request.messages)
        limit, size = self.loaded.context_length, len(prompt.ids)
        if limit is not None and size >= limit:
            raise ExpertError(
                f"the prompt has {size} tokens, and {self.name} reads at most {limit}, answer included; "
                "shorten the question or the conversation"
            )
        room = (
            settings.max_new_tokens if limit is None else min(settings.max_new_tokens, limit - size)
        )
        row = Row(
            prompt,
            self._tokens.reopened(),
            AnswerReader(self.tags, settings.stop, thinking=prompt.thinking),
            cancel=request.cancel,
            max_time=settings.max_time,
            show=request.show,
        )
        return row, room

    def _answer_rows(
        self,
        rows: list[Row],
        settings: GenerationSettings,
        room: int,
        cancel: threading.Event | None,
    ) -> list[Answered | Exception]:
        import torch

        try:
            self._generate(rows, settings, room, cancel)
        except Exception as error:
            if not ran_out_of_memory(error):
                return [error for _ in rows]
            device = self.loaded.model.device
            if len(rows) == 1:
                return [
                    ExpertError(
                        f"{self.name} ran out of memory on {device} at a prompt of {len(rows[0].prompt.ids)} "
                        f"tokens; use a smaller max_new_tokens, quantization or another device ({error})"
                    )
                ]
        else:
            return [Answered(row, self.name, self.logprobs) for row in rows]
        if device.type == "cuda":
            torch.cuda.empty_cache()  # not before: the error held on to what was generated
        half = len(rows) // 2  # half as many at a time need half the room
        return [
            result
            for part in (rows[:half], rows[half:])
            for result in self._answer_rows_again(part, settings, room, cancel)
        ]

    def _answer_rows_again(
        self,
        rows: list[Row],
        settings: GenerationSettings,
        room: int,
        cancel: threading.Event | None,
    ) -> list[Answered | Exception]:
        results: list[Answered | Exception] = [
            ExpertError(
                f"{self.name} ran out of memory in the middle of an answer that was streamed"
            )
        ] * len(rows)
        fresh = [i for i, row in enumerate(rows) if not row.shown]  # nothing is said twice
        if fresh:
            again = self._answer_rows([rows[i].reopened() for i in fresh], settings, room, cancel)
            for i, result in zip(fresh, again, strict=True):
                results[i] = result
        return results

    def _generate(
        self,
        rows: Sequence[Row],
        settings: GenerationSettings,
        room: int,
        cancel: threading.Event | None,
    ) -> None:
        generate_rows(
            self.loaded,
            rows,
            settings,
            max_new_tokens=room,
            logprobs=self.logprobs,
            cancel=cancel,
        )


def message_of(answered: Answered) -> AIMessage:
    """The message of an answer: text, thought, tokens used, why it ended, how sure the model was."""
    row = answered.row
    tokens_in = len(row.prompt.ids)
    metadata: dict[str, Any] = {"model_name": answered.model, "finish_reason": row.finish}
    if answered.logprobs and row.count:
        metadata["mean_logprob"] = row.logprob / row.count
    return AIMessage(
        content=row.reader.answer,
        additional_kwargs={"reasoning_content": row.reader.thought} if row.reader.thought else {},
        usage_metadata=UsageMetadata(
            input_tokens=tokens_in, output_tokens=row.count, total_tokens=tokens_in + row.count
        ),
        response_metadata=metadata,
    )


def chunk_of(message: AIMessage, content: Any = "") -> AIMessageChunk:
    """What closes a stream: usage and metadata, and the content that was not streamed before."""
    return AIMessageChunk(
        content=content,
        additional_kwargs=message.additional_kwargs,
        usage_metadata=message.usage_metadata,
        response_metadata=message.response_metadata,
        chunk_position="last",
    )


def piece_chunk(piece: str | AIMessage) -> ChatGenerationChunk:
    """A piece of an answer; what closes the stream, where it is the message."""
    if isinstance(piece, str):
        return ChatGenerationChunk(message=AIMessageChunk(content=piece))
    return ChatGenerationChunk(message=chunk_of(piece))


def whole_chunk(result: ChatResult) -> ChatGenerationChunk:
    """A finished answer as one chunk."""
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    return ChatGenerationChunk(message=chunk_of(message, message.content))
