"""Prompts in, rows out: rooms in the context, groups, batches, and what to do when memory runs out.

    requests ──written, measured──> groups with the same settings ──generate_rows──> rows ──> AIMessage

Knows nothing of LangChain's runs and callbacks.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from der_graph.errors import ExpertError
from der_graph.nodes.generation import Row, generate_rows
from der_graph.nodes.generation_settings import GenerationSettings
from der_graph.nodes.loading import LoadedModel
from der_graph.nodes.prompts import DEFAULT_STOP, PromptWriter
from der_graph.nodes.reading import AnswerReader, TokenReader


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
    """

    name: str
    loaded: LoadedModel
    writer: PromptWriter
    tags: tuple[str, str] | None
    logprobs: bool
    max_batch_size: int

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
        except torch.cuda.OutOfMemoryError as error:  # the CPU's, too
            device = self.loaded.model.device
            if len(rows) == 1:
                return [
                    ExpertError(
                        f"{self.name} ran out of memory on {device} at a prompt of {len(rows[0].prompt.ids)} "
                        f"tokens; use a smaller max_new_tokens, quantization or another device ({error})"
                    )
                ]
        except Exception as error:
            return [error for _ in rows]
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
