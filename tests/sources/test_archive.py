"""Local archives: what is unpacked, and from where the function is loaded."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import archive as archive_module
from mlserver_pyfunc.sources import fetch


def zip_of(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def tar_of(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


MAKERS = {"a.zip": zip_of, "a.tar.gz": tar_of, "a.tgz": tar_of}


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }


def source(uri: str, handler: str = "model:predict", **keys: str) -> SourceDefinition:
    return SourceDefinition(source=uri, handler=handler, **keys)


@pytest.mark.parametrize("name", MAKERS)
def test_gives_the_files_of_an_archive(name: str, tmp_path: Path) -> None:
    archive = MAKERS[name](tmp_path / name, {"model.py": "x = 1", "data/w.txt": "w"})
    got = fetch(source(name), tmp_path)
    assert tree(got.root) == {"model.py": "x = 1", "data/w.txt": "w"}
    assert got.provenance.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert got.module is None


@pytest.mark.parametrize("name", MAKERS)
def test_leaves_out_the_single_folder_that_forges_put_at_the_top(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path / name, {"iris-1.0/model.py": "x", "iris-1.0/lib/a.py": "a"})
    assert tree(fetch(source(name), tmp_path).root) == {"model.py": "x", "lib/a.py": "a"}


def test_keeps_the_single_folder_that_the_handler_names(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", {"iris/__init__.py": "", "iris/model.py": "x"})
    got = fetch(source("a.zip", "iris.model:predict"), tmp_path)
    assert set(tree(got.root)) == {"iris/__init__.py", "iris/model.py"}


@pytest.mark.parametrize("top", ["", "repo-main/"])
def test_gives_only_the_subdirectory(top: str, tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", {f"{top}services/iris/model.py": "x", f"{top}other.py": "y"})
    got = fetch(source("a.zip", subdirectory="services/iris"), tmp_path)
    assert tree(got.root) == {"model.py": "x"}


def test_rejects_an_absent_subdirectory(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", {"model.py": "x"})
    with pytest.raises(SourceError, match=r'source "a.zip": subdirectory "nope" is not in'):
        fetch(source("a.zip", subdirectory="nope"), tmp_path)


def test_rejects_a_digest_that_differs_before_it_unpacks(
    tmp_path: Path, cache_folder: Path
) -> None:
    zip_of(tmp_path / "a.zip", {"model.py": "x"})
    with pytest.raises(SourceError, match=r"expected sha256 0+, got [0-9a-f]{64}"):
        fetch(source("a.zip", sha256="0" * 64), tmp_path)
    assert not cache_folder.exists()


def test_leaves_out_bytecode_and_git_folders(tmp_path: Path) -> None:
    zip_of(
        tmp_path / "a.zip",
        {"model.py": "x", "__pycache__/model.cpython-311.pyc": "y", ".git/config": "z"},
    )
    assert tree(fetch(source("a.zip"), tmp_path).root) == {"model.py": "x"}


def test_unpacks_the_same_bytes_once(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", {"model.py": "x"})
    (tmp_path / "b.zip").write_bytes((tmp_path / "a.zip").read_bytes())
    assert fetch(source("a.zip"), tmp_path).root == fetch(source("b.zip"), tmp_path).root


def test_fetches_again_what_was_changed_in_the_cache(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", {"model.py": "x = 1"})
    root = fetch(source("a.zip"), tmp_path).root
    (root / "evil.py").write_text("x = 2")
    assert tree(fetch(source("a.zip"), tmp_path).root) == {"model.py": "x = 1"}


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS, ids=["stored", "deflated", "bzip2", "lzma"])
def test_a_zip_with_any_byte_changed_is_read_or_refused(method: int, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("model.py", "def f(x):\n    return x\n" * 3)
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        root = tmp_path / f"{position}"
        root.mkdir()
        with contextlib.suppress(SourceError):
            archive_module.unpack(source("a.zip"), path, root)
