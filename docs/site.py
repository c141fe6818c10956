"""The site's hook (mkdocs.yml): README and CHANGELOG are pages of it, and a link to code names the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """README.md is the first page, CHANGELOG.md the last."""
    for name, page in (("README.md", "index.md"), ("CHANGELOG.md", "changelog.md")):
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text.replace("](CHANGELOG.md", "](changelog.md")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """A link that leaves the site becomes the name of the file in the repository."""
    return LINK.sub(lambda found: _named(found, files), markdown.replace("](../CHANGELOG.md", "](changelog.md"))


def _named(found: re.Match[str], files: Files) -> str:
    words, target = found.groups()
    path = target.partition("#")[0]
    if not path or target.startswith("http") or files.get_file_from_path(path):
        return found[0]
    return f"{words} (`{path.removeprefix('../')}`)" if words.strip("`") != path else f"`{path}`"
