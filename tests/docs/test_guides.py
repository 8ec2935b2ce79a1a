"""Each guide is a session: its files are written, its commands typed, its answers compared."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.needs import require
from tests.places import DOCS, EXAMPLES

from .console import PORTS, session, steps
from .markdown import blocks, tables

pytestmark = pytest.mark.server

GUIDES = sorted(path for path in (DOCS / "guides").glob("*.md") if path.name != "README.md")
PAGES = [*GUIDES, DOCS / "why.md"]
NEEDS = {
    "air-gapped": ["curl", "packages of examples/audio"],
    "authentication": ["curl", "nginx"],
    "autoscaling": ["curl"],
    "llm-streaming": ["curl"],
    "mlflow": ["packages of examples/mlflow"],
    "pytorch": ["PyTorch"],
    "tables": ["curl"],
    "why": ["curl", "packages of examples/forecast"],
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_session_of_the_page_gives_its_answers(page: Path, tmp_path: Path) -> None:
    require(*NEEDS.get(page.stem, []))
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    try:
        with session(tmp_path) as terminal:
            for block in blocks(page):
                if block.title:
                    terminal.write(block.title, block.text)
                else:
                    terminal.replay(f"```console\n{block.text}```")
    finally:
        _stop_nginx(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_shows_only_what_is_written_or_typed(page: Path) -> None:
    assert all(block.title or block.language == "console" for block in blocks(page))
    assert steps(page.read_text())
    # Commands in running text are typed by nobody.
    assert not re.findall(r"^    \w", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))


def test_the_index_lists_each_guide_once() -> None:
    rows = tables(DOCS / "guides" / "README.md", "Guides")
    listed = re.findall(r"\]\(([\w-]+\.md)\)", " ".join(row[0] for row in rows))
    assert sorted(listed) == [path.name for path in GUIDES]


def test_each_row_of_why_has_an_issue_and_a_section_with_a_command() -> None:
    page = DOCS / "why.md"
    rows = tables(page, "Why this")
    assert len(rows) >= 7
    sections = {block.section for block in blocks(page)}
    for _, issue, here in rows:
        assert re.search(r"\]\(https://github\.com/[\w-]+/\w[\w-]*/issues/\d+\)", issue)
        title = re.match(r"\[(.+)\]\(#", here)
        assert title
        assert title[1] in sections


def test_pages_use_the_ports_that_a_session_replaces() -> None:
    for page in PAGES:
        ports = re.findall(r"127\.0\.0\.1(:\d+)", page.read_text())
        assert set(ports) <= set(PORTS), page.name


def _stop_nginx(folder: Path) -> None:
    file = folder / "nginx.pid"
    if file.is_file() and file.read_text().strip():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGTERM)
