"""A file, an archive or a prefix over HTTP or S3, by the clients of the extra `remote`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

from mlserver_pyfunc import settings
from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError

from . import ARCHIVE_SUFFIXES, archive, cache
from .digest import check_sha256, file_sha256
from .safe_tree import checked_subdirectory
from .tree import Pin, Provenance, SourceTree
from .uri import redacted, split_fragment, split_user

Make = Callable[[Path], dict[str, str]]

_CLIENTS = {"http": "http_client", "https": "http_client", "s3": "s3_client"}


def fetch(source: SourceDefinition, folder: Path, pin: Pin) -> SourceTree:
    """Fetches a Python file, an archive, which is unpacked, or the files below an S3 prefix."""
    uri = source.source or ""
    check_form(uri)
    url, _ = split_fragment(uri)
    # Archives and files have a digest of their own; a prefix has none.
    expected = source.sha256 or pin.sha256
    name = _name(url)
    if url.lower().startswith("zip+"):
        entry, module = _archive(source, url[len("zip+") :], expected, pin), None
    elif name.lower().endswith(ARCHIVE_SUFFIXES):
        entry, module = _archive(source, url, expected, pin), None
    elif name.endswith(".py"):
        entry, module = _file(source, url, name, expected, pin), Path(name).stem
    else:
        entry, module = _prefix(source, url, pin), None
    provenance = Provenance(
        redacted(uri), sha256=entry.metadata.get("sha256", pin.sha256), tree_sha256=entry.sha256
    )
    return SourceTree(entry.path, provenance, module)


def check_form(uri: str) -> None:
    """Checks the form of a URI."""
    url, _ = split_fragment(uri)
    if url.lower().startswith(("zip+", "s3://")):
        return
    if not _name(url).lower().endswith((*ARCHIVE_SUFFIXES, ".py")):
        raise SourceError(
            "expected a .py file or a .zip or .tar.gz archive; for an archive of another name "
            "write zip+https://, for a git repository git+https://"
        )


def _name(url: str) -> str:
    return unquote(re.split(r"[?#]", url)[0].rpartition("/")[2])


def _archive(source: SourceDefinition, url: str, expected: str | None, pin: Pin) -> cache.Entry:
    def make(work: Path) -> dict[str, str]:
        path = work / "download"
        digest = _downloaded(url, path, expected)
        archive.unpack(path, work / cache.TREE, source)
        return {"sha256": digest}

    # The same key as that of a local archive: only the bytes count, not where they come from.
    known_by = archive.key(expected.lower(), source) if expected else None
    place = archive.key(split_user(url)[0], source)
    return _obtained(known_by, place, pin, make)


def _file(
    source: SourceDefinition, url: str, name: str, expected: str | None, pin: Pin
) -> cache.Entry:
    if not Path(name).stem.isidentifier():
        raise SourceError(f'expected a file that can be imported, got "{name}"')
    if source.subdirectory:
        raise SourceError("subdirectory is for a folder or an archive, got a file")

    def make(work: Path) -> dict[str, str]:
        path = work / "download"
        digest = _downloaded(url, path, expected)
        _check_is_code(path)
        path.chmod(0o444)
        path.rename(work / cache.TREE / name)
        return {"sha256": digest}

    known_by = f"file {expected.lower()} {name}" if expected else None
    return _obtained(known_by, f"file {split_user(url)[0]}", pin, make)


def _prefix(source: SourceDefinition, url: str, pin: Pin) -> cache.Entry:
    if source.sha256:
        raise SourceError("sha256 is for a file or an archive, got an S3 prefix: use function.lock")
    known = cache.find_tree(pin.tree_sha256) if pin.tree_sha256 else None
    if known:
        return known
    subdirectory = checked_subdirectory(source.subdirectory)
    listing = _client("s3").listed(url, subdirectory)

    def make(work: Path) -> dict[str, str]:
        listing.download(work / cache.TREE)
        return {}

    return cache.obtain(f"prefix {split_user(url)[0]} {subdirectory} {listing.digest}", make)


def _obtained(known_by: str | None, place: str, pin: Pin, make: Make) -> cache.Entry:
    """Returns a tree from the cache if its digest is known, else one that is fetched from now on.

    Without a digest the content behind a URL may change, so an older tree must not be used. If
    several processes start at the same time, the first one fetches for all.
    """
    known = cache.find_tree(pin.tree_sha256) if pin.tree_sha256 else None
    if known:
        return known
    if known_by:
        return cache.obtain(known_by, make)
    return cache.obtain(place, make, since=time.time())


def _downloaded(url: str, path: Path, expected: str | None) -> str:
    deadline = time.monotonic() + settings.fetch_timeout()
    scheme = url.partition("://")[0].lower()
    _client(scheme).download(url, path, deadline)
    digest = file_sha256(path)
    check_sha256(expected, digest)
    return digest


def _client(scheme: str) -> ModuleType:
    try:
        return import_module(f".{_CLIENTS[scheme]}", __package__)
    except ImportError as error:
        raise SourceError(
            f'{scheme}:// needs the extra "remote" ({error.name} is missing): '
            "pip install 'mlserver-pyfunc[remote]'"
        ) from None


def _check_is_code(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(512)
    if head.lstrip()[:1] == b"<":
        raise SourceError("expected Python code, got a web page (HTML or XML)")
