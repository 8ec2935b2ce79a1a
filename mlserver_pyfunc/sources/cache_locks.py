"""Shared locks on the cache's folders: a folder that a process uses is not removed.

A file of users or process ids beside the folder would not work: a process that is killed never
signs off, and its id may be in use again, or belong to another container that shares the cache.
`flock` on the folder itself has no such state: the kernel drops it with the process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

_descriptors: dict[str, int] = {}
_guard = threading.Lock()


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
