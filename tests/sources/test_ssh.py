"""Git over SSH, from a real sshd on loopback."""

from __future__ import annotations

import getpass
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import SourceTree, fetch
from tests.needs import find

from .servers import CutServer, Repository

pytestmark = pytest.mark.needs("sshd")


def key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A server's port and the folder of its keys: host, user."""
    folder = tmp_path_factory.mktemp("sshd")
    host, user = key(folder / "host"), key(folder / "user")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nPidFile none\n"
        f"AuthorizedKeysFile {user}.pub\nStrictModes no\nPermitRootLogin yes\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(
        [str(find("sshd")), "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL
    )
    for _ in range(100):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    public = host.with_suffix(".pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    (folder / "no_hosts").write_text("")
    yield port, folder
    server.terminate()
    server.wait()


def fetched(port: int, path: Path, commit: str) -> SourceTree:
    uri = f"git+ssh://{getpass.getuser()}@127.0.0.1:{port}{path}#{commit}"
    return fetch(SourceDefinition(source=uri, handler="model:predict"), Path("."))


def ssh(folder: Path, hosts: str = "known_hosts", identity: str = "") -> str:
    chosen = f"-i {folder / identity} -o IdentitiesOnly=yes" if identity else ""
    return f"ssh -F none -o UserKnownHostsFile={folder / hosts} {chosen}"


@pytest.mark.parametrize("ref", ["branch", "commit"])
def test_logs_in_with_a_key(
    ref: str, sshd: tuple[int, Path], repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, folder = sshd
    first = repository.commit({"model.py": "x = 1"})
    second = repository.commit({"model.py": "x = 2"})
    monkeypatch.setenv("GIT_SSH_COMMAND", ssh(folder, identity="user"))
    tree = fetched(port, repository.folder, "main" if ref == "branch" else first)
    assert tree.provenance.commit == (second if ref == "branch" else first)
    assert tree.provenance.source.startswith(f"git+ssh://{getpass.getuser()}@127.0.0.1:{port}/")


def test_logs_in_with_an_agent(
    sshd: tuple[int, Path], repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port, folder = sshd
    commit = repository.commit({"model.py": "x = 1"})
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            if (tmp_path / "agent").exists():
                break
            time.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        subprocess.run(["ssh-add", "-q", str(folder / "user")], check=True)
        monkeypatch.setenv("GIT_SSH_COMMAND", ssh(folder))
        assert fetched(port, repository.folder, "main").provenance.commit == commit
    finally:
        agent.terminate()
        agent.wait()


def test_rejects_a_host_key_that_is_not_known(
    sshd: tuple[int, Path], repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, folder = sshd
    repository.commit({"model.py": "x = 1"})
    monkeypatch.setenv("GIT_SSH_COMMAND", ssh(folder, "no_hosts", "user"))
    with pytest.raises(SourceError, match="SSH host key is not the known one"):
        fetched(port, repository.folder, "main")


def test_rejects_a_login_without_a_key(
    sshd: tuple[int, Path], repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, folder = sshd
    repository.commit({"model.py": "x = 1"})
    monkeypatch.setenv("GIT_SSH_COMMAND", ssh(folder, identity="host"))
    with pytest.raises(SourceError, match="permission denied: no SSH agent or key"):
        fetched(port, repository.folder, "main")


def test_names_a_repository_that_is_not_there(
    sshd: tuple[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, folder = sshd
    monkeypatch.setenv("GIT_SSH_COMMAND", ssh(folder, identity="user"))
    with pytest.raises(SourceError, match=r"no such repository \(404\)"):
        fetched(port, tmp_path / "absent", "main")


@pytest.mark.parametrize("after", [0, 100_000])
@pytest.mark.parametrize("cuts", [1, float("inf")], ids=["once", "always"])
def test_a_fetch_that_breaks_off_is_whole_or_an_error(
    cuts: float,
    after: int,
    sshd: tuple[int, Path],
    repository: Repository,
    cache_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, folder = sshd
    commit = repository.commit({"noise.txt": random.Random(1).randbytes(200_000).hex()})
    monkeypatch.setenv("GIT_SSH_COMMAND", ssh(folder, "cut_hosts", "user"))
    with CutServer(port, cuts, after) as server:
        public = (folder / "host.pub").read_text()
        (folder / "cut_hosts").write_text(f"[127.0.0.1]:{server.port} {public}")
        if cuts > 1:
            with pytest.raises(SourceError, match="the connection broke; git says "):
                fetched(server.port, repository.folder, commit)
            assert not [*cache_folder.glob("trees/*"), *cache_folder.glob("tmp/*")]
            assert not list(cache_folder.glob("index/*"))
            server.cuts = 0
        assert fetched(server.port, repository.folder, commit).provenance.commit == commit
        assert server.cuts == 0, "the connection was not cut"
