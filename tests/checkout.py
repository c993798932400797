"""What tests need of a checkout: its folders, and the benchmarks, which are no package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
Load = Callable[[str], Any]
"""The fixture `load`: imports a benchmark by name."""
needs_benchmarks = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs a checkout")


def load_example(root: Path, name: str) -> ModuleType:
    """Import an example by name."""
    spec = importlib.util.spec_from_file_location(
        f"example_{name}", root / "examples" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
