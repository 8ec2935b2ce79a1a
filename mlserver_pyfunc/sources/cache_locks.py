"""Shared locks on the cache folders that a process uses, so that no other process removes them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

_held: dict[str, int] = {}
_guard = threading.Lock()


def hold(path: Path) -> bool:
    """Takes the shared lock of a folder; False if this process has it already.

    Raises:
        OSError: There is no such folder, or it cannot be read.
    """
    name = str(path)
    with _guard:
        while True:
            inode = path.stat().st_ino
            if name in _held and os.fstat(_held[name]).st_ino == inode:
                return False
            descriptor = os.open(path, os.O_RDONLY)
            # File systems without locks (some NFS): pruning there goes by age alone.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                stale = _held.pop(name, None)
                if stale is not None:
                    os.close(stale)
                _held[name] = descriptor
                return True
            os.close(descriptor)


def release(path: Path) -> None:
    """Gives the shared lock of a folder back, if this process has it."""
    with _guard:
        descriptor = _held.pop(str(path), None)
    if descriptor is not None:
        os.close(descriptor)


def discard(path: Path, within: Path) -> bool:
    """Removes a folder unless a process uses it; False where it is still there.

    Args:
        path: The folder.
        within: A folder on the same file system: what is removed is moved there first, so that
            it is never seen half there.
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
