"""The README of each example is typed as it stands, and gives the answers that it shows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.needs import require
from tests.places import EXAMPLES

from .console import session
from .markdown import tables

pytestmark = pytest.mark.server

READMES = [
    path for path in sorted(EXAMPLES.glob("*/README.md")) if "```console" in path.read_text()
]
NEEDS = {
    "vision": ["PyTorch"],
    **{
        name: [f"packages of examples/{name}"]
        for name in ("audio", "embeddings", "forecast", "mlflow", "onnx")
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a copy of the examples, into which clients and notebooks may write."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    return tmp_path


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_the_commands_of_the_readme_give_its_answers(readme: Path, folder: Path) -> None:
    require(*NEEDS.get(readme.parent.name, []))
    text = readme.read_text()
    assert f"$ mlserver-pyfunc serve examples/{readme.parent.name}" in text
    assert "--grpc" in text
    assert "http://127.0.0.1:8080" in text or "--http" in text
    with session(folder) as terminal:
        terminal.replay(text)


def test_the_picture_of_the_readme_is_the_answer(folder: Path) -> None:
    with session(folder) as terminal:
        terminal.type("mlserver-pyfunc serve examples/picture &")
        client = "python examples/picture/client.py examples/picture/photo.jpg new.png"
        assert terminal.type(f"{client} --http 127.0.0.1:8080") == "wrote new.png\n"
    shown, answered = (
        np.asarray(Image.open(path), dtype=float)
        for path in (EXAMPLES / "picture" / "drawing.png", folder / "new.png")
    )
    assert shown.shape == answered.shape
    # Decoders of JPEG differ by a shade.
    assert np.abs(shown - answered).mean() < 2


def test_requests_of_batching_share_calls(folder: Path) -> None:
    with session(folder) as terminal:
        terminal.type("mlserver-pyfunc serve examples/batching &")
        printed = terminal.type("python examples/batching/client.py --grpc 127.0.0.1:8081")
    requests, calls, rows = map(int, re.findall(r"\d+", printed))
    assert requests == 320
    assert calls < 320
    assert rows > 1


@pytest.mark.needs("PyTorch")
def test_the_network_of_vision_can_be_trained_again(folder: Path) -> None:
    weights = folder / "examples" / "vision" / "weights.pt"
    weights.unlink()
    with session(folder) as terminal:
        printed = terminal.type("python examples/vision/train.py")
    right = re.fullmatch(r"([\d.]+)% of 360 digits that it has not seen\n", printed)
    assert right, printed
    assert float(right[1]) > 95
    assert weights.is_file()


def test_the_notebook_shows_the_table_of_its_readme(folder: Path) -> None:
    file = folder / "examples" / "notebook" / "wine.ipynb"
    notebook = nbformat.read(file, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "clear the outputs before a commit"
    resources = {"metadata": {"path": str(file.parent)}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()
    shown = "".join(str(cell.outputs) for cell in cells)
    assert 'input "wines" of model "wine": expected shape [-1, 3], got [1, 2]' in shown
    rows = tables(file.with_name("README.md"), "notebook")
    assert len(rows) == 5
    for row in rows:
        assert re.search(r"\s+".join(map(re.escape, row)), shown.replace("\\n", "\n")), row


def test_the_index_lists_each_example_once() -> None:
    rows = tables(EXAMPLES / "README.md", "Gallery")
    listed = re.findall(r"\]\(([\w-]+)\)", " ".join(row[0] for row in rows))
    folders = {path.parent.name for path in EXAMPLES.glob("*/README.md")} - {"kubernetes"}
    assert sorted(listed) == sorted(folders)
    assert all(len(row) == 3 and all(row) for row in rows)
