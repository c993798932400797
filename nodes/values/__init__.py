"""What an answer comes to: the short part that counts, in one spelling, so that answers can be compared.

Text in, text out. This room knows nothing of experts, graphs or metrics.
"""

from der_graph.nodes.values.extraction import extract_value, normalize_text, normalize_value
from der_graph.nodes.values.refusal import is_refusal
from der_graph.nodes.values.spelling import json_spelling, one_spelling, parse_number, write_number

__all__ = [
    "extract_value",
    "is_refusal",
    "json_spelling",
    "normalize_text",
    "normalize_value",
    "one_spelling",
    "parse_number",
    "write_number",
]
