"""The page and the notebook about the Python API run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.places import DOCS

pytestmark = pytest.mark.server


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()


def test_the_examples_of_the_page_run_in_a_kernel(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python-api.md").read_text(), re.DOTALL)
    assert blocks
    cells = [nbformat.v4.new_code_cell(block) for block in blocks]
    execute(nbformat.v4.new_notebook(cells=cells), tmp_path)
