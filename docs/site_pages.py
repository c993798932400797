"""Pages of the documentation site that are written elsewhere in the repository (a hook of mkdocs).

README, CONTRIBUTING, SECURITY and CHANGELOG become pages, with their links as seen from `docs/`. Links to
files that are no pages lead to the repository, where `repo_url` is set, and are plain text without it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie at the top of the repository."""
    from mkdocs.structure.files import File

    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite links for the site."""
    name = page.file.src_uri
    folder = ROOT if name in PAGES else (ROOT / "docs" / name).parent

    def link(found: re.Match[str]) -> str:
        text, path, anchor = found.group(1), found.group(2), found.group(3) or ""
        target = (folder / path).resolve().relative_to(ROOT).as_posix()
        for generated, source in PAGES.items():
            if target == source:
                return f"[{text}]({_relative(generated, name)}{anchor})"
        if target.startswith("docs/") and target.endswith(".md"):
            return f"[{text}]({_relative(target.removeprefix('docs/'), name)}{anchor})"
        url = config.repo_url
        return f"[{text}]({url.rstrip('/')}/blob/main/{target}{anchor})" if url else text

    return _LINK.sub(link, markdown)


def _relative(target: str, page: str) -> str:
    return "../" * page.count("/") + target
