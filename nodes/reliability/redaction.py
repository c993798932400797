"""A model that keeps the secrets of its settings out of its errors.

settings ──secrets_in──> texts to hide ──Guarded──> a model whose errors show *** instead
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.runnables import RunnableBinding, RunnableConfig

from der_graph.nodes.providers.secrets import masked_error, quiet


class Guarded(RunnableBinding[Any, Any]):
    """A model whose errors do not show its secrets."""

    secrets: tuple[str, ...] = ()

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [("bound", type(self.bound).__name__)]

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `Runnable.invoke`, with errors masked."""
        with quiet(self.secrets):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `Runnable.ainvoke`, with errors masked."""
        with quiet(self.secrets):
            return await super().ainvoke(input, config, **kwargs)

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """As `Runnable.batch`, with errors masked."""
        with quiet(self.secrets):
            return [self._masked(result) for result in super().batch(inputs, config, **kwargs)]

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """As `Runnable.abatch`, with errors masked."""
        with quiet(self.secrets):
            return [
                self._masked(result) for result in await super().abatch(inputs, config, **kwargs)
            ]

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """As `Runnable.stream`, with errors masked."""
        with quiet(self.secrets):
            yield from super().stream(input, config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As `Runnable.astream`, with errors masked."""
        with quiet(self.secrets):
            async for piece in super().astream(input, config, **kwargs):
                yield piece

    def _masked(self, result: Any) -> Any:
        return masked_error(result, self.secrets) if isinstance(result, Exception) else result
