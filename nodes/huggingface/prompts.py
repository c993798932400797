"""Messages become the token ids that a model reads.

    messages ──control tokens broken up──> chat template  or  plain format  ──tokenised once──> ids

What people and other experts write is data: whatever this tokenizer would read as one of its added tokens
inside a message is broken up before the template is applied, so no message can open a turn of its own; so are
the labels of a plain format where they begin a line. A chat template brings its own beginning-of-sequence
token; a plain format gets the tokenizer's; neither gets two.
"""

from __future__ import annotations

import functools
import itertools
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from der_graph.errors import ExpertError
from der_graph.nodes.conversation import block_beside_text
from der_graph.nodes.providers.messages import OPENING

FORMAT_FIELDS = frozenset({"text", "system", "history"})
"""What a plain format may use: the last human message, the system text, the turns before."""

DEFAULT_FORMAT = "Question: {text}\nAnswer:"
"""For models without a chat template."""

DEFAULT_STOP = ("\nQuestion:",)
"""Where an answer in the default format ends: base models go on with a question of their own."""

TURNS = {"user": "User", "assistant": "Assistant"}
"""Labels of earlier turns in a plain format."""

_BREAKS = "\n\r\x0b\x0c\x85\u2028\u2029"  # that begin a line
_COLONS = ":\uff1a"  # the second is of full width
_NUMBERED = r"(?:\d{1,3}[.)]\s?)?"  # as in "1. Question:"
_SPACED = 4  # rounds in which tokens are broken up by a space
_ROUNDS = 8  # rounds at all; then all characters that tokens are made of go


class Prompt(NamedTuple):
    """A prompt as the model reads it.

    Attributes:
        text: Rendered, for messages about it.
        ids: Token ids.
        thinking: Does the prompt end inside an opened thought?
    """

    text: str
    ids: list[int]
    thinking: bool


@dataclass(frozen=True)
class PromptWriter:
    """Writes prompts for one tokenizer.

    Attributes:
        tokenizer: The tokenizer.
        prompt_format: A plain format; None for the chat template, or the default format without one.
        tags: The marks of a thought, or None.
        template_settings: Passed on to the chat template, such as `{"enable_thinking": False}`.
    """

    tokenizer: Any
    prompt_format: str | None = None
    tags: tuple[str, str] | None = None
    template_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> str | None:
        """The plain format that is used, or None where the chat template is."""
        if self.prompt_format is None and not self.tokenizer.chat_template:
            return DEFAULT_FORMAT
        return self.prompt_format

    def __call__(self, messages: Sequence[BaseMessage]) -> Prompt:
        """Write the prompt of a conversation.

        Raises:
            ExpertError: If there is nothing to answer, or a message holds something other than text.
        """
        turns = merge_turns(
            [(role_of(message), self.quote(text_of(message))) for message in messages]
        )
        if not any(role == "user" for role, _ in turns):
            raise ExpertError("the prompt has no human message, so there is nothing to answer")
        plain = self.plain
        text = self._render(turns) if plain is None else fill_format(plain, turns)
        ids = self._encode(text, templated=plain is None)
        thinking = self.tags is not None and text.rstrip().endswith(self.tags[0])
        return Prompt(text, ids, thinking)

    def quote(self, text: str) -> str:
        """Break up what this tokenizer would read as one of its added tokens, and labels of a plain format.

        A space after the first character does. The tokenizer is asked itself, as it may fold characters
        first.

        Raises:
            ExpertError: If a token is formed whatever is done.
        """
        text = self._labels.sub(r"\1\2 ", text)
        tags = self._tags
        # Breaking one up may put another together, and a tokenizer may drop the space: then the character
        # goes.
        for attempt in range(_ROUNDS):
            text = tags.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", text)
            formed = self._formed(text)
            if not formed:
                return text
            for start in reversed(formed):
                text = f"{text[: start + (attempt < _SPACED)]} {text[start + 1 :]}"
        text = re.sub(r"[^\w\s.,;:?!()'\"+*/=-]", " ", text)
        if self._formed(text):
            raise ExpertError(
                "a message holds control tokens of the model that cannot be broken up"
            )
        return text

    def _formed(self, text: str) -> list[int]:
        """Where added tokens are formed, by their first characters; each place once."""
        if not text:
            return []
        if getattr(self.tokenizer, "is_fast", False):
            read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            pairs = zip(read["input_ids"], read["offset_mapping"], strict=True)
            return sorted({start for token, (start, _) in pairs if token in self._added})
        found = {self._added[token] for token in self._ids(text) if token in self._added}
        # Without offsets: wherever such a token stands, and at the beginning if it stands nowhere as it is.
        starts = {match.start() for token in found for match in re.finditer(re.escape(token), text)}
        return sorted(starts or ([0] if found else []))

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    @functools.cached_property
    def _added(self) -> dict[int, str]:
        """The added tokens that texts must not form, by id.

        White space is no control token, and one character cannot be broken up and opens no turn.
        """
        return {
            token: entry.content
            for token, entry in self.tokenizer.added_tokens_decoder.items()
            if len(entry.content.strip("\u2581 \t\r\n")) > 1
        }

    @functools.cached_property
    def _tags(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.tags or ())) or r"(?!)")

    @functools.cached_property
    def _labels(self) -> re.Pattern[str]:
        """What opens a turn in the plain format, `Question:` at the beginning of a line; else nothing.

        A base model takes a line with such a label for one more of its examples.
        """
        if self.plain is None:
            return re.compile(r"(?!)()()")
        parts = list(string.Formatter().parse(self.plain))
        fixed = "\0".join(literal for literal, *_ in parts)  # a field ends what may be a label
        found = re.findall(
            rf"(?m)^[^\w\n\0]*{_NUMBERED}([^\W\d_][^\n\0{_COLONS}]{{0,40}})[{_COLONS}]", fixed
        )
        if any(name == "history" for _, name, *_ in parts):
            found += TURNS.values()
        # A letter alone is no label of text: people write their options so (A: this, B: that).
        named = {label.strip() for label in found if len(label.strip()) > 1}
        labels = "|".join(sorted(map(re.escape, named))) or r"(?!)"
        begin = rf"((?:^|(?<=[{_BREAKS}]))[^\w{_BREAKS}]{{0,40}}{_NUMBERED})"
        return re.compile(rf"(?i){begin}(?=(?:{labels})[ \t\xa0]*[{_COLONS}])(.)")

    def _encode(self, text: str, *, templated: bool) -> list[int]:
        start = self.tokenizer.bos_token
        own_start = templated or bool(start and text.startswith(start))
        ids = self._ids(text, special=not own_start)
        # Some tokenizers also close what they encode; a prompt is to be continued.
        if not own_start and len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id:
            ids.pop()
        return ids

    def _render(self, turns: list[tuple[str, str]]) -> str:
        # Templates that let nobody but the user begin get that turn, and those without a system role
        # (Gemma's) get it in the first human turn.
        opened = _opened(turns)
        for tried in (turns, opened, _folded(opened)):
            try:
                return self._apply([{"role": role, "content": text} for role, text in tried])
            except Exception as error:
                refusal = error
        raise ExpertError(f"the chat template refuses this conversation: {refusal}") from refusal

    def _apply(self, chat: list[dict[str, str]]) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, **self.template_settings
            )
        )


