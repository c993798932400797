"""What the prompts of a batch have in common is read once, and not by every row.

    [system prompt, examples | pad | question 1]
    [      read once         |     | question 2]

System prompts and worked examples are often longer than the question itself, and on a CPU reading prompts is
most of the work of a batch. Knows nothing of LangChain.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

_WORTH_IT = 8
"""Shorter starts are not worth a call of the model."""


def shared_start(prompts: Sequence[Sequence[int]]) -> int:
    """How many ids at the start are the same in all prompts; 0 where reading them once does not pay.

    At least one id of every prompt is left: its logits choose the first token of the answer.
    """
    if len(prompts) < 2:
        return 0
    shortest = min(len(ids) for ids in prompts) - 1
    first = prompts[0]
    same = next(
        (i for i in range(shortest) if any(ids[i] != first[i] for ids in prompts)), max(shortest, 0)
    )
    return same if same >= _WORTH_IT else 0


def can_share(model: Any) -> bool:
    """Does the model keep what it has read in the usual way, so that rows can begin with the same?"""
    config = model.config
    odd = getattr(model, "_is_stateful", False) or getattr(config, "is_encoder_decoder", False)
    return not odd and "logits_to_keep" in inspect.signature(model.forward).parameters


def padded_rows(
    prompts: Sequence[Sequence[int]], shared: int, pad: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of one length, (batch, width), padded after the shared start; and their attention mask."""
    width = max(len(ids) for ids in prompts)
    rows, mask = [], []
    for ids in prompts:
        gap = width - len(ids)
        rows.append([*ids[:shared], *[pad] * gap, *ids[shared:]])
        mask.append([*[1] * shared, *[0] * gap, *[1] * (len(ids) - shared)])
    return rows, mask


def read_once(model: Any, start: Sequence[int], rows: int) -> Any:
    """What the model keeps of a start, for a number of rows."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config.get_text_config())
    ids = torch.tensor([list(start)], device=model.device)
    model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_repeat_interleave(rows)
    return cache
