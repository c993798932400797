"""The memory of a GPU, shared out among the experts of a pool."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from der_graph.errors import PoolError
from der_graph.pool import check_pool


def test_the_memory_of_a_gpu_is_planned_without_one(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    entry = "  - {{name: {}, backend: huggingface, model: {}, cost: 1{}}}\n"
    file.write_text(
        "experts:\n"
        + entry.format("one", folder, "")
        + entry.format("two", folder, "")
        + entry.format("packed", folder, ", quantization: int8, kv_cache_gb: 0.01")
        + entry.format("away", "nobody/has-this", "")
        + entry.format("elsewhere", folder, ", device: cpu"),
        encoding="utf-8",
    )
    lines = check_pool(file, device="cuda", memory_gb=24)
    lines = lines[[line.split()[:1] for line in lines].index(["expert"]) :]
    assert [line.split()[0] for line in lines] == [
        "expert",
        "one",
        "two",
        "packed",
        "device",
        "away:",
    ]
    assert "shares the weights" in lines[2]
    assert lines[3].split()[2] == "0.01"
    assert "to spare" in lines[4]
    with pytest.raises(PoolError, match="memory is planned for GPUs"):
        check_pool(file, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_its_size_is_asked_for() -> None:
    with pytest.raises(PoolError, match="give its size with --memory GB"):
        check_pool("demo", device="cuda")
