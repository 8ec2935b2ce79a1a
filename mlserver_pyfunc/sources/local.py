"""A file, an archive or a folder on this machine, or code that the definition itself holds."""

from __future__ import annotations

import base64
import binascii
import hashlib
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import unquote

from mlserver_pyfunc import models
from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError

from .safe_tree import quoted
from .tree import ARCHIVE_SUFFIXES, Provenance, SourceTree, check_sha256, file_sha256
from .uri import parts_of


def fetch(source: SourceDefinition, folder: Path, pin: Provenance) -> SourceTree:
    """Returns a folder as it is, a Python file as a module in its folder, an archive unpacked."""
    if source.is_inline:
        return _inline(source, folder)
    uri = source.source or ""
    path = found(uri, folder)
    if path.name == models.MLFLOW and path.is_file():
        path = path.parent
    if path.is_dir():
        if source.sha256:
            raise SourceError("sha256 is for a file or an archive, got a folder")
        root = _subdirectory(path, source.subdirectory)
        return SourceTree(root, Provenance(uri))
    is_archive = path.name.lower().endswith(ARCHIVE_SUFFIXES)
    if path.suffix != ".py" and not is_archive and not source.is_model:
        raise SourceError("expected a folder, a .py file or a .zip or .tar.gz archive")
    digest = file_sha256(path)
    check_sha256(source.sha256, digest)
    if is_archive:
        from . import archive

        return archive.unpacked(source, path, digest)
    verified = digest if source.sha256 or pin.sha256 else None
    provenance = Provenance(uri, sha256=digest)
    module = None if source.is_model else path.stem
    return SourceTree(path.parent, provenance, module, file=path.name, file_sha256=verified)


def _subdirectory(root: Path, relative: str | None) -> Path:
    if not relative:
        return root
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise SourceError(f'subdirectory "{relative}" is outside the source')
    if not path.is_dir():
        raise SourceError(f'subdirectory "{relative}" is not a folder of the source')
    return path


def found(uri: str, folder: Path) -> Path:
    """Returns the path that a relative or `file://` URI names."""
    path = folder / uri
    if uri.lower().startswith("file://"):
        parts = parts_of(uri)
        if parts.netloc not in ("", "localhost", "."):
            raise SourceError(f'expected file:///path, got host "{parts.netloc}"')
        path = Path(unquote(parts.path))
        if "\0" in str(path):
            raise SourceError("has a control character")
    if not path.exists():
        there = [each.name for each in path.parent.glob("*")]
        near = get_close_matches(path.name, there, 1)
        hint = f", did you mean {quoted(near[0])}?" if near else ""
        raise SourceError(f"no such file or folder, looked for {quoted(str(path), 400)}{hint}")
    return path


def _inline(source: SourceDefinition, folder: Path) -> SourceTree:
    """Returns the code as a module beside the definition's files; the handler gives its name."""
    code = source.code if source.code is not None else _decoded(source.base64 or "")
    kind = "code" if source.code is not None else "base64"
    digest = hashlib.sha256(code.encode()).hexdigest()
    if source.sha256 and source.sha256.lower() != digest:
        raise SourceError(f"source.{kind}: expected sha256 {source.sha256.lower()}, got {digest}")
    in_file = Path(source.source).stem if source.source else "function"
    module = source.handler.rpartition(":")[0] or in_file
    return SourceTree(folder, Provenance(f"inline {kind}", sha256=digest), module, {module: code})


def _decoded(encoded: str) -> str:
    try:
        return base64.b64decode("".join(encoded.split()), validate=True).decode()
    except binascii.Error as error:
        raise SourceError(f"source.base64: not base64: {error}") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"source.base64: not UTF-8 text: {error}") from None
