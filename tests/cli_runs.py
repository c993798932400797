"""Commands as a user types them, and a pool of recorded experts for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import toy_examples

from der_graph.cli import main


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, Path]:
    """A pool file of recorded experts, and its data."""
    rows = []
    for i, example in enumerate(toy_examples(40)):
        candidates = [
            {"model": "big", "text": example.reference, "scores": {"accuracy": 1.0}},
            {
                "model": "small",
                "text": example.reference if i % 2 else "no",
                "scores": {"accuracy": i % 2},
            },
        ]
        rows.append(
            {
                "id": example.id,
                "instruction": example.question,
                "output": example.reference,
                "candidates": candidates,
            }
        )
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pool = tmp_path / "pool.yaml"
    pool.write_text(
        "experts:\n"
        "  - {name: big, backend: recorded, data: data.jsonl, cost: 70}\n"
        "  - {name: small, backend: recorded, data: data.jsonl, cost: 7}\n"
        "settings: {max_steps: 2}\n"
    )
    return pool, data


def run(*words: object) -> int:
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:  # argparse
        return int(stop.code or 0)
