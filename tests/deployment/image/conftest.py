"""Functions to build, and a package index on disk by which they resolve with no network."""

from __future__ import annotations

import stat
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlserver_pyfunc.deployment.image import wheel

from .fakes import DIGEST, ID, PROGRAM, Put

CODE = "def predict(x):\n    return x\n"
TENSOR = {"datatype": "FP32", "shape": [-1]}
CONTRACT = {"inputs": [{"name": "x", **TENSOR}], "outputs": [{"name": "y", **TENSOR}]}

WriteFunction = Callable[..., Path]


@pytest.fixture(autouse=True)
def trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that the command sets for its process is of one test only."""
    monkeypatch.setenv("MLSERVER_PYFUNC_CA_BUNDLE", "")


@pytest.fixture
def write_function(tmp_path: Path) -> WriteFunction:
    """Writes a function's folder: its definition, and files by their names."""

    def write(files: Mapping[str, str] | None = None, **definition: Any) -> Path:
        folder = tmp_path / "function"
        folder.mkdir(exist_ok=True)
        source = {"source": "model.py", "handler": "predict"}
        whole = {"model_name": "echo", "source": source, **CONTRACT, **definition}
        (folder / "function.yaml").write_text(yaml.safe_dump(whole))
        for name, text in {"model.py": CODE, **(files or {})}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    return write


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with a server that needs `shared<2`, and what functions ask for."""
    folder = tmp_path / "packages"
    folder.mkdir()
    write_wheel(folder, "server", "1.0", "shared<2")
    write_wheel(folder, "shared", "1.0")
    write_wheel(folder, "shared", "1.1")
    write_wheel(folder, "shared", "2.0")
    write_wheel(folder, "extra", "1.0", "shared")
    write_wheel(folder, "older", "1.0", "shared<1.1")
    write_wheel(folder, "numpy", "2.0")
    monkeypatch.setattr(wheel, "requirements", lambda: ["server"])
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("UV_DEFAULT_INDEX", (tmp_path / "empty").as_uri())
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return folder


def write_wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def put(tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts an engine into a PATH that has no other."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def place(name: str, answers: Mapping[str, tuple[int, str]] | None = None) -> None:
        text = PROGRAM.format(
            python=sys.executable,
            calls=str(calls),
            name=name,
            id=ID,
            digest=DIGEST,
            answers=list((answers or {}).items()),
        )
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return place
