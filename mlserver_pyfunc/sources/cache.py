"""The cache of fetched sources: content-addressed, whole or absent, shared by processes.

docs/design/cache-and-lock.md explains its folders, its locks and the steps of a fetch.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import SourceError

from .progress import logger
from .tree import size_of, tree_sha256

TREE = "tree"
"""Folder of a workspace that the `make` function of `obtain` fills."""

T = TypeVar("T")

_STALE_SECONDS = 60

_descriptors: dict[str, int] = {}
_guard = threading.Lock()


@dataclass(frozen=True)
class Entry:
    """A tree in the cache."""

    path: Path
    sha256: str
    metadata: Mapping[str, str] = field(default_factory=dict)


def obtain(
    key: str,
    make: Callable[[Path], Mapping[str, str]],
    since: float = 0,
    digest: str | None = None,
) -> Entry:
    """Returns the tree of a source, which is made once however many processes ask for it.

    `key` is all that decides the content, without secrets. `make` fills the folder `TREE` of a
    workspace. Trees that were fetched before `since` (Unix time) do not count. A tree with the
    digest is taken from whatever source it came.
    """

    def store(work: Path) -> Entry:
        (work / TREE).mkdir()
        entry = _stored(work / TREE, make(work))
        _record(key, entry, work)
        prune()
        return entry

    twice = settings.fetch_timeout() * 2
    return once(key, lambda: find_tree(digest) or find(key, since), store, twice)


def once(key: str, find: Callable[[], T | None], make: Callable[[Path], T], limit: float = -1) -> T:
    """Returns what `find` finds, or makes it, while others wait up to `limit` seconds."""
    found = find()
    if found is None:
        with locked(key, limit):
            # Another process may have made it while this one waited for the lock.
            found = find()
            if found is None:
                with workspace() as work:
                    found = make(work)
    return found


def find(key: str, since: float = 0) -> Entry | None:
    """Returns the tree of a source that was fetched before, if it is unchanged, without a lock."""
    try:
        record = json.loads(_record_path(key).read_text(encoding="utf-8"))
        path, digest = _root() / "trees" / record["name"], record["sha256"]
        metadata, fetched = record["facts"], float(record["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Later than now: the clock has been set back since.
    if (since and not since <= fetched <= time.time()) or not _usable(path, digest):
        return None
    return Entry(path, digest, metadata)


def find_tree(digest: str | None) -> Entry | None:
    """Returns the tree with a digest, if one is given, from whatever source it came."""
    if digest and _usable(path := _root() / "trees" / digest, digest):
        return Entry(path, digest)
    return None


@contextmanager
def locked(key: str, limit: float = -1) -> Iterator[None]:
    """Keeps other processes and threads from making the same at the same time."""
    with _writing():
        lock = FileLock(_folder("locks") / f"{_hashed(key)}.lock", timeout=limit)
        try:
            with suppress(Timeout):
                lock.acquire(timeout=1)
            if not lock.is_locked:
                logger.info("waiting for another process that fetches or makes the same")
                lock.acquire()
        except Timeout:
            raise SourceError(
                f"another process has been fetching it for {limit:.0f} s, gave up"
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def workspace() -> Iterator[Path]:
    """Makes a temporary folder on the cache's file system, locks it, and removes it at the end."""
    with _writing():
        parent = _folder("tmp")
        _remove_stale(parent)
        work = Path(tempfile.mkdtemp(dir=parent))
        hold(work)
    try:
        with _writing():
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        release(work)


def prune() -> None:
    """Removes the least recently used trees above `MLSERVER_PYFUNC_CACHE_SIZE` bytes."""
    limit = settings.cache_size()
    with suppress(OSError):
        trees = sorted((_root() / "trees").iterdir(), key=lambda tree: -tree.stat().st_mtime)
        kept = 0
        for tree in trees:
            size = size_of(tree)
            if kept + size > limit and discard(tree, _folder("tmp")):
                logger.info("pruned %s from the cache (%d bytes)", tree.name, size)
            else:
                kept += size
        names = {tree.name for tree in trees if tree.exists()}
        for record in (_root() / "index").iterdir():
            with suppress(OSError, ValueError, KeyError):
                if json.loads(record.read_text())["name"] not in names:
                    record.unlink()


