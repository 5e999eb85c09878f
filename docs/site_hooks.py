"""For the site: the README is its first page, and links to files that are not on it become plain text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    source = DOCS / page.file.src_uri
    if page.file.src_uri == "index.md":
        source = DOCS.parent / "README.md"
        markdown = source.read_text()

    def resolved(link: re.Match[str]) -> str:
        text, target = link.groups()
        if re.match(r"\w+:|#", target):
            return link[0]
        path, _, anchor = target.partition("#")
        file = (source.parent / path).resolve()
        if file == DOCS.parent / "README.md":
            file = DOCS / "index.md"
        if file.suffix not in (".md", ".svg") or not file.is_relative_to(DOCS):
            return text
        there = "../" * page.file.src_uri.count("/") + str(file.relative_to(DOCS))
        return f"[{text}]({there}{'#' if anchor else ''}{anchor})"

    return LINK.sub(resolved, markdown)
