"""The code blocks of a Markdown document."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt


@dataclass(frozen=True)
class Block:
    """A fenced block: ```` ```yaml title="function.yaml" ````."""

    language: str
    title: str
    text: str
    section: str
    line: int


def blocks(path: Path) -> list[Block]:
    """The blocks of a document, each with the heading that it stands under."""
    found = []
    section = ""
    tokens = MarkdownIt().parse(path.read_text())
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            section = tokens[index + 1].content
        if token.type == "fence" and token.map:
            language, _, rest = token.info.partition(" ")
            title = re.search(r'title="([^"]+)"', rest)
            found.append(
                Block(language, title[1] if title else "", token.content, section, token.map[0] + 1)
            )
    return found


def tables(path: Path, section: str) -> list[list[str]]:
    """The rows of the tables under a heading, without their headers."""
    rows: list[list[str]] = []
    row: list[str] = []
    current = ""
    tokens = MarkdownIt().enable("table").parse(path.read_text())
    in_body = False
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            current = tokens[index + 1].content
        elif token.type in ("tbody_open", "tbody_close"):
            in_body = token.type == "tbody_open"
        elif token.type == "tr_open":
            row = []
        elif token.type == "td_open":
            row.append(tokens[index + 1].content)
        elif token.type == "tr_close" and in_body and current == section:
            rows.append(row)
    return rows