def hold(path: Path) -> bool:
    """Takes the shared lock of a folder; returns whether this process did not hold it yet."""
    name = str(path)
    with _guard:
        while True:
            inode = path.stat().st_ino
            if name in _descriptors and os.fstat(_descriptors[name]).st_ino == inode:
                return False
            descriptor = os.open(path, os.O_RDONLY)
            # Some NFS have no locks: trees are removed there by age alone.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            # Between `open` and `flock` another process may have moved the folder away and put
            # a new one in its place; we would hold a lock on what is being removed. Try again.
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                stale = _descriptors.pop(name, None)
                if stale is not None:
                    os.close(stale)
                _descriptors[name] = descriptor
                return True
            os.close(descriptor)


def release(path: Path) -> None:
    """Releases the shared lock of a folder, if this process holds it."""
    with _guard:
        descriptor = _descriptors.pop(str(path), None)
    if descriptor is not None:
        os.close(descriptor)


def discard(path: Path, within: Path) -> bool:
    """Removes a folder unless a process uses it, and returns whether it is gone.

    It is moved to `within` first: nobody must see it with some of its files removed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        doomed = Path(tempfile.mkdtemp(prefix="tmp-", dir=within))
        path.rename(doomed / path.name)
        shutil.rmtree(doomed, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _stored(built: Path, metadata: Mapping[str, str]) -> Entry:
    digest = tree_sha256(built)
    path = _folder("trees") / digest
    if _usable(path, digest):
        return Entry(path, digest, metadata)
    # A changed tree that a function still uses keeps the name. The good tree takes another one.
    if not discard(path, _folder("tmp")):
        path = path.with_name(f"{digest}-{built.parent.name}")
    try:
        built.rename(path)  # all of it is visible at once, or nothing
    except OSError as error:
        # Another process may have stored the same content first.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not _usable(path, digest):
            raise
    else:
        hold(path)
    return Entry(path, digest, metadata)


def _record(key: str, entry: Entry, work: Path) -> None:
    record = {"name": entry.path.name, "sha256": entry.sha256, "facts": dict(entry.metadata)}
    path = work / "record.json"
    path.write_text(json.dumps({**record, "time": time.time()}), encoding="utf-8")
    _folder("index")
    path.replace(_record_path(key))


def _usable(path: Path, digest: str) -> bool:
    """Locks the tree against removal, and checks its digest."""
    new = whole = False
    problem = "was changed on disk"
    try:
        new = hold(path)
        whole = tree_sha256(path) == digest
        with suppress(OSError):
            os.utime(path)
    except FileNotFoundError:
        problem = ""
    except (OSError, SourceError) as error:
        problem = f"cannot be read ({error})"
    if problem and not whole:
        logger.warning("cached tree %s %s, fetching it again", path, problem)
    if new and not whole:
        release(path)
    return whole


def _remove_stale(parent: Path) -> None:
    """Removes the workspaces of processes that were killed: those without a lock."""
    for work in parent.iterdir():
        with suppress(OSError):
            if time.time() - work.stat().st_mtime >= _STALE_SECONDS:
                discard(work, parent)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"cache folder {_root()}: {(error.strerror or str(error)).lower()}; "
            f"free some space there, or set {settings.CACHE} to another folder"
        ) from None


def _root() -> Path:
    return settings.cache_folder()


def _folder(name: str) -> Path:
    _root().mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = _root() / name
    folder.mkdir(exist_ok=True)
    return folder


def _record_path(key: str) -> Path:
    return _root() / "index" / f"{_hashed(key)}.json"


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
