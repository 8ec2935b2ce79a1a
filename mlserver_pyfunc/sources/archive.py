"""Zip and tar.gz archives: checked whole before anything is written, then unpacked to the cache.

docs/design/cache-and-lock.md says what this defends against.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError

from . import cache
from .safe_tree import (
    CHUNK,
    Layout,
    check_is_no_web_page,
    checked_parts,
    checked_subdirectory,
    inside,
    is_skipped,
    quoted,
    write,
)
from .tree import Provenance, SourceTree

MAX_RATIO = 200
MAX_RATIO_FREE_BYTES = 16 * 2**20
"""Bytes that an archive may unpack to, whatever its compression ratio is."""

_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError,
    EOFError, LookupError, struct.error, NotImplementedError, ValueError, RuntimeError,
    OverflowError, UnicodeError,
)  # fmt: skip


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str
    size: int
    executable: bool
    open: Callable[[], Any]


def unpacked(source: SourceDefinition, path: Path, digest: str) -> SourceTree:
    """Unpacks a local archive."""

    def make(work: Path) -> dict[str, str]:
        unpack(source, path, work / cache.TREE)
        return {"sha256": digest}

    entry = cache.obtain(key(source, digest), make)
    provenance = Provenance(source.source or "", sha256=digest, tree_sha256=entry.sha256)
    return SourceTree(entry.path, provenance)


def key(source: SourceDefinition, content: str) -> str:
    """Returns the cache key of an archive's tree: the same bytes are unpacked once."""
    return f"archive {content} {checked_subdirectory(source.subdirectory)} {_package(source)}"


def unpack(source: SourceDefinition, path: Path, root: Path) -> None:
    """Unpacks an archive into an empty folder.

    GitHub and GitLab put everything into one folder at the top. It is left out, unless the
    handler or the subdirectory names it.
    """
    with _reading():
        is_zip = zipfile.is_zipfile(path)
        _check_head(path, is_zip)
        layout, files = Layout(), []
        with ExitStack() as stack:
            for member in (_zip if is_zip else _tar)(path, stack):
                if member.kind not in ("file", "folder"):
                    expected = "expected a file or a folder, got a"
                    raise SourceError(f"entry {quoted(member.name)}: {expected} {member.kind}")
                layout.add(member.name, member.kind, member.size)
                _check_ratio(layout.size, path)
                if member.kind == "file":
                    files.append(member)
            prefix = _prefix([member.name for member in files], source)
            wanted = [
                (name, member)
                for member in files
                if (name := inside(member.name, prefix)) and not is_skipped(member.name)
            ]
            if source.subdirectory and not wanted:
                raise SourceError(f'subdirectory "{source.subdirectory}" is not in the archive')
            if not wanted:
                raise SourceError("the archive holds no files")
            for name, member in wanted:
                with member.open() as content:
                    write(content, root, name, member.size, member.executable)


def _prefix(names: list[str], source: SourceDefinition) -> str:
    subdirectory = checked_subdirectory(source.subdirectory)
    tops = {tuple(checked_parts(name))[:2] for name in names if not is_skipped(name)}
    firsts = {top[0] for top in tops}
    if len(firsts) != 1 or any(len(top) == 1 for top in tops):
        return subdirectory
    first = firsts.pop()
    if first in (subdirectory.partition("/")[0], _package(source)):
        return subdirectory
    return f"{first}/{subdirectory}".rstrip("/")


def _package(source: SourceDefinition) -> str:
    return source.handler.rpartition(":")[0].partition(".")[0]


def _zip(path: Path, stack: ExitStack) -> Iterator[_Member]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    for entry in archive.infolist():
        # zipfile cuts names at a NUL, so "model.py\0.txt" would pass as "model.py".
        name, mode = entry.orig_filename, entry.external_attr >> 16
        if entry.flag_bits & 0x1:
            raise SourceError(f"entry {quoted(name)} is encrypted")
        if entry.compress_type not in _ZIP_METHODS:
            raise SourceError(f"entry {quoted(name)}: unknown compression method")
        kind = _KINDS.get(stat.S_IFMT(mode), _SPECIAL)
        if kind in ("file", "folder"):
            kind = "folder" if name.endswith("/") else "file"
        content = partial(archive.open, entry)
        yield _Member(name, kind, entry.file_size, bool(mode & 0o111), content)


def _tar(path: Path, stack: ExitStack) -> Iterator[_Member]:
    stream = stack.enter_context(_Stream(path))
    archive = stack.enter_context(tarfile.TarFile(fileobj=stream))
    for entry in archive:
        kind = "sparse file" if entry.issparse() else _KINDS.get(entry.type, _SPECIAL)
        content = partial(archive.extractfile, entry)
        yield _Member(entry.name, kind, entry.size, bool(entry.mode & 0o111), content)


class _Stream(gzip.GzipFile):
    """A gzip stream for tarfile, which stops at the limits of an archive.

    tarfile reads an extended header (pax, GNU long name) in one piece of the size that the
    archive gives, 2 GiB for example, before it yields an entry that we could check.
    """

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= CHUNK:
            raise SourceError(f"expected headers of at most {CHUNK} bytes, got {size}")
        data = super().read(size)
        _check_ratio(self.tell(), Path(self.name))
        return data


def _check_ratio(size: int, path: Path) -> None:
    if size > MAX_RATIO_FREE_BYTES and size > MAX_RATIO * path.stat().st_size:
        raise SourceError(f"expected to unpack to at most {MAX_RATIO} times its size, got more")


def _check_head(path: Path, is_zip: bool) -> None:
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise SourceError("expected a zip or tar.gz archive, got an empty file")
    check_is_no_web_page(path, "a zip or tar.gz archive")
    if head.startswith(b"PK\x03\x04") and not is_zip:
        raise SourceError("the zip archive is truncated or broken")
    if not head.startswith(b"\x1f\x8b") and not is_zip:
        raise SourceError(f"expected a zip or tar.gz archive, got a file that begins {head!r}")


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (*_BROKEN, OSError) as error:
        # bz2 raises one without a number, and a position before the file's start is EINVAL.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"the archive is truncated or broken: {text[:200]}") from None


_SPECIAL = "special file"
_KINDS: dict[int | bytes, str] = {
    **dict.fromkeys((0, stat.S_IFREG, tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE), "file"),
    **dict.fromkeys((stat.S_IFDIR, tarfile.DIRTYPE), "folder"),
    **dict.fromkeys((stat.S_IFLNK, tarfile.SYMTYPE), "symbolic link"),
    tarfile.LNKTYPE: "hard link",
}
