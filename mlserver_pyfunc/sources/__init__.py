"""Sources: from a definition's `source` to a local tree and where it came from.

One module per kind, each with `fetch(source, folder, pin) -> SourceTree`. A kind is imported
when a definition first uses it.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ..definition import SourceDefinition
from ..errors import SourceError
from . import uri
from .tree import Pin, Provenance, SourceTree

__all__ = ["Pin", "Provenance", "SourceTree", "fetch"]

_KINDS = {
    "": "local",
    "file": "local",
}

ARCHIVE_SUFFIXES = (".zip", ".tar.gz", ".tgz")


def fetch(source: SourceDefinition, folder: Path, pin: Pin | None = None) -> SourceTree:
    """Makes the source available as a local tree.

    Args:
        source: The definition's source.
        folder: The definition's folder: relative paths start there.
        pin: What a lock says the source must be.

    Raises:
        SourceError: It cannot be fetched, verified or unpacked.
    """
    fetcher = import_module(f".{_kind(source)}", __name__)
    tree: SourceTree = fetcher.fetch(source, folder, pin or Pin())
    return tree


def _kind(source: SourceDefinition) -> str:
    if source.code is not None or source.base64 is not None:
        return "inline"
    text = source.source or ""
    with uri.naming(text):
        scheme = uri.checked_scheme(text)
        if scheme not in _KINDS:
            raise SourceError(
                f'unknown scheme "{scheme}", expected a path or one of '
                + ", ".join(f"{known}://" for known in _KINDS if known)
            )
    kind = _KINDS[scheme]
    if kind == "local" and text.lower().endswith(ARCHIVE_SUFFIXES):
        return "archive"
    return kind
