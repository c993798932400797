"""Text that files and sockets take, whatever a model made of its characters."""

from __future__ import annotations


def writable(text: str) -> str:
    """The text with surrogate pairs as one character, and halves of such, which no socket takes, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
