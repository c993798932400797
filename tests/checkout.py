"""What tests need of a checkout: its folders, and the benchmarks, which are no package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
Load = Callable[[str], Any]
"""The fixture `load`: imports a benchmark by name."""
needs_benchmarks = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs a checkout")
