"""Functions of every kind of source and Python, as folders; each tells of what it runs on."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.sources.servers import Repository

NUMBERS: dict[str, Any] = {"name": "x", "datatype": "FP64", "shape": [3], "data": [1.0, -2.5, 4.0]}
TENSORS = {
    "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
    "outputs": [
        {"name": "y", "datatype": "FP64", "shape": [-1]},
        {"name": "python", "datatype": "BYTES", "shape": [1], "content_type": "str"},
        {"name": "note", "datatype": "BYTES", "shape": [1], "content_type": "str"},
    ],
}
GREETING = 'it costs $5, "so" \\ {{it}} goes'
SETTINGS = {"implementation": "mlserver_pyfunc.PyFuncRuntime"}

# The note is what shows that instructions were run, variables set or requirements installed.
CODE = """\
import sys
{more}

def predict(x):
    version = "%d.%d" % sys.version_info[:2]
    return {{"y": x * {factor}, "python": [version], "note": [{note}]}}
"""


@dataclass(frozen=True)
class Case:
    """A function's folder, and what it answers to `NUMBERS`.

    Attributes:
        name: Of the model, too.
        bases: Versions of the base images that its image is made on.
    """

    name: str
    bases: tuple[str, ...]
    write: Callable[[Path], None]
    python: str
    factor: float
    note: str

    def answer(self) -> dict[str, Any]:
        y = [value * self.factor for value in NUMBERS["data"]]
        return {"y": y, "python": [self.python], "note": [self.note]}


def write_inline(folder: Path) -> None:
    """Code in the definition, and nothing else."""
    code = CODE.format(more="", factor=2, note='""')
    _write(folder, "inline", source={"code": code, "handler": "predict"})


def write_file(folder: Path, instructions: Sequence[str] = (), factor: float = 2) -> None:
    """A folder of code and data; a requirement that the server has not."""
    folder.mkdir(parents=True, exist_ok=True)
    code = CODE.format(more="import tabulate", factor=factor, note='""')
    (folder / "model.py").write_text(code)
    _write(
        folder,
        "file",
        source={"source": ".", "handler": "model:predict"},
        requirements=["tabulate==0.9.0"],
        build={"instructions": list(instructions)},
    )


def write_git(folder: Path) -> None:
    """A commit of a repository beside it; all that a build may be told; a requirement."""
    repository = Repository(folder.parent / f"{folder.name}-repository")
    files = {
        "service/__init__.py": "",
        "service/model.py": CODE.format(
            more="import os\nimport humanize\nfrom .facts import system",
            factor=3,
            note='" ".join([humanize.intcomma(1234567), system(), os.environ["GREETING"]])',
        ),
        "service/facts.py": 'def system():\n    return open("/etc/pyfunc-test").read().strip()\n',
        "tests/test_model.py": "def test_nothing(): ...\n",
    }
    commit = repository.commit(files)
    _write(
        folder,
        "git",
        source={
            "source": f"git+file://{repository.folder}#{commit}",
            "handler": "service.model:predict",
        },
        python_version="3.10",
        base_image="python:3.10-slim",
        requirements=["humanize==4.9.0"],
        build={
            "instructions": ["echo 'made here' > /etc/pyfunc-test"],
            "env": {"GREETING": GREETING},
        },
    )


def write_zip(folder: Path) -> None:
    """An archive; a Python that MLServer does not run on, so in an environment of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    code = CODE.format(
        more="import tabulate", factor=4, note='tabulate.tabulate([[1, 2]], tablefmt="plain")'
    )
    with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
        archive.writestr("inner/model.py", code)
    _write(
        folder,
        "zip",
        source={"source": "bundle.zip", "subdirectory": "inner", "handler": "model:predict"},
        python_version="3.13",
        requirements=["tabulate==0.9.0", "numpy"],
    )


def write_clash(folder: Path) -> None:
    """Requirements that the server cannot live with."""
    code = CODE.format(more="import pydantic", factor=5, note="pydantic.VERSION")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(code)
    _write(
        folder,
        "clash",
        source={"source": "model.py", "handler": "predict"},
        python_version="3.12",
        requirements=["pydantic==1.10.19"],
    )


CASES = [
    Case("inline", ("3.12",), write_inline, "3.12", 2, ""),
    Case("git", ("3.10",), write_git, "3.10", 3, f"1,234,567 made here {GREETING}"),
    Case("zip", ("3.12", "3.13"), write_zip, "3.13", 4, "1  2"),
    Case("clash", ("3.12",), write_clash, "3.12", 5, "1.10.19"),
]


def _write(folder: Path, name: str, **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "function.yaml").write_text(yaml.safe_dump({"model_name": name, **TENSORS, **more}))
    (folder / "model-settings.json").write_text(json.dumps({"name": name, **SETTINGS}))
