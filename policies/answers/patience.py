"""Calls that came too fast for a provider, made again.

    wanted ──ask──> answers, handed on as they come; what was refused for the moment ──a while──> asked again

On a route another expert takes over. Where answers are collected nobody does, and a call that was refused for
the moment would count as a wrong answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from der_graph.state import Answer

Wanted = TypeVar("Wanted")

_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds, at least, after rounds in which nobody answered
_LONGEST_WAIT = 90.0  # limits are by the minute; who wants longer is out of quota


def patiently(
    ask: Callable[[list[Wanted]], Iterable[tuple[Sequence[Wanted], Sequence[Answer]]]],
    wanted: Sequence[Wanted],
    stopped: threading.Event,
) -> Iterator[tuple[list[Wanted], list[Answer]]]:
    """Ask, and ask again what came too fast, as long as some of it is answered.

    Args:
        ask: Asks for some, and gives these with their answers, in parts as they come.
        wanted: What to ask for.
        stopped: Once it is set nothing is waited for.

    Returns:
        The same in parts, each once; what is refused for good comes last, as it is.
    """
    left, idle = list(wanted), 0
    while left:
        refused: list[tuple[Wanted, Answer]] = []
        answered = False
        for asked, answers in ask(left):
            done = [each for each in zip(asked, answers, strict=True) if not _too_fast(each[1])]
            refused += [each for each in zip(asked, answers, strict=True) if _too_fast(each[1])]
            if done:
                answered = True
                yield [one for one, _ in done], [answer for _, answer in done]
        if not refused:
            return
        idle = 0 if answered else idle + 1
        left = [one for one, _ in refused]
        wait = max(answer.get("retry_after") or 0.0 for _, answer in refused)
        wait = max(wait, _WAITS[min(max(idle - 1, 0), len(_WAITS) - 1)])
        if idle > len(_WAITS) or wait > _LONGEST_WAIT or stopped.wait(wait):
            yield left, [answer for _, answer in refused]
            return


def _too_fast(answer: Answer) -> bool:
    kind = answer.get("failure")
    return kind == "rate_limit" or (kind == "open" and answer.get("retry_after") is not None)
