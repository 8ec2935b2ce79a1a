"""The image that was built last from a function, and whether the function has changed since.

`function.lock` records a digest for each part that went into the image. So a stale image is
recognised, and the reason named, without an engine and without the network.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlserver_pyfunc import sources
from mlserver_pyfunc.definition import FunctionDefinition, SourceDefinition
from mlserver_pyfunc.definition.model_settings import MODEL_SETTINGS, SERVER_SETTINGS
from mlserver_pyfunc.sources import lock
from mlserver_pyfunc.sources.uri import checked_scheme

from . import source_files, wheel

RECIPE = 1
"""Version of the build. Raise it if the build makes another image from equal inputs."""


@dataclass(frozen=True)
class Image:
    """A function's image."""

    reference: str  # name@sha256:... if the image was pushed, else name:tag
    why: str = ""  # what changed since the build, in a few words; empty if nothing did
    id: str | None = None  # its id in the engine that built it


def recorded(definition: FunctionDefinition, folder: Path) -> Image | None:
    """Returns the image that the definition names, never stale, else the one built last."""
    if definition.image:
        return Image(definition.image)
    locked = lock.read(folder)
    if locked is None or locked.image is None:
        return None
    record = locked.image
    before, now = record.inputs, inputs(definition, folder)
    changed = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    why = f"{' and '.join(changed)} changed since it was built" if changed else ""
    return Image(_reference(record), why, record.id)


def inputs(definition: FunctionDefinition, folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each part that goes into a function's image, by the part's name.

    Uses no network: the digest of a remote source comes from the lock.
    """
    locked = lock.read(folder) or lock.Lock()
    parts = {
        "definition": definition.model_dump(mode="json", exclude={"image", "deployment"}),
        "settings": {name: _text(folder / name) for name in (MODEL_SETTINGS, SERVER_SETTINGS)},
        "source": _source(definition.source, folder, locked),
        "resolved requirements": locked.resolved,
        wheel.DISTRIBUTION: [wheel.version(), RECIPE],
    }
    return {name: _sha256(value) for name, value in parts.items()}


def _source(source: SourceDefinition, folder: Path, locked: lock.Lock) -> Any:
    if not source.is_inline and checked_scheme(source.source or "") not in ("", "file"):
        return [locked.commit, locked.sha256, locked.tree_sha256]
    tree = sources.fetch(source, folder)
    return source_files.sha256(source_files.selected(tree, folder))


def _reference(record: lock.ImageRecord) -> str:
    if record.digest is None:
        return record.name
    head, slash, last = record.name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{record.digest}"


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
