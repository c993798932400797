"""Answers of experts for training and evaluation: asked once, kept, scored.

`AnswerSource` asks and scores, `AnswerCache` keeps answers on disk, `collect_answers` fills the cache
ahead. This room knows experts and metrics; it does not know who decides whom to ask.
"""

from der_graph.policies.answers.cache import MEMORY, AnswerCache, open_cache
from der_graph.policies.answers.cached_expert import with_cache
from der_graph.policies.answers.source import AnswerSource, Outcome, Request, check_recorded

__all__ = [
    "MEMORY",
    "AnswerCache",
    "AnswerSource",
    "Outcome",
    "Request",
    "check_recorded",
    "open_cache",
    "with_cache",
]
