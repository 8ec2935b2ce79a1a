"""The image that was built of a function: which one, and whether it still is that function.

What went into it is recorded in `function.lock` by parts, so that a stale image can be told
from a current one, and what made it stale be named, with no engine and no network.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mlserver_pyfunc import sources
from mlserver_pyfunc.definition import FunctionDefinition, SourceDefinition
from mlserver_pyfunc.definition.model_settings import MODEL_SETTINGS, SERVER_SETTINGS
from mlserver_pyfunc.sources import lock
from mlserver_pyfunc.sources.uri import checked_scheme

from . import source_files as image_source

RECIPE = 1
"""Changes with what the build makes of equal inputs."""

_DISTRIBUTION = "mlserver-pyfunc"


@dataclass(frozen=True)
class Image:
    """A function's image.

    Attributes:
        reference: What to run: `name@sha256:...` once it was pushed, else `name:tag`.
        stale: Whether the function has changed since.
        why: What changed, in a few words; empty where nothing did.
        id: By which engines on the machine that built it know it.
    """

    reference: str
    stale: bool = False
    why: str = ""
    id: str | None = None


def recorded(definition: FunctionDefinition, folder: Path) -> Image | None:
    """The image of a function: the one its definition names, else the one built last.

    Args:
        definition: The function. An `image` in it is taken as it is, and never stale.
        folder: The definition's folder, where the lock is.

    Raises:
        SourceError: The lock is none, or a local source cannot be read.
    """
    if definition.image:
        return Image(definition.image)
    held = lock.read(folder)
    if held is None or held.image is None:
        return None
    record = held.image
    changed = differences(record.inputs, inputs(definition, folder))
    why = f"{' and '.join(changed)} changed since it was built" if changed else ""
    return Image(_reference(record), bool(changed), why, record.id)


def inputs(definition: FunctionDefinition, folder: Path) -> dict[str, str]:
    """The SHA-256 of each part that goes into a function's image, by the part's name.

    Reads no network: a remote source is what the lock says it is.

    Raises:
        SourceError: The lock is none, or a local source cannot be read.
    """
    held = lock.read(folder) or lock.Lock()
    parts = {
        "definition": definition.model_dump(mode="json", exclude={"image"}),
        "settings": {name: _text(folder / name) for name in (MODEL_SETTINGS, SERVER_SETTINGS)},
        "source": _source(definition.source, folder, held),
        "resolved requirements": held.resolved,
        _DISTRIBUTION: [metadata.version(_DISTRIBUTION), RECIPE],
    }
    return {name: _sha256(value) for name, value in parts.items()}


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Names the parts that are not what they were."""
    return [name for name in {**now, **before} if before.get(name) != now.get(name)]


def _source(source: SourceDefinition, folder: Path, held: lock.Lock) -> Any:
    if not source.is_inline and checked_scheme(source.source or "") not in ("", "file"):
        return [held.commit, held.sha256, held.tree_sha256]
    tree = sources.fetch(source, folder)
    return image_source.sha256(image_source.selected(tree, folder))


def _reference(record: lock.ImageRecord) -> str:
    if record.digest is None:
        return record.name
    head, slash, last = record.name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{record.digest}"


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
