"""A worker that is replaced runs the code that was verified when the function was loaded."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from mlserver_pyfunc.definition import FunctionDefinition, parse
from mlserver_pyfunc.errors import WorkerError
from mlserver_pyfunc.serving.function import Function
from mlserver_pyfunc.sources import lock
from mlserver_pyfunc.sources.tree import file_sha256

from .functions import call, definition, until, until_ready

CODE = """
import os

def handler(x):
    if x[0] < 0:
        os._exit(3)
    return x * 2
"""
CHANGED = "open({path!r}, 'w').close()\n" + CODE


def _definition(source: str, **keys: str) -> FunctionDefinition:
    found = definition("", "model:handler")
    del found["source"]["code"]
    found["source"] |= {"source": source, **keys}
    return parse(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "function"
    folder.mkdir()
    (folder / "model.py").write_text(CODE)
    return folder


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """Made by the code that nobody has verified."""
    return tmp_path / "imported"


async def _change_and_die(function: Function, file: Path, imported: Path) -> None:
    assert (await call(function, 1)).tolist() == [2]
    file.chmod(0o644)
    file.write_text(CHANGED.format(path=str(imported)))
    with pytest.raises(WorkerError):
        await call(function, -1)


@pytest.mark.parametrize("kind", ["locked folder", "locked file", "pinned file", "archive"])
async def test_a_source_that_was_changed_is_not_imported(
    kind: str, folder: Path, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE", str(tmp_path / "cache"))
    sources = {"locked folder": ".", "archive": "../model.tar.gz"}
    subject = _definition(sources.get(kind, "model.py"))
    if kind == "archive":
        with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo("model.py")
            member.size = len(CODE)
            archive.addfile(member, io.BytesIO(CODE.encode()))
    elif kind == "pinned file":
        subject = _definition("model.py", sha256=file_sha256(folder / "model.py"))
    else:
        lock.write(subject, folder)
    function = Function(subject, folder, "subject", "1")
    await function.load()
    try:
        (file,) = (tmp_path / "cache" if kind == "archive" else folder).rglob("model.py")
        await _change_and_die(function, file, imported)
        await until(lambda: "was changed" in function.metadata.get("last_exit", ""))
        last = function.metadata["last_exit"]
        assert 'function "subject" failed to load: fetch: "' in last
        assert "after it was verified: expected sha256 " in last
        assert str(file if kind.endswith("file") else file.parent) in last
        file.write_text(CODE)
        await until_ready(function)
        assert (await call(function, 3)).tolist() == [6]
        assert not imported.exists()
    finally:
        await function.close()


async def test_a_source_without_a_digest_is_imported_as_it_is_then(
    folder: Path, imported: Path
) -> None:
    function = Function(_definition("model.py"), folder, "subject", "1")
    await function.load()
    try:
        await _change_and_die(function, folder / "model.py", imported)
        assert (await call(function, 3)).tolist() == [6]
        assert imported.exists()
    finally:
        await function.close()
