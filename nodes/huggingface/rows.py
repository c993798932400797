"""One prompt and what comes of it, token by token: the same for static and for continuous batches.

Knows nothing of models.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from der_graph.nodes.huggingface.decoding import TokenReader
from der_graph.nodes.huggingface.prompts import Prompt
from der_graph.nodes.providers.thoughts import AnswerReader


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

    def take(self, token: int, logprob: float, ends: frozenset[int]) -> None:
        """Read the newest token; ends the row at one of `ends` and at its stop strings."""
        self.count += 1
        self.logprob += logprob
        if token in ends:
            self.finish = "stop"
            return
        self.add(self.tokens.feed(token))
        if self.reader.stopped:
            self.finish = "stop"

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
