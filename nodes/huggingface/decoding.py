"""Token ids become text while a model writes.

    ids ──TokenReader──> text ──AnswerReader──> answer (safe to show at once) | thought | stopped

The second half is `nodes/providers/thoughts.py`, as models elsewhere think too. The same readers serve single
calls, batches and streams, so all three give the same text.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any


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
