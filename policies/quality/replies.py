"""What a model replied, asked for once: kept in memory, and in an answer cache.

    prompts ──known──> replies        ──new──> model, one batch ──> replies, kept

Kept in the cache only where it can be told what the replies depend on. Knows nothing of marks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable

from der_graph.state import Answer, blank_answer


class ReplyCache(Protocol):
    """What keeps replies: an `AnswerCache`."""

    def get_many(self, keys: Sequence[str]) -> Mapping[str, Answer]:
        """What is there, by key."""

    def put_many(self, items: Mapping[str, Answer]) -> None:
        """Keep."""


class Replies:
    """Replies of a model by what it was asked.

    Args:
        model: Takes messages.
        name: Under which replies are kept.
        identity: What they depend on beside name and prompt; empty where that cannot be told.
    """

    def __init__(self, model: Runnable[Any, Any], name: str, identity: str) -> None:
        self._model, self._name, self._identity = model, name, identity
        self._known: dict[str, str] = {}
        self._cache: ReplyCache | None = None

    def keep_in(self, cache: ReplyCache) -> None:
        """Keep replies in an answer cache too."""
        self._cache = cache if self._identity else None

    def ask(
        self, prompts: Sequence[Sequence[BaseMessage]], readable: Callable[[str], bool]
    ) -> list[str | Exception]:
        """The reply to each prompt, or what went wrong; equal prompts are asked once.

        Args:
            prompts: Any number.
            readable: Whether a reply says what was asked for; others are not kept for later runs.
        """
        keys = [self._key(prompt) for prompt in prompts]
        self._recall([key for key in keys if key not in self._known])
        new = {k: list(p) for k, p in zip(keys, prompts, strict=True) if k not in self._known}
        given = self._model.batch(list(new.values()), return_exceptions=True) if new else []
        failed = {k: r for k, r in zip(new, given, strict=True) if isinstance(r, Exception)}
        fresh = {
            key: reply.text if isinstance(reply, BaseMessage) else str(reply)
            for key, reply in zip(new, given, strict=True)
            if key not in failed
        }
        self._known.update(fresh)
        good = {key: blank_answer(self._name, text=t) for key, t in fresh.items() if readable(t)}
        if self._cache is not None and good:
            self._cache.put_many(good)
        return [failed[key] if key in failed else self._known[key] for key in keys]

    def _key(self, prompt: Sequence[BaseMessage]) -> str:
        parts = [self._name, self._identity, *(str(message.text) for message in prompt)]
        return hashlib.sha256("\x00".join(parts).encode("utf-8", "replace")).hexdigest()

    def _recall(self, keys: Sequence[str]) -> None:
        if self._cache is not None and keys:
            found = self._cache.get_many(list(keys))
            self._known.update({key: answer["text"] for key, answer in found.items()})