def fill_format(plain: str, turns: Sequence[tuple[str, str]]) -> str:
    """Fill a plain format: `{text}` is the last human turn, `{system}` and `{history}` what came before."""
    last = max(index for index, (role, _) in enumerate(turns) if role == "user")
    system = "\n\n".join(text for role, text in turns[:last] if role == "system")
    history = "\n".join(f"{TURNS[role]}: {text}" for role, text in turns[:last] if role in TURNS)
    return plain.format(text=turns[last][1], system=system, history=history)


def _opened(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same, begun by the user where the assistant has opened the chat."""
    at = turns[0][0] == "system"
    begun_by = [role for role, _ in turns[at : at + 1]]
    return [*turns[:at], ("user", OPENING), *turns[at:]] if begun_by == ["assistant"] else turns


def _folded(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same, with the system prompt at the head of the turn after it."""
    if turns[0][0] != "system" or len(turns) < 2:
        return turns
    (_, system), (role, text), *rest = turns
    return [(role, f"{system}\n\n{text}"), *rest]


def merge_turns(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join neighbours of one role: many templates demand that roles alternate."""
    groups = itertools.groupby(turns, key=lambda turn: turn[0])
    return [(role, "\n\n".join(text for _, text in group)) for role, group in groups]


def role_of(message: BaseMessage) -> str:
    """The role of a message in chat templates.

    Raises:
        ExpertError: For messages that templates have no common role for, such as results of tools.
    """
    for kind, role in ((HumanMessage, "user"), (AIMessage, "assistant"), (SystemMessage, "system")):
        if isinstance(message, kind):
            return role
    role = getattr(message, "role", message.type)
    if role in ("user", "assistant", "system"):
        return str(role)
    raise ExpertError(
        f"a '{message.type}' message cannot be given to a local model; use human, ai and system"
    )


def text_of(message: BaseMessage) -> str:
    """The text of a message.

    Raises:
        ExpertError: If it holds anything else, such as an image.
    """
    kind = block_beside_text(message, "reasoning", "thinking")
    if kind is not None:
        raise ExpertError(
            f"this expert reads text only, and a message holds a block of type '{kind}'"
        )
    return str(message.text)
