"""What is shipped: every data file, the versions, and no more dependencies than are declared."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "der_graph"

pytestmark = pytest.mark.skipif(not (ROOT / "nodes").is_dir(), reason="needs a checkout")

# Import name -> distribution, where they differ.
DISTRIBUTIONS = {
    "bert_score": "bert-score",
    "huggingface_hub": "huggingface-hub",
    "langchain_core": "langchain-core",
    "langchain_huggingface": "langchain-huggingface",
    "math_verify": "math-verify",
    "rouge_score": "rouge-score",
    "sb3_contrib": "sb3-contrib",
    "sklearn": "scikit-learn",
    "stable_baselines3": "stable-baselines3",
    "typing_extensions": "pydantic",  # a dependency of pydantic, by its own account
    "yaml": "pyyaml",
}


def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    config: dict[str, Any] = tomllib.loads(text)
    return config


def name_of(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match, requirement
    return match.group().lower().replace("_", "-")


def test_the_wheel_holds_every_file_of_the_demo() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"]["der_graph"]
    shipped = {path for pattern in patterns for path in PACKAGE.glob(pattern) if path.is_file()}
    on_disk = {
        path
        for path in (PACKAGE / "demo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert on_disk <= shipped
    assert PACKAGE / "py.typed" in shipped


def test_no_code_and_nothing_hidden_hides_among_the_data() -> None:
    odd = [
        path
        for path in (PACKAGE / "demo").glob("*/**/*")  # beside them is the room's own code
        if path.suffix in {".py", ".pkl", ".pt", ".bin", ".zip"} or path.name.startswith(".")
    ]
    assert odd == []


def test_the_version_is_written_once() -> None:
    config = project()
    assert "version" in config["project"]["dynamic"]
    assert config["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "der_graph.__version__"}


def _toplevel_imports(tree: ast.Module) -> set[str]:
    """What importing a module imports: not what stands in functions or under TYPE_CHECKING."""
    found: set[str] = set()
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            pending += [*node.body, *node.orelse]
        elif isinstance(node, (ast.Try, ast.ClassDef)):
            pending += node.body
    return found - set(sys.stdlib_module_names) - {"der_graph"}


OWN_ROOMS = {"der_graph/middleware": "langchain"}
"""Rooms that are there for one extra; their `__init__` asks for it before anything else is imported."""


def test_what_is_imported_is_declared() -> None:
    config = project()["project"]
    declared = {name_of(each) for each in config["dependencies"]}
    optional = {
        name_of(each) for extra in config["optional-dependencies"].values() for each in extra
    }
    training = {name_of(each) for each in config["optional-dependencies"]["train"]}
    missing = []
    for folder in ("der_graph", "nodes", "policies"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            own = {OWN_ROOMS.get(path.parent.relative_to(ROOT).as_posix(), "")}
            for module in _toplevel_imports(tree):
                name = DISTRIBUTIONS.get(module, module)
                if name not in declared | training | own:
                    where = (
                        "optional, so imported where it is used"
                        if name in optional
                        else "not declared"
                    )
                    missing.append(f"{path.relative_to(ROOT)}: {module} is {where}")
    assert not missing


def test_every_declared_package_is_pinned() -> None:
    config = project()["project"]
    text = (ROOT / "requirements" / "constraints.txt").read_text(encoding="utf-8")
    pinned = {name_of(line) for line in text.splitlines() if line and not line.startswith("#")}
    wanted = {
        name_of(each)
        for group in [config["dependencies"], *config["optional-dependencies"].values()]
        for each in group
    } - {"der-graph", "vllm"}  # vllm brings a torch of its own
    assert wanted <= pinned
    assert "file:" not in text
    assert "+cpu" not in text.replace("(2.13.0+cpu)", "")


def test_extras_name_extras_that_exist() -> None:
    extras = project()["project"]["optional-dependencies"]
    for group in extras.values():
        for each in group:
            inner = re.match(r"der-graph\[([\w,]+)\]", each)
            if inner:
                assert set(inner.group(1).split(",")) <= set(extras)


def test_the_errors_name_extras_that_exist() -> None:
    extras = set(project()["project"]["optional-dependencies"])
    for folder in ("der_graph", "nodes", "policies"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            named = set(re.findall(r'extra="([\w-]+)", why=', text))
            named |= set(re.findall(r"der-graph\[([\w-]+)\]", text))
            assert named <= extras, path


def test_the_installer_knows_the_python_versions_of_the_package() -> None:
    config = project()["project"]
    text = (ROOT / "scripts" / "install.py").read_text(encoding="utf-8")
    found = re.search(r"OLDEST, NEWEST = \((\d+), (\d+)\), \((\d+), (\d+)\)", text)
    assert found
    oldest = f"{found[1]}.{found[2]}"
    beyond = f"{found[3]}.{int(found[4]) + 1}"
    assert config["requires-python"] == f">={oldest},<{beyond}"
    classifiers = [each for each in config["classifiers"] if re.search(r":: 3\.\d+$", each)]
    assert len(classifiers) == int(found[4]) - int(found[2]) + 1
