"""Code that the definition itself holds, as text or base64."""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError

from .tree import Provenance, SourceTree

DEFAULT_MODULE = "function"


def fetch(source: SourceDefinition, folder: Path, pin: Provenance) -> SourceTree:
    """Returns the code as a module beside the definition's files; the handler gives its name."""
    code = source.code if source.code is not None else _decoded(source.base64 or "")
    kind = "code" if source.code is not None else "base64"
    digest = hashlib.sha256(code.encode()).hexdigest()
    if source.sha256 and source.sha256.lower() != digest:
        raise SourceError(f"source.{kind}: expected sha256 {source.sha256.lower()}, got {digest}")
    module = _module(source)
    return SourceTree(folder, Provenance(f"inline {kind}", sha256=digest), module, {module: code})


def _module(source: SourceDefinition) -> str:
    path, separator, _ = source.handler.partition(":")
    if separator:
        return path
    return Path(source.source).stem if source.source else DEFAULT_MODULE


def _decoded(encoded: str) -> str:
    try:
        return base64.b64decode("".join(encoded.split()), validate=True).decode()
    except binascii.Error as error:
        raise SourceError(f"source.base64: not base64: {error}") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"source.base64: not UTF-8 text: {error}") from None
