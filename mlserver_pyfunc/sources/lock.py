"""`function.lock`: the record of a function's source, which binds all later fetches.

The file is beside the definition. `docs/sources.md` shows how to recompute its digests, and
docs/design/cache-and-lock.md explains when it binds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlserver_pyfunc import sources
from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition.reading import expectation
from mlserver_pyfunc.definition.yaml_reader import YamlError, read_yaml
from mlserver_pyfunc.errors import SourceError

from .tree import LOCK_NAME, RENEW, DigestError, Provenance, SourceTree, tree_sha256
from .uri import redacted

_HEADER = (
    "# Written by mlserver-pyfunc and binding: docs/sources.md says how to check and renew it.\n"
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ImageRecord(BaseModel):
    """An image that `mlserver-pyfunc build` made, and the parts it was made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    # That of the manifest, known when the image is pushed, and that of its configuration.
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    id: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    inputs: dict[str, Sha256]
    server: list[str] = []  # exact versions in the server's environment, which later builds keep


class Lock(BaseModel):
    """The content of `function.lock`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    source: str | None = None  # without credentials; None if only an image is recorded
    subdirectory: str | None = None
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    sha256: Sha256 | None = None
    tree_sha256: Sha256 | None = None
    requirements: list[str] = []
    resolved: list[str] | None = None
    image: ImageRecord | None = None
    origin: Provenance | None = None


def fetch_locked(definition: FunctionDefinition, folder: Path) -> SourceTree:
    """Fetches a function's source, which must agree with a `function.lock` in its folder."""
    lock = read(folder)
    if lock is None or lock.source is None:
        return sources.fetch(definition.source, folder)
    _check_definition(lock, definition)
    pin = Provenance(lock.source, lock.commit, lock.sha256, lock.tree_sha256)
    try:
        tree = sources.fetch(definition.source, folder, pin)
    except DigestError as error:
        message = str(error)
        raise DigestError(message if RENEW in message else f"{message}; {RENEW}") from None
    got = _origin(tree)
    for name, value in asdict(got).items():
        _check_equal(name, getattr(pin, name), value)
    origin = replace(lock.origin, tree_sha256=lock.tree_sha256) if lock.origin else got
    return replace(tree, provenance=origin)


def read(folder: Path) -> Lock | None:
    """Reads the lock of a folder; None if there is none."""
    path = folder / LOCK_NAME
    try:
        return Lock.model_validate(read_yaml(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
    except YamlError as error:
        raise SourceError(str(error)) from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "lock"
        raise SourceError(f"{path}: {where}: {expectation(problem)}; {RENEW}") from None


def write(definition: FunctionDefinition, folder: Path, resolved: Sequence[str] = ()) -> Path:
    """Fetches a function's source as it is now, and writes its lock whatever an old one says.

    The record of an image is kept: its `inputs` tell whether the image is out of date. The next
    image gets new versions of the server's packages.
    """
    image = None
    # The old lock may be broken.
    with suppress(SourceError):
        image = getattr(read(folder), "image", None)
        image = image and image.model_copy(update={"server": []})
    tree = sources.fetch(definition.source, folder)
    renewed = Lock(
        **asdict(_origin(tree)),
        subdirectory=definition.source.subdirectory,
        requirements=definition.requirements,
        resolved=list(resolved) or None,
        image=image,
    )
    return write_to(renewed, folder)


def record_image(image: ImageRecord, folder: Path) -> Path:
    """Records an image in the lock of a folder, which is made if there is none."""
    return write_to((read(folder) or Lock()).model_copy(update={"image": image}), folder)


def write_to(lock: Lock, folder: Path) -> Path:
    """Writes a lock to a folder, by one rename: a reader never sees half of it."""
    text = yaml.safe_dump(lock.model_dump(exclude_none=True), sort_keys=False, width=1000)
    path = folder / LOCK_NAME
    temporary = folder / f".{LOCK_NAME}.new"
    try:
        temporary.write_text(_HEADER + text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SourceError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _check_definition(lock: Lock, definition: FunctionDefinition) -> None:
    source = definition.source
    # The source of inline code is its kind, "inline code"; its digest is compared later.
    if not source.is_inline:
        _check_equal("source", lock.source, redacted(source.source or ""))
    _check_equal("subdirectory", lock.subdirectory, source.subdirectory)
    _check_equal("requirements", lock.requirements, definition.requirements)


def _check_equal(name: str, locked: Any, got: Any) -> None:
    if locked != got:
        raise DigestError(f"{LOCK_NAME} has {name} {locked}, got {got}; {RENEW}")


def _origin(tree: SourceTree) -> Provenance:
    """Returns where a tree comes from, with its digest unless its folder is not all its own."""
    origin = tree.provenance
    if origin.tree_sha256 or tree.inline or tree.file:
        return origin
    return replace(origin, tree_sha256=tree_sha256(tree.root))
