"""Fixtures of the source tests: a cache of one's own, and servers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import FileServer, GitServer, Repository, certificate

_FOREIGN = re.compile(r"(GIT|SSH|SSL|AWS|S3|MLSERVER)_.*|.*_(PROXY|CA_BUNDLE)|NETRC", re.IGNORECASE)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and home for each test, and nothing of the user's environment."""
    folder = tmp_path / "cache"
    home = tmp_path / "home"
    home.mkdir()
    for name in os.environ:
        if _FOREIGN.fullmatch(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE", str(folder))
    monkeypatch.setenv("HOME", str(home))
    return folder


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The servers' certificate and key."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusted(pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes clients trust the servers' certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A git repository with nothing in it, that `git_server` serves as /repository."""
    return Repository(tmp_path / "repositories" / "repository")


@pytest.fixture
def git_server(repository: Repository, pem: Path, trusted: None) -> Iterator[GitServer]:
    server = GitServer(repository.folder.parent, pem)
    yield server
    server.close()


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def secure_file_server(pem: Path, trusted: None) -> Iterator[FileServer]:
    server = FileServer(pem)
    yield server
    server.close()
