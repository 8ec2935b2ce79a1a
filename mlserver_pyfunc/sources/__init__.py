"""Sources: from a definition's `source` to a local tree and where it came from.

One module per kind, each with `fetch(source, folder) -> SourceTree`. A kind is imported
when a definition first uses it.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ..definition import SourceDefinition
from ..errors import SourceError
from .tree import Provenance, SourceTree

__all__ = ["Provenance", "SourceTree", "fetch"]

_KINDS = {
    "": "local",
    "file": "local",
}


def fetch(source: SourceDefinition, folder: Path) -> SourceTree:
    """Makes the source available as a local tree.

    Args:
        source: The definition's source.
        folder: The definition's folder: relative paths start there.

    Raises:
        SourceError: It cannot be fetched, verified or unpacked.
    """
    if source.code is not None or source.base64 is not None:
        kind = "inline"
    else:
        scheme = _scheme(source.source or "")
        if scheme not in _KINDS:
            raise SourceError(
                f'source "{source.source}": unknown scheme "{scheme}", expected a path or one of '
                + ", ".join(f"{known}://" for known in _KINDS if known)
            )
        kind = _KINDS[scheme]
    tree: SourceTree = import_module(f".{kind}", __name__).fetch(source, folder)
    return tree


def _scheme(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""
