"""The conversation before a question, in a line of a data file.

    {"question": "And twice that?", "answer": "24", "history": [{"role": "user", "content": "What is 3 * 4?"},
                                                               {"role": "assistant", "content": "12"}]}

Roles are those of chat APIs. Training prompts experts with the history and shows it to the agent exactly as
the graph does. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

ROLES = ("system", "user", "assistant")


def read_history(given: Any, fail: Callable[[str], NoReturn]) -> tuple[tuple[str, str], ...]:
    """Read the field `history` of a line.

    Args:
        given: Its value; None where there is none.
        fail: Called with what is wrong; raises.

    Returns:
        Pairs of role and text, in order.
    """
    if given is None:
        return ()
    if not isinstance(given, list):
        fail(f'"history" is a {type(given).__name__}; it must be a list of {{"role", "content"}}')
    turns = []
    for number, turn in enumerate(given, 1):
        role, text = (
            (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        )
        if role not in ROLES or not isinstance(text, str) or not text.strip():
            fail(
                f'turn {number} of "history" is {str(turn)[:80]}; it must be {{"role": one of '
                f'{", ".join(ROLES)}; "content": some text}}'
            )
        turns.append((str(role), text))
    return tuple(turns)
