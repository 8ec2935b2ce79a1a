"""Zip and tar.gz archives: checked whole before anything is written, then unpacked to the cache.

The code in an archive is trusted, its bytes are not: whoever answers for the download server
could name a file `../../.bashrc`, follow a link out of the folder, or unpack to terabytes.

Things that do not work: `ZipFile.extractall` and `TarFile.extractall` write as they read, so an
archive that turns out bad is half unpacked; tarfile's `filter="data"` (PEP 706) allows links and
any number of entries and bytes, and is missing from older patch releases of Python 3.10 and 3.11;
neither has a limit for compression bombs.

So each archive is read twice: once to check the name, kind and size of every entry (see
`safe_tree.Layout`), and once to write them, where files are only ever created anew. A bad archive
leaves nothing behind.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from mlserver_pyfunc import settings
from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError

from . import cache, local
from .digest import check_sha256, file_sha256
from .safe_tree import (
    Layout,
    checked_parts,
    checked_subdirectory,
    create,
    inside,
    is_skipped,
    quoted,
)
from .tree import Pin, Provenance, SourceTree

MAX_RATIO = 200
MAX_RATIO_FREE_BYTES = 16 * 2**20
"""Bytes that an archive may unpack to, whatever its compression ratio is."""

_CHUNK = 2**20
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError,
    EOFError, LookupError, struct.error, NotImplementedError, ValueError, RuntimeError,
    OverflowError, UnicodeError,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    name: str
    size: int
    executable: bool


def fetch(source: SourceDefinition, folder: Path, pin: Pin) -> SourceTree:
    """Unpacks a local archive."""
    uri = source.source or ""
    path = local.found(uri, folder)
    if path.is_dir():
        return local.fetch(source, folder, pin)
    digest = file_sha256(path)
    check_sha256(source.sha256, digest)
    entry = unpacked(path, digest, source)
    provenance = Provenance(uri, sha256=digest, tree_sha256=entry.sha256)
    return SourceTree(entry.path, provenance)


def key(digest: str, source: SourceDefinition) -> str:
    """Returns the cache key of an archive's tree: the same bytes are unpacked once."""
    return f"archive {digest} {checked_subdirectory(source.subdirectory)} {_package(source)}"


def unpacked(path: Path, digest: str, source: SourceDefinition) -> cache.Entry:
    """Returns the archive's tree in the cache, unpacked if it is not there."""

    def make(work: Path) -> dict[str, str]:
        unpack(path, work / cache.TREE, source)
        return {"sha256": digest}

    return cache.obtain(key(digest, source), make)


def unpack(path: Path, root: Path, source: SourceDefinition) -> None:
    """Unpacks an archive into an empty folder.

    GitHub and GitLab put everything into one folder at the top. It is left out, unless the
    handler or the subdirectory names it.
    """
    with _reading():
        opened = _zip if zipfile.is_zipfile(path) else _tar
        _check_head(path)
        members = list(opened(path, None, {}))
        prefix = _prefix([member.name for member in members], source)
        wanted = {
            member.name: name
            for member in members
            if (name := inside(member.name, prefix)) and not is_skipped(member.name)
        }
        if source.subdirectory and not wanted:
            raise SourceError(f'subdirectory "{source.subdirectory}" is not in the archive')
        if not wanted:
            raise SourceError("the archive holds no files")
        for _ in opened(path, root, wanted):
            pass


def _prefix(names: list[str], source: SourceDefinition) -> str:
    """Returns the folder inside the archive that becomes the tree's root."""
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
    module, separator, _ = source.handler.partition(":")
    return module.partition(".")[0] if separator else ""


def _zip(path: Path, root: Path | None, wanted: dict[str, str]) -> Iterator[Member]:
    """Yields the files of a zip archive; with a root, writes those that are wanted."""
    with zipfile.ZipFile(path) as archive:
        layout = Layout(settings.max_source_size())
        for entry in archive.infolist():
            # zipfile cuts names at a NUL, so "model.py\0.txt" would pass as "model.py".
            name = entry.orig_filename
            _check_zip_entry(entry, name)
            if name.endswith("/"):
                layout.add_folder(name)
                continue
            layout.add_file(name, entry.file_size)
            _check_ratio(layout.size, path)
            member = Member(name, entry.file_size, bool(entry.external_attr >> 16 & 0o111))
            if root is not None and name in wanted:
                with archive.open(entry) as content:
                    _write(content, root, wanted[name], member)
            yield member


