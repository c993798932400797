"""Answers that are none: "I do not know.", "I'm sorry, but I can't help with that", "ok ok ok".

They say nothing about the question, so two of them do not agree, and a route does not end on them while
somebody else can be asked.
"""

from __future__ import annotations

import re

_LONGEST = 300  # characters; what is longer says something beside

_START = (
    r"(?:(?:sorry|i(?:'m| am) (?:sorry|afraid)|unfortunately|apologies|well|hmm+|as an ai[^,.]*)[,.!;:]?\s*)*"
    r"(?:but |that )?"
)
_NOT = (
    r"(?:do(?:es)? not|don't|cannot|can not|can't|could not|couldn't|am not able to|am unable to|'m unable to"
    r"|'m not able to|am not|'m not|won't|will not|have no|'ve no)"
)
_WHAT = (
    r"(?:know|say|tell|answer|help|assist|determine|solve|provide|give|sure|certain|idea|understand|see|find"
    r"|do that|be sure|have (?:an|the|enough|any))"
)
_REFUSAL = re.compile(
    rf"{_START}(?:"
    rf"i\s*(?:really |simply |honestly |just )?{_NOT} (?:really |quite |sure how to |possibly )?{_WHAT}\b.*"
    r"|(?:no|not any) (?:idea|answer|clue)\b.*|not sure\b.*|unknown|n/?a|none|no comment|pass"
    r"|it is (?:not possible|impossible) to (?:say|tell|know|answer|determine)\b.*"
    r"|(?:there is|there's) (?:not enough|no|insufficient) (?:information|data|answer)\b.*"
    r")[.!]*",
    re.IGNORECASE | re.DOTALL,
)
_EMPTY = re.compile(
    r"(?:(?:ok(?:ay)?|yes|yeah|sure|fine|well|hm+|um+|uh+|thanks?|hello|hi)\b\W*)+", re.IGNORECASE
)
_FOUND = re.compile(
    r"\d|\\boxed|####|\b(?:the )?answer is\b(?! not| unknown| unclear)", re.IGNORECASE
)


def is_refusal(text: str) -> bool:
    """Is this the confession that there is no answer, or empty words?

    Examples:
        >>> [is_refusal(text) for text in ("I do not know.", "I can't help with that.", "ok ok ok")]
        [True, True, True]
        >>> [is_refusal(text) for text in ("I don't know, but 17 seems right.", "yes", "No", "a dog")]
        [False, False, False, False]
    """
    if len(text) > 2 * _LONGEST:
        return False
    text = text.strip().replace("\u2019", "'")
    if not text or len(text) > _LONGEST or _FOUND.search(text):
        return False
    if len(text.split()) > 1 and _EMPTY.fullmatch(text):
        return True
    return _REFUSAL.fullmatch(text) is not None
