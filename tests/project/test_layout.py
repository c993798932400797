"""The folders, their packages and the links between them agree."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("der_graph", "nodes", "policies")

pytestmark = pytest.mark.skipif(not (ROOT / "nodes").is_dir(), reason="needs a checkout")


def setuptools_config() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    config: dict[str, Any] = tomllib.loads(text)["tool"]["setuptools"]
    return config


def modules() -> list[Path]:
    """Every module of the package, once."""
    return sorted(path for name in PACKAGES for path in _python_files(ROOT / name))


def _python_files(folder: Path) -> list[Path]:
    links = {ROOT / "der_graph" / "nodes", ROOT / "der_graph" / "policies"}
    return [path for path in folder.rglob("*.py") if not links & set(path.parents)]


def test_every_package_folder_is_listed() -> None:
    config = setuptools_config()
    on_disk = {
        ".".join([name, *init.parent.relative_to(ROOT / folder).parts])
        for name, folder in config["package-dir"].items()
        for init in _python_files(ROOT / folder)
        if init.name == "__init__.py"
    }
    assert on_disk == set(config["packages"]) == set(config["package-dir"])


@pytest.mark.parametrize("name", ["nodes", "policies"])
def test_the_links_lead_to_the_folders(name: str) -> None:
    link = ROOT / "der_graph" / name
    if not link.is_symlink():
        pytest.skip("this checkout was made without links")
    assert link.readlink() == Path("..") / name


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_a_folder_holds_what_a_reader_can_take_in() -> None:
    count = Counter(path.parent.relative_to(ROOT) for path in modules())
    assert {str(folder): n for folder, n in count.items() if n > 16} == {}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_the_paths_that_a_document_names_are_there(document: str) -> None:
    path = ROOT / document
    if not path.exists():
        pytest.skip(f"no {document} yet")
    named = re.findall(
        r"`((?:der_graph|nodes|policies|docs|examples|benchmarks|tests|scripts|requirements)/[\w./-]*\w/?)`",
        path.read_text(encoding="utf-8"),
    )
    assert [name for name in named if not (ROOT / name).exists()] == []
