"""Fetches a definition's `source`: returns a local tree and a record of its origin.

Each kind of source has a module with `fetch(source, folder, pin) -> SourceTree`, which is
imported when a definition first uses that kind.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from mlserver_pyfunc import models
from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError

from . import local
from .tree import Provenance, SourceTree
from .uri import checked_scheme, naming

__all__ = ["Provenance", "SourceTree", "check_form", "fetch"]

_KINDS = {
    **dict.fromkeys(("", "file"), "local"),
    **dict.fromkeys(("git+https", "git+ssh", "git+file"), "git"),
    **dict.fromkeys(("https", "http", "zip+https", "zip+http", "s3", "zip+s3"), "remote"),
}

_UNPINNED = Provenance()


def fetch(source: SourceDefinition, folder: Path, pin: Provenance = _UNPINNED) -> SourceTree:
    """Makes the source available as a local tree."""
    if source.is_inline:
        return local.fetch(source, folder, pin)
    uri = source.source or ""
    with naming(uri):
        kind = import_module(f".{_kind(uri)}", __name__)
        tree: SourceTree = kind.fetch(source, folder, pin)
        if source.is_model:
            name = source.model or tree.file or models.MLFLOW
            tree = replace(tree, model=name, kind=models.kind_of(tree.root / name, source.format))
        return tree


def check_form(uri: str) -> None:
    """Checks the form of a source's URI, without the network or the disk."""
    with naming(uri):
        if _kind(uri) == "remote":
            import_module(".remote", __name__).check_form(uri)


def _kind(uri: str) -> str:
    scheme = checked_scheme(uri)
    if scheme not in _KINDS:
        raise SourceError(
            f'unknown scheme "{scheme}", expected a path or one of '
            + ", ".join(f"{known}://" for known in _KINDS if known)
        )
    return _KINDS[scheme]
