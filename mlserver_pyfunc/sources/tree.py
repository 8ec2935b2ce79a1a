"""The result of every kind of source: a tree of modules, its digest, and a record of its origin.

`docs/sources.md` shows how to recompute the digests by `sha256sum`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlserver_pyfunc.errors import SourceError

ARCHIVE_SUFFIXES = (".zip", ".tar.gz", ".tgz")
IGNORED_FOLDERS = frozenset({"__pycache__", ".git"})
LOCK_NAME = "function.lock"
RENEW = f"if that is meant, renew {LOCK_NAME} by mlserver-pyfunc lock"


class DigestError(SourceError):
    """The fetched source differs from the expected one."""


@dataclass(frozen=True)
class Provenance:
    """Origin of a source: as it was fetched, or as a lock requires it."""

    source: str = ""  # URI that the definition gives, without credentials
    commit: str | None = None
    sha256: str | None = None
    tree_sha256: str | None = None

    def as_parameters(self) -> dict[str, str]:
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class SourceTree:
    """A function's code, ready to import."""

    root: Path
    provenance: Provenance
    module: str | None = None  # of a handler that is given without one
    # Source text by module name, which hides a file of the same name.
    inline: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None  # name of a single file
    file_sha256: str | None = None  # its digest, if the definition or a lock has it
    model: str = ""  # path of a model file, which has a kind and no handler
    kind: str = ""

    def check_unchanged(self) -> None:
        """Raises a `DigestError` if the files are no longer those that were verified."""
        if expected := self.provenance.tree_sha256:
            path, got = self.root, tree_sha256(self.root)
        elif expected := self.file_sha256:
            path = self.root / str(self.file)
            got = file_sha256(path)
        if expected and got != expected:
            raise DigestError(
                f'"{path}" was changed after it was verified: expected sha256 {expected}, '
                f"got {got}; restore it, or load the model again"
            )


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
