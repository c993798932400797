"""Reading what a model writes, while it writes: token ids become text, a thought is put aside.

    ids ──TokenReader──> text ──AnswerReader──> answer (safe to show at once) | thought | stopped

The same reader serves single calls, batches and streams, so all three give the same text. What may still
turn out to be part of a stop string or of a tag is held back until it is decided.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

THINK_TAGS = ("<think>", "</think>")
"""What opens and closes a thought in most open models that think."""


class TokenReader:
    """Decodes token by token, and gives text only once later tokens cannot change it.

    Tokens are decoded with those before them, because spaces and characters of several bytes depend on
    their neighbours.

    Args:
        tokenizer: The tokenizer.
        keep: Special tokens to keep in the text: the tags of a thought, where they are special.
    """

    def __init__(self, tokenizer: Any, keep: Iterable[str] = ()) -> None:
        self._tokenizer = tokenizer
        kept = {tokenizer.convert_tokens_to_ids(token) for token in keep}
        self._skip = set(tokenizer.all_special_ids) - kept
        self._skip |= {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special
        } - kept
        self._ids: list[int] = []
        self._start = self._end = 0  # ids that give context, and ids that were given out

    def reopened(self) -> TokenReader:
        """A new reader of the same kind."""
        reader = copy.copy(self)
        reader._ids, reader._start, reader._end = [], 0, 0
        return reader

    def feed(self, token: int) -> str:
        """Add a token; gives the text that is new."""
        if token in self._skip:
            return ""
        self._ids.append(token)
        return self._read(final=False)

    def close(self) -> str:
        """The rest, even if its last character is not whole."""
        return self._read(final=True)

    def _read(self, *, final: bool) -> str:
        if self._end == len(self._ids):
            return ""
        before = self._decode(self._ids[self._start : self._end])
        after = self._decode(self._ids[self._start :])
        if after.endswith("�") and not final and len(self._ids) - self._end < 8:
            return ""  # the first bytes of a longer character
        self._start, self._end = self._end, len(self._ids)
        return after[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        if not ids:
            return ""
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


class AnswerReader:
    """Splits a growing text into thought and answer, and finds its end.

    Args:
        tags: What opens and what closes a thought, or None.
        stop: Texts that end the answer; they are not part of it, and do not count inside a thought.
        thinking: Did the prompt open the thought already?
    """

    def __init__(
        self,
        tags: tuple[str, str] | None = None,
        stop: Sequence[str] = (),
        *,
        thinking: bool = False,
    ) -> None:
        self._given = (tags, stop, thinking)
        self._tags = tags
        self._stop = [text for text in stop if text]
        self._state = "thought" if thinking else "start" if tags else "answer"
        self._pending = ""  # not decided, or not shown yet
        self._strip = False  # white space between a thought and its answer
        self.answer = ""
        self.thought = ""
        self.stopped = False

    def reopened(self) -> AnswerReader:
        """A new reader of the same kind."""
        tags, stop, thinking = self._given
        return AnswerReader(tags, stop, thinking=thinking)

    def feed(self, text: str) -> str:
        """Add text; gives the part of the answer that may be shown now."""
        if self.stopped or not text:
            return ""
        self._pending += text
        if self._state == "start":
            self._find_opening()
        if self._state == "thought":
            self._find_closing()
        return self._show() if self._state == "answer" else ""

    def close(self) -> str:
        """End the text; gives the rest of the answer."""
        shown = ""
        if self._state == "thought":
            self.thought += self._pending  # never closed: there is no answer
        elif not self.stopped:
            self._state = "answer"
            shown = self._emit(self._pending.rstrip())
        self._pending = ""
        if self._tags and not self.thought and self._tags[1] in self.answer:
            # Only the closing tag: what came before was a thought after all.
            self.thought, _, self.answer = self.answer.partition(self._tags[1])
        self.thought, self.answer = self.thought.strip(), self.answer.strip()
        return shown

    def _find_opening(self) -> None:
        assert self._tags is not None
        begun = self._pending.lstrip()
        if begun.startswith(self._tags[0]):
            self._pending = begun[len(self._tags[0]) :]
            self._state = "thought"
        elif not self._tags[0].startswith(begun):
            self._state = "answer"

    def _find_closing(self) -> None:
        assert self._tags is not None
        before, found, after = self._pending.partition(self._tags[1])
        if found:
            self.thought += before
            self._pending = after
            self._state, self._strip = "answer", True
        else:
            keep = _overlap(self._pending, self._tags[1:])
            cut = len(self._pending) - keep
            self.thought += self._pending[:cut]
            self._pending = self._pending[cut:]

    def _show(self) -> str:
        if self._strip:
            self._pending = self._pending.lstrip()
            if not self._pending:
                return ""
            self._strip = False
        ends = [at for at in (self._pending.find(stop) for stop in self._stop) if at >= 0]
        if ends:
            self.stopped = True
            text, self._pending = self._pending[: min(ends)].rstrip(), ""
            return self._emit(text)
        undecided = _overlap(self._pending, self._stop)
        decided = self._pending[: len(self._pending) - undecided]
        cut = len(decided.rstrip())  # white space is shown once something follows it
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return self._emit(text)

    def _emit(self, text: str) -> str:
        if not self.answer:
            text = text.lstrip()
        self.answer += text
        return text


def _overlap(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of the text that is a beginning of one of the marks."""
    longest = 0
    for mark in marks:
        for size in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:size]):
                longest = size
                break
    return longest
