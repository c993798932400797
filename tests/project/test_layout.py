"""The folders, their packages and the links between them agree."""

from __future__ import annotations

import ast
import re
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
def test_a_module_says_what_it_is_and_stays_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{path} does not say what it is"
    # 250 is the aim; beyond this it is more than one concept.
    assert len(text.splitlines()) <= 300, f"{path} is too long: split it by its concepts"


LAYERS = [
    {"state", "errors", "data", "history"},
    {"nodes"},
    {"policies"},
    {"chat", "graph", "pool", "tracing", "feedback", "ray_engine"},
    {"cli", "commands", "server", "serving", "showcase", "display", "ui", "__main__"},
]
PARTS = ("chat_", "feedback_", "pool_", "ui_")
"""Modules of these names are parts of one thing, and on its layer."""


def layer_name(module: str) -> str:
    return next((part[:-1] for part in PARTS if module.startswith(part)), module)


def test_lower_layers_know_nothing_of_higher_ones() -> None:
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    wrong = []
    for path in modules():
        parts = path.relative_to(ROOT).with_suffix("").parts
        own = layer_name(parts[1] if parts[0] == "der_graph" else parts[0])
        if own == "__init__":  # names what the package offers, and imports it when it is used
            continue
        assert own in level, f"{path.relative_to(ROOT)}: on which layer is it?"
        for imported in _imports(path):
            other = layer_name(imported.split(".")[1]) if "." in imported else ""
            if level.get(other, -1) > level[own]:
                wrong.append(f"{path.relative_to(ROOT)} imports {imported}")
    assert not wrong


def _imports(path: Path) -> set[str]:
    """The modules of this package that a module imports when it runs; not those for annotations alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "der_graph"}


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
