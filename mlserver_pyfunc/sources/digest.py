"""Digests of files and trees. `docs/sources.md` shows how to recompute them by `sha256sum`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlserver_pyfunc.errors import SourceError

IGNORED_FOLDERS = frozenset({"__pycache__", ".git"})
LOCK_NAME = "function.lock"
RENEW = f"if that is meant, renew {LOCK_NAME} by mlserver-pyfunc lock"


class DigestError(SourceError):
    """The fetched source differs from the expected one."""


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def tree_sha256(root: Path) -> str:
    """Returns the SHA-256 of a folder: the digest of one line per file, sorted by path bytes.

    A line is `<sha256 of the content>  ./<path>` and a NUL, as `sha256sum --zero` prints it.
    The line of a symbolic link has `@` for the second space, and the SHA-256 of the link's
    target as text. Folders named `__pycache__` or `.git` and the top folder's `function.lock`
    are left out. Modes, times and empty folders do not count.

    Raises:
        SourceError: A link leads out of the folder: no digest could cover what it leads to.
    """
    digest, inside = hashlib.sha256(), os.path.realpath(root)
    for name, entry in sorted(_entries(root, b".")):
        path = Path(entry.path)
        if entry.is_symlink():
            if os.path.commonpath([inside, os.path.realpath(path)]) != inside:
                raise SourceError(f'link "{path}" leads out of the source, expected a copy there')
            content = hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
            digest.update(f"{content} @".encode() + name + b"\0")
        else:
            digest.update(f"{file_sha256(path)}  ".encode() + name + b"\0")
    return digest.hexdigest()


def size_of(folder: Path) -> int:
    """Returns the bytes of all files below a folder, which may change meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def check_sha256(expected: str | None, got: str) -> None:
    """Raises `DigestError` if a digest is expected and the actual one differs."""
    if expected and expected.lower() != got:
        raise DigestError(f"expected sha256 {expected.lower()}, got {got}")


def _entries(folder: Path, prefix: bytes) -> Iterator[tuple[bytes, os.DirEntry[str]]]:
    for entry in os.scandir(folder):
        name = prefix + b"/" + os.fsencode(entry.name)
        if entry.is_symlink():
            yield name, entry
        elif entry.is_dir():
            if entry.name not in IGNORED_FOLDERS:
                yield from _entries(Path(entry.path), name)
        elif not entry.is_file():
            raise SourceError(f'"{entry.path}" is neither a file nor a folder')
        elif name != b"./" + LOCK_NAME.encode():
            yield name, entry
