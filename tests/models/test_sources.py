"""Model files from every kind of source, with their digests and locks."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from skops.io import dump

from mlserver_pyfunc import Function
from mlserver_pyfunc.definition import SourceDefinition, parse
from mlserver_pyfunc.errors import LoadError, SourceError
from mlserver_pyfunc.sources import fetch, lock

# Each test in this file has a cache of its own, and only here.
from tests.sources.conftest import cache_folder  # noqa: F401
from tests.sources.servers import FileServer, Repository
from tests.sources.test_s3 import endpoint, put, s3  # noqa: F401

from .routes import folder_of

MODEL = LinearRegression().fit(np.eye(3), [1.0, 2, 4])


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    dump(MODEL, tmp_path / "line.skops")
    content = (tmp_path / "line.skops").read_bytes()
    (tmp_path / "line.skops").unlink()
    return content


def check(folder: Path) -> None:
    with Function.load(folder) as fn:
        assert np.array_equal(fn(features=np.eye(3))["predict"], MODEL.predict(np.eye(3)))


def test_beside_the_definition(content: bytes, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "served", source="models/line.skops")
    (folder / "models").mkdir()
    (folder / "models" / "line.skops").write_bytes(content)
    check(folder)
    folder_of(folder, source={"source": "models", "model": "line.skops"})
    check(folder)


@pytest.mark.parametrize("member", ["line.skops", "models/v1/line.skops"])
def test_in_an_archive(member: str, content: bytes, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "served", source={"source": "bundle.zip", "model": member})
    with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
        archive.writestr("README.md", "a line")
        archive.writestr(member, content)
    check(folder)


def test_by_http(content: bytes, tmp_path: Path, file_server: FileServer) -> None:
    file_server.files["/models/line.skops"] = content
    url = f"{file_server.url}/models/line.skops"
    digest = hashlib.sha256(content).hexdigest()
    folder = folder_of(tmp_path / "served", source={"source": f"{url}?token=1", "sha256": digest})
    check(folder)
    folder_of(folder, source=url)
    lock.write(Function.load(folder).definition, folder)
    check(folder)
    file_server.files["/models/line.skops"] = content + b"\0"
    lock.write_to(
        lock.read(folder).model_copy(update=dict.fromkeys(("sha256", "tree_sha256"), "0" * 64)),
        folder,
    )
    with pytest.raises(LoadError, match=r"renew function\.lock"):
        check(folder)
    file_server.files["/models/line.skops"] = b"<html>gone</html>"
    with pytest.raises(SourceError, match="expected a model file, got a web page"):
        fetch(SourceDefinition(source=url), folder)


def test_from_git(content: bytes, tmp_path: Path, repository: Repository) -> None:
    repository.folder.joinpath("models").mkdir()
    repository.folder.joinpath("models", "line.skops").write_bytes(content)
    commit = repository.commit({"README.md": "a line"})
    uri = f"git+file://{repository.folder}#main"
    folder = folder_of(tmp_path / "served", source={"source": uri, "model": "models/line.skops"})
    check(folder)
    path = lock.write(parse({"source": {"source": uri, "model": "models/line.skops"}}), folder)
    assert commit in path.read_text()
    check(folder)


def test_from_s3(content: bytes, tmp_path: Path, s3: Any) -> None:  # noqa: F811
    put(s3, **{"line.skops": content})
    url, digest = "s3://models/line.skops", hashlib.sha256(content).hexdigest()
    folder = folder_of(tmp_path / "served", source={"source": url, "sha256": digest})
    check(folder)
    folder_of(folder, source={"source": url, "sha256": "0" * 64})
    with pytest.raises(LoadError, match=f"expected sha256 {'0' * 64}, got {digest}"):
        check(folder)
    folder_of(folder, source=url)
    lock.write(Function.load(folder).definition, folder)
    assert digest in (folder / lock.LOCK_NAME).read_text()
    check(folder)


def test_below_a_prefix_of_s3(content: bytes, tmp_path: Path, s3: Any) -> None:  # noqa: F811
    put(s3, **{"visits/v1/line.skops": content, "visits/README.md": b"a line"})
    model = {"source": "s3://models/visits/", "model": "v1/line.skops"}
    folder = folder_of(tmp_path / "served", source=model)
    check(folder)
    lock.write(Function.load(folder).definition, folder)
    check(folder)
    put(s3, **{"visits/v1/line.skops": content + b"\0"})
    lock.write_to(
        lock.read(folder).model_copy(update=dict.fromkeys(("sha256", "tree_sha256"), "0" * 64)),
        folder,
    )
    with pytest.raises(LoadError, match=r"renew function\.lock"):
        check(folder)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, source={"source": ".", "model": "models/x.onnx"})
    with pytest.raises(
        LoadError, match=r'source "\.": no such file or directory: ".*models/x\.onnx"'
    ):
        check(folder)
