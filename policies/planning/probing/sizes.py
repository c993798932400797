"""How large a model is: from what its expert costs, its weights, or its name.

    "openai:llama-3.1-8b-instruct" ──size_in_name──> 8.0 billion parameters

Knows nothing of skills.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from der_graph.nodes.expert import Expert
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.reliability import bare

_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d{1,2})x)?(\d{1,4}(?:\.\d{1,3})?)(b|m)(?![a-z0-9])", re.I)
_LARGEST = 5_000.0  # billions; larger numbers are not sizes


def size_in_name(name: str) -> float | None:
    """Billions of parameters by a model's name, or None where it does not say.

    Examples:
        >>> size_in_name("meta-llama/Llama-3.1-8B-Instruct")
        8.0
        >>> size_in_name("mixtral-8x7b")
        56.0
        >>> size_in_name("SmolLM2-135M")
        0.135
        >>> size_in_name("gpt-4o-mini") is None
        True
    """
    found = _SIZE.findall(name.replace("_", "-"))
    if not found:
        return None
    times, number, unit = found[0]
    size = float(number) * int(times or 1) / (1.0 if unit.lower() == "b" else 1000.0)
    return size if 0 < size <= _LARGEST else None


def sizes_of(experts: Sequence[Expert], cost_unit: str = "") -> list[float | None]:
    """Billions of parameters of each expert, None where nothing says.

    Args:
        experts: The experts.
        cost_unit: What their costs count; `parameters_b` are sizes already.
    """
    return [_size_of(expert, cost_unit) for expert in experts]


def _size_of(expert: Expert, cost_unit: str) -> float | None:
    if cost_unit == "parameters_b" and expert.cost > 0 and expert.token_prices is None:
        return expert.cost
    model = bare(expert.model)
    if isinstance(model, HuggingFaceChat):
        return model.parameters_b or size_in_name(model.model)
    for name in (getattr(model, "model_name", None), getattr(model, "model", None), expert.name):
        size = size_in_name(name) if isinstance(name, str) else None
        if size is not None:
            return size
    return None
