"""What models need of a GPU, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_model

from der_graph.nodes.huggingface import find_weights
from der_graph.nodes.huggingface.memory import (
    GB,
    Footprint,
    footprint,
    kv_bytes_per_token,
    plan,
    step_bytes_per_token,
    table,
)

LLAMA_8B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
}


def test_keys_and_values_of_a_token() -> None:
    assert kv_bytes_per_token(LLAMA_8B, 2) == 131_072  # 2 * 32 layers * 8 heads * 128 * 2 bytes
    assert kv_bytes_per_token({"text_config": {**LLAMA_8B, "head_dim": 64}}, 2) == 65_536
    assert kv_bytes_per_token({"n_layer": 2, "n_head": 4, "n_embd": 32}, 4) == 512
    assert kv_bytes_per_token(tiny_model().config, 4) == 512


def test_what_a_step_needs_beside_the_cache() -> None:
    # SDPA: keys and values of 32 heads, and once more of 8; a mask of 2,048 rows; 8 bytes say where they are
    assert step_bytes_per_token(LLAMA_8B, 2, flash=False) == (2 * 32 + 8) * 128 * 2 + 2 * 2048 + 8
    assert step_bytes_per_token(LLAMA_8B, 2, flash=True) == 2 * 8 * 128 * 2 + 8


def test_what_a_step_needs_is_what_transformers_counts() -> None:
    from transformers import ContinuousBatchingConfig
    from transformers.generation.continuous_batching.cache import PagedAttentionMemoryHandler

    model = tiny_model()
    per_token = kv_bytes_per_token(model.config, 4)
    config = ContinuousBatchingConfig(
        page_size=32, max_batch_tokens=2048, max_requests_per_batch=8, max_memory_percent=0.9
    )
    config.max_blocks_per_request = 0
    theirs = PagedAttentionMemoryHandler(
        config=model.config,
        cb_config=config,
        dtype=model.dtype,
        bytes_per_sector=per_token * 32,
        tokens_per_sector=32,
        bytes_per_block=per_token * 32,
        attn_types=["full_attention"],
    )
    one, two = (theirs.compute_memory_footprint(2048, number) for number in (1, 2))
    assert two - one == 32 * (per_token + step_bytes_per_token(model.config, 4, flash=False))


def test_the_room_for_keys_and_values_leaves_what_a_step_needs() -> None:
    tight = Footprint("a", 16 * GB, 100_000, 1_000, "a", step=25_000)
    made = plan([tight], 24 * GB)
    # 0.92 * 24 - 16 - 0.6 = 5.48 for cache and steps: 4 / 5 of it for the cache
    assert made.shares[0].tokens == 43_840
    assert made.shares[0].cache == pytest.approx(4.384 * GB)
    given = plan([Footprint("a", 0, 100_000, 1_000, "a", cache=2 * GB, step=25_000)], 24 * GB)
    assert given.shares[0].cache == 0  # of no weights: another expert has them
    given = plan([Footprint("a", GB, 100_000, 1_000, "a", cache=2 * GB, step=25_000)], 24 * GB)
    assert given.shares[0].cache == 2 * GB


def test_a_footprint_is_that_of_the_files(folder: Path) -> None:
    parameters = sum(p.numel() for p in tiny_model().parameters())
    found = footprint("tiny", find_weights(str(folder)))
    assert found is not None
    assert found.weights == 2 * parameters
    assert (found.per_token, found.context) == (256, 256)
    embedding = 2 * 105 * 32
    packed = footprint("tiny", find_weights(str(folder)), dtype="float32", quantization="8bit")
    assert packed is not None
    assert packed.weights == 4 * embedding + (parameters - embedding)
    assert footprint("x", find_weights("nobody/has-this")) is None


def needs(name: str, weights: float, shared: str = "", *, most: int = 10) -> Footprint:
    """A model of so many GB, and 1 GB of keys and values for a conversation."""
    return Footprint(name, round(weights * GB), 1_000_000, 1_000, shared or name, most)


def test_what_is_left_is_shared_in_equal_parts() -> None:
    made = plan(
        [needs("a", 16), needs("b", 16), needs("c", 16, "a"), needs("d", 2, most=2)], 80 * GB
    )
    # 0.92 * 80 - 34 of weights - 3 * 0.6 = 37.8: d can use 2, and a and b have the rest up to 10 each
    assert [share.cache / GB for share in made.shares] == [10, 10, 0, 2]
    assert [share.weights / GB for share in made.shares] == [16, 16, 0, 2]
    assert made.spare / GB == pytest.approx(15.8)
    assert made.fits
    assert made.shares[0].tokens == 10_000
    small = plan([needs("a", 16), needs("b", 16)], 45 * GB)
    assert [share.cache / GB for share in small.shares] == [4.1, 4.1]  # half of 41.4 - 32 - 1.2


def test_what_does_not_fit_is_said_with_what_to_do() -> None:
    made = plan([needs("a", 16), needs("b", 16)], 24 * GB)
    assert not made.fits
    lines = table(made)
    assert lines[1].split() == ["a", "16.00", "1.00", "1,000", "1,000,000"]
    # 0.92 * 24 - 32 - 1.2 - 2
    assert lines[-1] == (
        "device of 24.0 GB: 13.12 GB are missing: use quantization, a larger device or fewer experts"
    )
    shared = table(plan([needs("a", 1), needs("b", 1, "a")], 24 * GB))
    assert "b       shares the weights of another expert" in shared


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20), st.sampled_from("xyz")), min_size=1),
    st.integers(1, 200),
)
def test_a_plan_that_fits_never_promises_more_than_there_is(
    models: list[tuple[int, int, str]], total: int
) -> None:
    made = plan([needs(str(i), w, s, most=m) for i, (w, m, s) in enumerate(models)], total * GB)
    promised = sum(share.weights + share.cache for share in made.shares)
    assert not made.fits or promised <= total * GB
    for share in made.shares:
        assert not share.weights or share.cache >= share.footprint.least
