"""How much memory models take, before any is loaded: weights, keys and values, head-room.

    config.json + file headers ──footprint──> Footprint ──plan──> what each gets of a device

Bytes are estimated from shapes: within some per cent of what a device shows. Knows nothing of pools.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from der_graph.nodes.huggingface.weights import Weights, local_folder, parameters_b

GB = 1_000_000_000
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
QUANTIZED_BYTES = {"8bit": 1.0, "int8": 1.0, "float8": 1.0, "4bit": 0.56, "int4": 0.56}
"""Bytes a parameter of a linear layer, scales included; embeddings keep their type."""

_USABLE = 0.92  # of a device: the driver and the fragments of the allocator take the rest
_WORKSPACE = 0.6 * GB  # of a step of a model: activations and scores
_INDEX_BYTES = 8  # of a token of the cache: where it lies


@dataclass(frozen=True)
class Footprint:
    """What a model needs of a device.

    Attributes:
        name: Of the expert.
        weights: Bytes of the weights.
        per_token: Bytes of keys and values of one token.
        step: Bytes that a step needs beside them, for each token that it reads.
        context: Most tokens of a conversation, answer included.
        shared: Models with the same one share their weights.
        max_requests: Most requests at a time.
        cache: Bytes of keys and values, where that was decided.
        offload: Does it take turns on the device with others that do?
    """

    name: str
    weights: int
    per_token: int
    context: int
    shared: str
    max_requests: int = 256
    cache: int | None = None
    step: int = 0
    offload: bool = False

    @property
    def least(self) -> int:
        """Bytes beside the weights that it needs: those of one conversation, or as was decided."""
        tokens = self.context if self.cache is None else self.cache // self.per_token
        return min(self.most, (self.per_token + self.step) * tokens)

    @property
    def most(self) -> int:
        """Bytes beside the weights that it can use: all its requests, each as long as it may become."""
        return (self.per_token + self.step) * self.context * self.max_requests


@dataclass(frozen=True)
class Share:
    """What a plan gives a model.

    Attributes:
        footprint: The model.
        weights: Bytes of weights; 0 where another expert has loaded them.
        room: Bytes beside the weights.
    """

    footprint: Footprint
    weights: int
    room: int

    @property
    def tokens(self) -> int:
        """Tokens whose keys and values there is room for."""
        return self.room // (self.footprint.per_token + self.footprint.step)

    @property
    def cache(self) -> int:
        """Bytes of keys and values."""
        return self.tokens * self.footprint.per_token


@dataclass(frozen=True)
class Plan:
    """How the memory of one device is shared out.

    Attributes:
        total: Bytes of the device.
        shares: For each model, in order.
        spare: Bytes that are left once every model has what it can use; negative: so many are missing.
    """

    total: int
    shares: tuple[Share, ...]
    spare: int

    @property
    def fits(self) -> bool:
        """Is there room for all weights, and for one whole conversation with each model?"""
        return self.spare >= 0


def kv_bytes_per_token(config: Any, item_bytes: int) -> int:
    """Bytes of the keys and values of one token, over all layers.

    Args:
        config: Of transformers, or the content of a config.json.
        item_bytes: Bytes of a number.
    """
    layers, _, shared, width = _shape(config)
    return max(1, 2 * layers * shared * width * item_bytes)


def step_tokens(*, flash: bool) -> int:
    """Tokens that one step of continuous batches reads at most."""
    return 8192 if flash else 2048


def step_bytes_per_token(config: Any, item_bytes: int, *, flash: bool) -> int:
    """Bytes that a step of continuous batches needs for each token of the cache, at one layer at a time.

    The keys and values are read into a copy. SDPA has them repeated for every head, and a mask of as many
    rows as a step has tokens. Transformers counts likewise, and begins nothing that would not fit.

    Args:
        config: Of transformers, or the content of a config.json.
        item_bytes: Bytes of a number.
        flash: Is it flash attention, and not SDPA?
    """
    _, heads, shared, width = _shape(config)
    copies = 2 * shared if flash else 2 * heads + shared
    mask = 0 if flash else step_tokens(flash=False)
    return (copies * width + mask) * item_bytes + _INDEX_BYTES


def _shape(config: Any) -> tuple[int, int, int, int]:
    """Layers, heads, heads of keys and values, numbers of a head."""
    values = config if isinstance(config, dict) else config.get_text_config().to_dict()
    values = values.get("text_config") or values
    layers = _first(values, "num_hidden_layers", "n_layer", "num_layers")
    heads = _first(values, "num_attention_heads", "n_head")
    hidden = _first(values, "hidden_size", "n_embd")
    width = values.get("head_dim") or hidden // max(1, heads)
    return layers, heads, int(values.get("num_key_value_heads") or heads), int(width)


def footprint(
    name: str,
    weights: Weights,
    *,
    dtype: str = "auto",
    quantization: str | None = None,
    adapter: str | None = None,
    max_requests: int = 256,
    cache: int | None = None,
    flash: bool = False,
    offload: bool = False,
) -> Footprint | None:
    """Estimate what a model needs; None where its files are not on this machine.

    Args:
        name: Of the expert.
        weights: Where its weights are.
        dtype: As in a pool file; `auto` is 16 bits.
        quantization: As in a pool file.
        adapter: Folder of a LoRA adapter that is merged into weights of its own.
        max_requests: Most requests at a time.
        cache: Bytes of keys and values, where that was decided.
        flash: Is flash attention used?
        offload: Does it take turns on the device with others that do?
    """
    size, folder = parameters_b(weights), local_folder(weights)
    if size is None or folder is None:
        return None
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    item = ITEM_BYTES.get(dtype, 2)
    parameters = round(size * GB)
    text = values.get("text_config") or values
    embedding = min(parameters, _first(text, "vocab_size") * _first(text, "hidden_size", "n_embd"))
    if not values.get("tie_word_embeddings", False):
        embedding = min(parameters, 2 * embedding)
    each = QUANTIZED_BYTES[quantization] if quantization else item
    context = values.get("max_position_embeddings") or text.get("max_position_embeddings") or 4096
    return Footprint(
        name,
        round(embedding * item + (parameters - embedding) * each),
        kv_bytes_per_token(values, item),
        int(context),
        "|".join([weights.fingerprint, dtype, quantization or "", adapter or ""]),
        max_requests,
        cache,
        step_bytes_per_token(values, item, flash=flash),
        offload,
    )


def plan(footprints: Sequence[Footprint], total: int) -> Plan:
    """Share the memory of a device out: weights first, then keys and values in equal parts.

    Args:
        footprints: The models that are to be on the device at the same time.
        total: Its bytes.

    Returns:
        The plan; where it does not fit, every model gets room for one conversation, and `spare` is negative.
    """
    seen: set[str] = set()
    loaded: list[int] = []
    for each in footprints:
        loaded.append(0 if each.shared in seen else each.weights)
        seen.add(each.shared)
    owners = [each for each, bytes_ in zip(footprints, loaded, strict=True) if bytes_]
    given = {each.shared: each.least for each in owners}
    # Of those that take turns one is there at a time.
    turns = [each.weights + each.least for each in owners if each.offload]
    owners = [each for each in owners if not each.offload]
    needed = sum(each.weights + each.least for each in owners) + max(turns, default=0)
    left = int(total * _USABLE - needed - _WORKSPACE * (len(owners) + bool(turns)))
    # Who can use less than an equal part leaves the rest to the others.
    for number, each in enumerate(sorted(owners, key=lambda owner: owner.most)):
        wants = each.most - each.least if each.cache is None else 0
        more = min(wants, max(0, left) // (len(owners) - number))
        given[each.shared] += more
        left -= more
    shares = tuple(
        Share(each, bytes_, given[each.shared] if bytes_ else 0)
        for each, bytes_ in zip(footprints, loaded, strict=True)
    )
    return Plan(total, shares, left)


def table(made: Plan) -> list[str]:
    """A plan for people: one line a model, and the sum."""
    width = max([6, *(len(share.footprint.name) for share in made.shares)])
    lines = [f"{'expert':{width}}  weights GB  KV GB  KV tokens  B/token"]
    for share in made.shares:
        if share.footprint.offload and share.weights:
            lines.append(
                f"{share.footprint.name:{width}}  {share.weights / GB:10.2f} while it has its turn"
            )
        elif share.weights:
            lines.append(
                f"{share.footprint.name:{width}}  {share.weights / GB:10.2f} {share.cache / GB:6.2f} "
                f"{share.tokens:10,d} {share.footprint.per_token:8,d}"
            )
        else:
            lines.append(f"{share.footprint.name:{width}}  shares the weights of another expert")
    free = f"{made.spare / GB:.2f} GB to spare"
    missing = (
        f"{-made.spare / GB:.2f} GB are missing: use quantization, a larger device or fewer experts"
    )
    lines.append(f"device of {made.total / GB:.1f} GB: {free if made.fits else missing}")
    return lines


def device_bytes(device: str) -> int | None:
    """Bytes of a CUDA device of this machine; None if there is none. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(torch.device(device)).total_memory)


def _first(values: dict[str, Any], *names: str) -> int:
    return int(next((values[name] for name in names if values.get(name)), 0))
