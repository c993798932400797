"""Data files: questions with references, and the recorded answers that some of them carry.

This room reads files and knows nothing of experts or agents.
"""

from der_graph.data.files import ALIAS_SEPARATOR, Candidate, Example, load_examples, read_history

__all__ = ["ALIAS_SEPARATOR", "Candidate", "Example", "load_examples", "read_history"]
