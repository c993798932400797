"""What providers of models mean: failures, ends of answers, thoughts, and messages that they take.

Every provider has words of its own for the same things. This room reads them; it knows nothing of experts and
routes.
"""

from der_graph.nodes.providers.chat import ProviderChat
from der_graph.nodes.providers.client_errors import Failure, FailureKind, failure_of
from der_graph.nodes.providers.finish import finish_reason_of, is_broken_off
from der_graph.nodes.providers.thoughts import (
    THINK_TAGS,
    THOUGHT_MARKS,
    AnswerReader,
    Habit,
    ThoughtMarks,
    split_thought,
)
from der_graph.nodes.providers.tool_calls import with_ids

__all__ = [
    "THINK_TAGS",
    "THOUGHT_MARKS",
    "AnswerReader",
    "Failure",
    "FailureKind",
    "Habit",
    "ProviderChat",
    "ThoughtMarks",
    "failure_of",
    "finish_reason_of",
    "is_broken_off",
    "split_thought",
    "with_ids",
]
