"""A file, an archive or a prefix over HTTP or S3, by the clients of the extra `remote`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

from mlserver_pyfunc import models
from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError

from . import archive, cache
from .safe_tree import check_is_no_web_page, checked_subdirectory
from .tree import ARCHIVE_SUFFIXES, Provenance, SourceTree, check_sha256, file_sha256
from .uri import redacted, split_fragment, split_user

_FILES = (".py", *(name for name in models.NAMES if name != models.MLFLOW))
_CLIENTS = {"http": "http_client", "https": "http_client", "s3": "s3_client"}


def fetch(source: SourceDefinition, folder: Path, pin: Provenance) -> SourceTree:
    """Fetches a Python file, an archive, which is unpacked, or the files below an S3 prefix."""
    uri = source.source or ""
    check_form(uri)
    url, _ = split_fragment(uri)
    name, module = _name(url), None
    is_zip = url.lower().startswith("zip+")
    if is_zip or name.lower().endswith(ARCHIVE_SUFFIXES):
        url = url[len("zip+") :] if is_zip else url
        # The same key as that of a local archive: only the bytes count.
        key, place = partial(archive.key, source), partial(archive.unpack, source)
        entry = _downloaded(source, url, pin, key, place)
    elif name.endswith(_FILES):
        module = None if source.is_model else Path(name).stem
        if module is not None and not module.isidentifier():
            raise SourceError(f'expected a file that can be imported, got "{name}"')
        if source.subdirectory:
            raise SourceError("subdirectory is for a folder or an archive, got a file")
        place = partial(_place, name)
        entry = _downloaded(source, url, pin, lambda content: f"file {content} {name}", place)
    else:
        entry = _prefix(source, url, pin)
    provenance = Provenance(
        redacted(uri), sha256=entry.metadata.get("sha256", pin.sha256), tree_sha256=entry.sha256
    )
    return SourceTree(entry.path, provenance, module, file=name if name.endswith(_FILES) else None)


def check_form(uri: str) -> None:
    """Checks the form of a URI."""
    url, _ = split_fragment(uri)
    if url.lower().startswith(("zip+", "s3://")):
        return
    if not _name(url).lower().endswith((*ARCHIVE_SUFFIXES, *_FILES)):
        raise SourceError(
            "expected a .py file, a model file or a .zip or .tar.gz archive; for an archive of "
            "another name write zip+https://, for a git repository git+https://"
        )


def _name(url: str) -> str:
    return unquote(re.split(r"[?#]", url)[0].rpartition("/")[2])


def _downloaded(
    source: SourceDefinition,
    url: str,
    pin: Provenance,
    key: Callable[[str], str],
    place: Callable[[Path, Path], None],
) -> cache.Entry:
    """Returns a tree from the cache if its digest is known, else one that is fetched from now on.

    Without a digest the content behind a URL may change, so an older tree must not be used. If
    several processes start at the same time, the first one fetches for all.
    """
    expected = (source.sha256 or pin.sha256 or "").lower()

    def make(work: Path) -> dict[str, str]:
        path = work / "download"
        _client(url.partition("://")[0].lower()).download(url, path)
        digest = file_sha256(path)
        check_sha256(expected, digest)
        place(path, work / cache.TREE)
        return {"sha256": digest}

    content, since = (expected, 0.0) if expected else (split_user(url)[0], time.time())
    return cache.obtain(key(content), make, since, pin.tree_sha256)


def _place(name: str, path: Path, root: Path) -> None:
    check_is_no_web_page(path, "Python code" if name.endswith(".py") else "a model file")
    path.chmod(0o444)
    path.rename(root / name)


def _prefix(source: SourceDefinition, url: str, pin: Provenance) -> cache.Entry:
    if source.sha256:
        raise SourceError("sha256 is for a file or an archive, got an S3 prefix: use function.lock")
    if known := cache.find_tree(pin.tree_sha256):
        return known
    subdirectory = checked_subdirectory(source.subdirectory)
    digest, download = _client("s3").listed(url, subdirectory)

    def make(work: Path) -> dict[str, str]:
        download(work / cache.TREE)
        return {}

    return cache.obtain(f"prefix {split_user(url)[0]} {subdirectory} {digest}", make)


def _client(scheme: str) -> ModuleType:
    try:
        return import_module(f".{_CLIENTS[scheme]}", __package__)
    except ImportError as error:
        raise SourceError(
            f'{scheme}:// needs the extra "remote" ({error.name} is missing): '
            "pip install 'mlserver-pyfunc[remote]'"
        ) from None