def _check_zip_entry(entry: zipfile.ZipInfo, name: str) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise SourceError(f"entry {quoted(name)}: expected a file or a folder, got a {_kind(kind)}")
    if entry.flag_bits & 0x1:
        raise SourceError(f"entry {quoted(name)} is encrypted")
    if entry.compress_type not in _ZIP_METHODS:
        raise SourceError(f"entry {quoted(name)}: unknown compression method")


def _tar(path: Path, root: Path | None, wanted: dict[str, str]) -> Iterator[Member]:
    """Yields the files of a tar.gz archive; with a root, writes those that are wanted."""
    layout = Layout(settings.max_source_size())
    with (
        gzip.open(path) as stream,
        tarfile.open(fileobj=cast(IO[bytes], _Bounded(stream, path)), mode="r:") as tar,
    ):
        for entry in tar:
            if entry.isdir():
                layout.add_folder(entry.name)
                continue
            if not entry.isreg() or entry.issparse():
                got = _TAR_KINDS.get(entry.type, "special file")
                raise SourceError(
                    f"entry {quoted(entry.name)}: expected a file or a folder, got a {got}"
                )
            layout.add_file(entry.name, entry.size)
            _check_ratio(layout.size, path)
            member = Member(entry.name, entry.size, bool(entry.mode & 0o111))
            if root is not None and entry.name in wanted:
                content = tar.extractfile(entry)
                if content is None:
                    raise SourceError(f"entry {quoted(entry.name)} has no content")
                _write(content, root, wanted[entry.name], member)
            yield member


class _Bounded:
    """A gzip stream that stops at the limits of an archive.

    tarfile reads an extended header (pax, GNU long name) in one piece of the size that the
    archive gives, 2 GiB for example, before it yields an entry that we could check. Its file
    object is the only place to refuse that. `seek` forwards reads what it skips, so that the
    compression ratio is checked there too.
    """

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self._stream = stream
        self._path = path

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise SourceError(f"expected headers of at most {_CHUNK} bytes, got {size}")
        data = self._stream.read(size)
        _check_ratio(self._stream.tell(), self._path)
        return data

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        limit = settings.max_source_size() * 2
        if position > limit:
            raise SourceError(f"expected at most {limit} bytes unpacked, got more")
        while whence == os.SEEK_SET and position - self._stream.tell() > _CHUNK:
            if len(self.read(_CHUNK)) < _CHUNK:
                break
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _write(content: IO[bytes], root: Path, name: str, member: Member) -> None:
    written = 0
    with os.fdopen(create(root, name, member.executable), "wb") as file:
        while chunk := content.read(_CHUNK):
            written += len(chunk)
            if written > member.size:
                break
            file.write(chunk)
    if written != member.size:
        raise SourceError(
            f"entry {quoted(member.name)}: expected {member.size} bytes, got {written}"
        )


def _check_ratio(size: int, path: Path) -> None:
    if size > MAX_RATIO_FREE_BYTES and size > MAX_RATIO * path.stat().st_size:
        raise SourceError(f"expected to unpack to at most {MAX_RATIO} times its size, got more")


def _check_head(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise SourceError("expected a zip or tar.gz archive, got an empty file")
    if head.lstrip()[:1] == b"<":
        raise SourceError("expected a zip or tar.gz archive, got a web page (HTML or XML)")
    if head[:4] == b"PK\x03\x04" and not zipfile.is_zipfile(path):
        raise SourceError("the zip archive is truncated or broken")
    if head[:2] != b"\x1f\x8b" and not zipfile.is_zipfile(path):
        raise SourceError(f"expected a zip or tar.gz archive, got a file that begins {head[:8]!r}")


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"the archive is truncated or broken: {text[:200]}") from None
    except OSError as error:
        # bz2 raises one without a number, and a position before the file's start is EINVAL.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise SourceError(f"the archive is truncated or broken: {error}") from None


def _kind(kind: int) -> str:
    return _STAT_KINDS.get(kind, "special file")


_STAT_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}
_TAR_KINDS = {
    tarfile.SYMTYPE: "symbolic link",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "pipe",
    tarfile.GNUTYPE_SPARSE: "sparse file",
}
