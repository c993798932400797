"""Data files: questions with references, and the recorded answers that some of them carry.

This room reads files and knows nothing of experts or agents.
"""

from der_graph.data.files import ALIAS_SEPARATOR, Candidate, Example, load_examples, read_history
from der_graph.data.formats import Columns
from der_graph.data.writing import merged, write_examples

__all__ = [
    "ALIAS_SEPARATOR",
    "Candidate",
    "Columns",
    "Example",
    "load_examples",
    "merged",
    "read_history",
    "write_examples",
]
