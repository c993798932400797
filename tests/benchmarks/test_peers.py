"""The comparison with published routers: folds, mixtures at a cost, and parts put together."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def peers(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """report.py, loaded as its folder's scripts load each other."""
    monkeypatch.syspath_prepend(str(repo_root / "benchmarks" / "peers"))
    spec = importlib.util.spec_from_file_location(
        "peers_report", repo_root / "benchmarks" / "peers" / "report.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "peers_report", module)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("peer_data", None)


def data(peers: Any) -> Any:
    return peers.PeerData(
        questions=["a", "b", "c", "d"],
        names=["small", "large"],
        costs=np.array([2.0, 10.0]),
        quality=np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]),
        embeddings=np.eye(4, dtype=np.float32),
        fold=np.array([0, 1, 0, 1]),
    )


def test_the_folds_are_those_of_the_recorded_pool(peers: Any) -> None:
    fold = importlib.import_module("peer_data").fold_of(12, 5)
    assert np.array_equal(fold, np.random.default_rng(0).permutation(12) % 5)
    assert np.bincount(fold).tolist() == [3, 3, 2, 2, 2]


def test_a_mixture_spends_the_budget_between_two_points(peers: Any) -> None:
    # Points (2, 0.4), (6, 0.5), (10, 0.8): at 6 the coin between the first and the last gives 0.6.
    mixed = peers.mixture_at([2, 6, 10], [0.4, 0.5, 0.8], 6)
    assert (mixed.first, mixed.second, mixed.share) == (0, 2, 0.5)
    assert mixed.quality == pytest.approx(0.6)


def test_a_cheaper_point_that_is_better_is_taken_alone(peers: Any) -> None:
    assert peers.mixture_at([2, 10], [0.9, 0.8], 6) == (0, 0, 0.0, 0.9)
    assert peers.mixture_at([7, 10], [0.9, 0.8], 6) is None


def test_rows_count_quality_and_cost_of_the_models_asked(peers: Any) -> None:
    setting = peers.Setting("m", "k", 0.5, [1, 0, 0, 1])
    (row,) = peers.rows_of(data(peers), [setting])
    assert (row["quality"], row["cost"], row["calls"]) == (0.75, 6.0, 1.0)
    assert row["low"] <= 0.75 <= row["high"]
    (at,) = peers.at_budgets(data(peers), peers.singles(data(peers)), [6.0])
    assert at["6"][0] == pytest.approx(0.5)  # half 0.25 at 2 B, half 0.75 at 10 B


def test_parts_of_the_folds_are_put_together(peers: Any, tmp_path: Path) -> None:
    shared = importlib.import_module("peer_data")
    for name, choices in (("choices_1.json", [1, -1, 0, -1]), ("choices_2.json", [-1, 0, -1, 1])):
        shared.save_choices(tmp_path / name, "p", {}, [peers.Setting("m", "k", None, choices)])
    (setting,) = shared.load_choices(sorted(tmp_path.glob("choices_*.json")))
    assert setting.choices == [1, 0, 0, 1]
    with pytest.raises(ValueError, match="2 questions were not routed"):
        peers.per_question(data(peers), [1, -1, 0, -1])


def test_what_the_peers_read_comes_back_as_written(peers: Any, tmp_path: Path) -> None:
    data(peers).save(tmp_path)
    read = peers.PeerData.load(tmp_path)
    assert (read.questions, read.names) == (["a", "b", "c", "d"], ["small", "large"])
    assert np.array_equal(read.quality, data(peers).quality)
    assert np.array_equal(read.fold, [0, 1, 0, 1])


def test_an_unfinished_run_is_reported_on_the_folds_it_has(peers: Any) -> None:
    whole = peers.Setting("whole", "k", None, [1, 0, 0, 1])
    begun = peers.Setting("begun", "k", None, [-1, 0, -1, 1])
    part, settings = peers.only(data(peers), [whole, begun], [1])
    assert part.questions == ["b", "d"]
    assert [(s.method, s.choices) for s in settings] == [("whole", [0, 1]), ("begun", [0, 1])]
    _, settings = peers.only(data(peers), [whole, begun], [0, 1])
    assert [s.method for s in settings] == ["whole"]
