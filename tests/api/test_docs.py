"""The page and the notebook about the Python API run as they stand, in a kernel of Jupyter."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.deployment.cluster.fake_api import FakeCluster
from tests.places import DOCS

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("cluster")]


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()


def shown(cell: nbformat.NotebookNode) -> str:
    """What a cell shows: its text and its HTML."""
    parts = []
    for output in cell.outputs:
        parts += [output.get("text", ""), *map(str, output.get("data", {}).values())]
    return "".join(parts)


def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python-api.md").read_text(), re.DOTALL)
    assert blocks
    cells = [nbformat.v4.new_code_cell(block) for block in blocks]
    execute(nbformat.v4.new_notebook(cells=cells), tmp_path)


def test_the_notebook_runs_from_definition_to_deployment(
    tmp_path: Path, cluster: FakeCluster
) -> None:
    notebook = nbformat.read(DOCS / "python-api.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "clear the outputs before a commit"
    execute(notebook, tmp_path)
    answers = [shown(cell) for cell in cells]
    assert "<td>flowers</td>" in answers[0]
    assert "array([0., 1.], dtype=float32)" in answers[1]
    assert 'input "flowers" of model "distance": expected shape [-1, 4]' in answers[2]
    assert "Server(distance at http://127.0.0.1:" in answers[3]
    assert "array([0.]" in answers[4]
    assert "Dockerfile" in answers[8]
    assert "replicas: 2" in answers[9]
    assert "'Deployment/distance': 'ready'" in answers[10]
    assert "'Deployment/distance': 'deleted'" in answers[11]
    assert ("PATCH", True) in {
        (method, "deployments/distance" in path) for method, path in cluster.requests
    }
