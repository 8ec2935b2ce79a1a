"""The cache: whole or absent, one fetch for many, bounded."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import cache, fetch
from mlserver_pyfunc.sources.tree import tree_sha256

from .servers import FileServer, GitServer, Repository, reply
from .test_http import BUNDLE, sha256, zipped

PROGRAM = str(Path(__file__).with_name("fetch_once.py"))
KILLED_PROGRAM = str(Path(__file__).with_name("fetch_killed.py"))


def start(uri: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, PROGRAM, uri],
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},  # type: ignore[call-overload]
    )


def tree_of(size: int, name: str) -> cache.Entry:
    def make(work: Path) -> dict[str, str]:
        (work / cache.TREE / name).write_bytes(bytes([len(name)]) * size)
        return {"name": name}

    return cache.obtain(name, make)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["git", "archive"])
def test_ten_processes_fetch_once(
    kind: str,
    git_server: GitServer,
    repository: Repository,
    secure_file_server: FileServer,
    tmp_path: Path,
) -> None:
    repository.commit({f"m{number}.py": "x" * 10_000 for number in range(50)})
    secure_file_server.files["/b.zip"] = BUNDLE
    server: GitServer | FileServer = git_server if kind == "git" else secure_file_server
    uri = f"git+{server.url}/repository#main" if kind == "git" else f"{server.url}/b.zip"
    log = tmp_path / "log"

    def hold(request: BaseHTTPRequestHandler) -> bool:
        """Answers when all are there: one that starts after the fetch makes its own."""
        end = time.monotonic() + 100
        while log.read_text().count("waiting for another process") < 9 and time.monotonic() < end:
            time.sleep(0.05)
        return False

    secure_file_server.script = hold
    with log.open("a") as stderr:
        processes = [start(uri, stderr=stderr) for _ in range(10)]
    said = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 10
    assert len(said) == 1
    if kind == "git":
        fetches = [path for _, path, _ in git_server.requests if "upload-pack" in path]
        # Each asks what the branch is (2 requests); one asks for the objects (2 more).
        assert len(fetches) <= 10 * 2 + 2
    else:
        assert len(secure_file_server.requests) == 1


@contextlib.contextmanager
def killed_fetches(uri: str) -> Iterator[Callable[[int], int]]:
    """A function that fetches in a child killed at its n-th call; gives how many it made, or 0."""
    # An error is the warning of a fork beside threads.
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", KILLED_PROGRAM, uri]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None
        assert answers is not None

        def fetch_killed(kill_at: int) -> int:
            print(kill_at, file=asked, flush=True)
            return int(answers.readline())

        fetch_killed(0)  # Its own first fetch is over with the answer.
        yield fetch_killed


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["git", "archive"])
def test_a_start_after_a_kill_at_any_call_succeeds(
    kind: str,
    repository: Repository,
    tmp_path: Path,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = {f"m{number}.py": f"x = {number}" for number in range(20)}
    repository.commit(content)
    archive = tmp_path / "b.zip"
    archive.write_bytes(zipped({name: text.encode() for name, text in content.items()}))
    uri = f"git+file://{repository.folder}#main" if kind == "git" else str(archive)
    expected = fetch(SourceDefinition(source=uri, handler="model:predict"), Path(".")).provenance
    monkeypatch.setattr(cache, "_STALE_SECONDS", 0)
    with killed_fetches(uri) as fetch_killed:
        subprocess.run(["rm", "-rf", str(cache_folder)], check=True)
        calls = fetch_killed(0)
        assert calls > 100
        points = sorted({*range(1, calls - 5, calls // 40), *range(calls - 12, calls - 5)})
        for point in points:
            subprocess.run(["rm", "-rf", str(cache_folder)], check=True)
            assert fetch_killed(point) == 0
            for tree in cache_folder.glob("trees/*"):
                assert tree_sha256(tree) == tree.name, "a tree is whole or absent"
            tree = fetch(SourceDefinition(source=uri, handler="model:predict"), Path("."))
            assert tree.provenance == expected
            tree_of(10, "another")
            assert not list(cache_folder.glob("tmp/*")), "what the killed one left is removed"


@pytest.mark.heavy
def test_a_start_after_a_kill_during_a_download_succeeds(
    file_server: FileServer, cache_folder: Path
) -> None:
    content = zipped({"model.py": b"x", "big.bin": random.Random(0).randbytes(2**20)})
    uri = f"{file_server.url}/b.zip"
    started: list[subprocess.Popen[str]] = []
    for part in range(4):
        subprocess.run(["rm", "-rf", str(cache_folder)], check=True)

        def stall(request: BaseHTTPRequestHandler, part: int = part) -> bool:
            reply(request, 200, content[: len(content) * part // 4], length=len(content))
            request.wfile.flush()
            time.sleep(0.05)
            started[-1].kill()
            return True

        file_server.script = stall
        started.append(start(uri))
        started[-1].communicate()
        assert started[-1].returncode == -signal.SIGKILL
        assert not list(cache_folder.glob("trees/*"))
        file_server.files["/b.zip"] = content
        file_server.script = lambda request: False
        tree = fetch(SourceDefinition(source=uri, handler="model:predict"), Path("."))
        assert tree.provenance.sha256 == sha256(content)


@pytest.mark.parametrize("kind", ["git", "archive", "file", "local"])
def test_a_full_disk_is_a_clear_error(
    kind: str,
    git_server: GitServer,
    repository: Repository,
    secure_file_server: FileServer,
    tmp_path: Path,
    cache_folder: Path,
) -> None:
    noise = random.Random(0).randbytes(3 * 2**20).hex()
    repository.commit({"big.txt": noise})
    big = zipped({"model.py": b"x", "big.txt": noise.encode()})
    secure_file_server.files["/b.zip"] = big
    secure_file_server.files["/big.py"] = noise.encode()
    (tmp_path / "b.zip").write_bytes(big)
    uri = {
        "git": f"git+{git_server.url}/repository#main",
        "archive": f"{secure_file_server.url}/b.zip",
        "file": f"{secure_file_server.url}/big.py",
        "local": str(tmp_path / "b.zip"),
    }[kind]
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(_made(cache_folder))],
        capture_output=True,
        check=False,
    )
    try:
        limits = (2**20, 2**20)
        process = start(
            uri,
            preexec_fn=None
            if mounted.returncode == 0
            else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
        )
        error = process.communicate(timeout=60)[1]
        assert process.returncode == 1, error
        assert error.count("\n") == 1, error
        assert "SourceError: source " in error
        assert "no space left" in error.lower() or "disk" in error or "too large" in error
        assert not list(cache_folder.glob("t*/*"))
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(cache_folder)], check=True)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_works_with_a_home_that_cannot_be_written(
    file_server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_server.files["/b.zip"] = BUNDLE
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    fetch(SourceDefinition(source=f"{file_server.url}/b.zip", handler="model:predict"), tmp_path)
    monkeypatch.delenv("MLSERVER_PYFUNC_CACHE")
    with pytest.raises(SourceError, match="or set MLSERVER_PYFUNC_CACHE to another folder"):
        fetch(
            SourceDefinition(source=f"{file_server.url}/b.zip", handler="model:predict"), tmp_path
        )


@pytest.mark.needs("mounts as root")
def test_a_warm_cache_may_be_read_only(
    file_server: FileServer, tmp_path: Path, cache_folder: Path
) -> None:
    file_server.files["/b.zip"] = BUNDLE
    source = SourceDefinition(
        source=f"{file_server.url}/b.zip", handler="model:predict", sha256=sha256(BUNDLE)
    )
    root = fetch(source, tmp_path).root
    subprocess.run(["mount", "--bind", cache_folder, cache_folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", cache_folder], check=True)
        assert fetch(source, tmp_path).root == root
    finally:
        subprocess.run(["umount", cache_folder], check=True)


def test_drops_what_was_unused_for_longest(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, used = tree_of(40_000, "old"), tree_of(40_000, "used")
    for entry, age in ((old, 200), (used, 100)):
        cache.release(entry.path)
        os.utime(entry.path, (time.time() - age, time.time() - age))
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE_SIZE", "100K")
    new = tree_of(40_000, "newest")
    assert (new.path.exists(), used.path.exists(), old.path.exists()) == (True, True, False)
    assert cache.find("old") is None
    assert len(list(cache_folder.glob("index/*"))) == 2


def test_never_drops_a_tree_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE_SIZE", "1K")
    first = tree_of(40_000, "first")
    second = tree_of(40_000, "second")
    assert first.path.exists()
    assert second.path.exists()
    cache.release(first.path)
    cache.prune()
    assert (first.path.exists(), second.path.exists()) == (False, True)


def test_another_process_does_not_drop_a_tree_in_use(
    file_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tree_of(40_000, "first")
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE_SIZE", "1K")
    file_server.files["/b.zip"] = BUNDLE
    process = start(f"{file_server.url}/b.zip")
    assert process.wait(60) == 0
    assert first.path.exists()


def test_a_changed_tree_in_use_keeps_its_place() -> None:
    first = tree_of(10, "first")
    (first.path / "extra").write_text("x")
    again = tree_of(10, "first")
    assert again.path != first.path
    assert (first.path / "extra").exists()
    assert tree_sha256(again.path) == again.sha256
    assert tree_of(10, "first") == again


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 1}', '{"name": "../x", "sha256": "y"}'])
def test_a_broken_record_is_as_good_as_none(text: str, cache_folder: Path) -> None:
    entry = tree_of(10, "first")
    for record in cache_folder.glob("index/*"):
        record.write_text(text)
    assert tree_of(10, "first") == entry


def test_an_entry_of_the_cache_is_for_its_owner_only(cache_folder: Path) -> None:
    tree_of(10, "first")
    assert cache_folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["10 apples", "-1", "G"])
def test_rejects_a_size_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE_SIZE", text)
    with pytest.raises(SourceError, match="MLSERVER_PYFUNC_CACHE_SIZE: expected bytes"):
        cache.prune()


def test_what_is_not_fetched_may_take_longer_than_a_fetch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_FETCH_TIMEOUT", "0.01")
    made: list[str] = []
    makes, others_fail = threading.Event(), threading.Event()

    def make(work: Path) -> str:
        makes.set()
        others_fail.wait(2)
        made.append("once")
        return "made"

    def found() -> str | None:
        return made[0] if made else None

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.once, "environment", found, make)
        makes.wait()
        second = threads.submit(cache.once, "environment", found, make)
        second.add_done_callback(lambda _: others_fail.set())
        assert (first.result(), second.result()) == ("made", "once")
