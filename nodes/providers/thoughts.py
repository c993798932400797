"""What a model thinks before it answers is no part of its answer.

    "<think>I guess 41.</think>It is 42." ──split_thought──> thought "I guess 41.", answer "It is 42."

Open models write their thoughts into their text, each family between marks of its own, and servers hand them
on unless they are told to parse them. `AnswerReader` reads a text while it grows: what may still turn out
to be part of a stop string or of a mark is held back until it is decided. Some prompts open the thought, and
the text has its closing mark alone. That is known at its end only, so of such a model the first stream shows
the thought; `Habit` remembers it, and later ones do not. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from der_graph.nodes.providers.characters import writable

ThoughtMarks = tuple[str, str]
"""What opens and what closes a thought."""

THINK_TAGS: ThoughtMarks = ("<think>", "</think>")
"""The marks of most open models that think."""

# No prompt opens the thought of these, so a closing mark alone closes none.
_OPENED_BY_THE_MODEL: tuple[ThoughtMarks, ...] = (
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)

THOUGHT_MARKS: tuple[ThoughtMarks, ...] = (
    THINK_TAGS,
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>final<|message|>"),
    *_OPENED_BY_THE_MODEL,
)
"""Marks that are looked for at the start of an answer from elsewhere: of DeepSeek, Qwen, Magistral, Kimi,
Seed, gpt-oss, Gemma 4, Command A, Apertus and others."""

# Control tokens around the answer of some of them. `<answer>` is none: people ask for such forms.
_ANSWER_MARKS: tuple[ThoughtMarks, ...] = (
    ("<|channel|>final<|message|>", "<|return|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
)


class Split(NamedTuple):
    """An answer without its thought.

    Attributes:
        thought: What the model thought; empty if nothing.
        answer: What it said.
        unclosed: Did the thought never end? There is no answer then.
    """

    thought: str
    answer: str
    unclosed: bool


def split_thought(text: str, marks: Sequence[ThoughtMarks] = THOUGHT_MARKS) -> Split:
    """Split a whole text into thought and answer.

    Examples:
        >>> split_thought("<think>I guess 41.</think> It is 42.").answer
        'It is 42.'
    """
    reader = AnswerReader(marks)
    reader.feed(text)
    reader.close()
    return Split(reader.thought, reader.answer, reader.unclosed)


def _pairs(given: ThoughtMarks | Sequence[ThoughtMarks] | None) -> tuple[ThoughtMarks, ...]:
    if not given:
        return ()
    if isinstance(given[0], str):
        return (cast(ThoughtMarks, tuple(given)),)
    return tuple(cast("Sequence[ThoughtMarks]", given))


@dataclass
class Habit:
    """How a model thinks aloud, as far as its answers have shown.

    Attributes:
        opened: The marks of thoughts that its prompt opens, of which only the closing one is in its text.
    """

    opened: ThoughtMarks | None = None

    def learn(self, reader: AnswerReader) -> None:
        """Remember what an answer that was read to its end has shown."""
        self.opened = reader.lone or self.opened


class AnswerReader:
    """Splits a growing text into thought and answer, and finds its end.

    Args:
        tags: What opens and what closes a thought: a pair, several pairs, or None. A pair whose first mark
            is empty belongs to models whose prompt opens the thought.
        stop: Texts that end the answer; they are not part of it, and do not count inside a thought.
        thinking: Did the prompt open the thought already? By the first pair.
        exact: Show white space as it comes, and not only between words?
        opened: The marks of a thought that the prompt may have opened; all is answer if it is not closed.
    """

    def __init__(
        self,
        tags: ThoughtMarks | Sequence[ThoughtMarks] | None = None,
        stop: Sequence[str] = (),
        *,
        thinking: bool = False,
        exact: bool = False,
        opened: ThoughtMarks | None = None,
    ) -> None:
        self._given = (tags, stop, thinking)
        self._exact = exact
        self._marks = _pairs(tags)
        self._tags = self._marks[0] if self._marks else None
        thinking = thinking or bool(self._tags and not self._tags[0])
        self._stop = [text for text in stop if text]
        self._opened = None if thinking else opened
        self._tags = self._opened or self._tags
        begun = thinking or self._opened is not None
        self._state = "thought" if begun else "start" if self._marks else "answer"
        self._pending = ""  # not decided, or not shown yet
        self._strip = False  # white space between a thought and its answer
        self.answer = ""
        self.thought = ""
        self.stopped = False
        self.unclosed = False
        self.lone: ThoughtMarks | None = None

    def reopened(self) -> AnswerReader:
        """A new reader of the same kind."""
        tags, stop, thinking = self._given
        return AnswerReader(tags, stop, thinking=thinking, exact=self._exact)

    def feed(self, text: str) -> str:
        """Add text; gives the part of the answer that may be shown now."""
        if self.stopped or not text:
            return ""
        self._pending += text
        return self._resumed()

    def _resumed(self) -> str:
        before = None
        while self._state not in (before, "answer"):
            before = self._state
            if before == "start":
                self._find_opening()
            else:
                self._find_closing()
        return self._show() if self._state == "answer" else ""

    def close(self) -> str:
        """End the text; gives the rest of the answer."""
        shown = ""
        if self._opened is not None and self._state == "thought":
            self._pending, self.thought = self.thought + self._pending, ""
            self._state, self._opened = "start", None  # the prompt had opened none
            shown = self._resumed()
        if self._state == "thought":
            self.thought += self._pending  # never closed: there is no answer
            self.unclosed = True
        elif not self.stopped:
            self._state = "answer"
            if self._strip:
                self._pending = self._pending.lstrip()
            shown += self._emit(self._pending if self._exact else self._pending.rstrip())
        self._pending = ""
        if not self.thought:
            self._find_lone_closing()
        self.thought, self.answer = self.thought.strip(), self.answer.strip()
        return shown

    def _find_opening(self) -> None:
        begun = self._pending.lstrip()
        for pair in self._marks:
            if pair[0] and begun.startswith(pair[0]):
                self._tags, self._state = pair, "thought"
                self._pending = begun[len(pair[0]) :]
                return
        for opening, closing in _ANSWER_MARKS:
            if begun.startswith(opening):
                self._pending, self._state = begun[len(opening) :], "answer"
                self._ends_with(closing)
                return
        if not any(pair[0].startswith(begun) for pair in (*self._marks, *_ANSWER_MARKS)):
            self._state = "answer"

    def _find_lone_closing(self) -> None:
        """Only the closing mark: what came before was a thought after all."""
        for opening, closing in self._marks:
            if (opening, closing) in _OPENED_BY_THE_MODEL:
                continue
            before, found, after = self.answer.partition(closing)
            if found and (not opening or opening not in before):
                self.thought, self.answer, self.lone = before, after, (opening, closing)
                return

    def _find_closing(self) -> None:
        assert self._tags is not None
        before, found, after = self._pending.partition(self._tags[1])
        if found:
            self.thought += before
            if self._opened is not None:
                self.thought = self.thought.lstrip().removeprefix(self._opened[0])
                self._opened = None
            self._pending = after
            self._state, self._strip = "start", True  # another thought may follow at once
            for opening, closing in _ANSWER_MARKS:
                if self._tags[1].endswith(opening):
                    self._ends_with(closing)
        else:
            keep = _overlap(self._pending, self._tags[1:])
            cut = len(self._pending) - keep
            self.thought += self._pending[:cut]
            self._pending = self._pending[cut:]

    def _ends_with(self, mark: str) -> None:
        if mark not in self._stop:
            self._stop.append(mark)

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
        if "\ud800" <= self._pending[-1:] <= "\udbff":  # half a character: the rest is to come
            undecided = max(undecided, 1)
        decided = self._pending[: len(self._pending) - undecided]
        # White space is shown once something follows it.
        cut = len(decided if self._exact else decided.rstrip())
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return self._emit(text)

    def _emit(self, text: str) -> str:
        if not self.answer and not self._exact:
            text = text.lstrip()
        text = writable(text)
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
