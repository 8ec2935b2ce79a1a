"""The result of every kind of source: a tree of modules and a record of its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .digest import DigestError, file_sha256, tree_sha256


@dataclass(frozen=True)
class Provenance:
    """Origin of a source: as it was fetched, or as a lock requires it."""

    source: str = ""  # URI that the definition gives, without credentials
    commit: str | None = None
    sha256: str | None = None
    tree_sha256: str | None = None

    def as_parameters(self) -> dict[str, str]:
        """Returns the known values, for the model's metadata."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class SourceTree:
    """A function's code, ready to import."""

    root: Path
    provenance: Provenance
    module: str | None = None  # of a handler that is given without one
    # Source text by module name, which hides a file of the same name.
    inline: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None  # name of a single file
    file_sha256: str | None = None  # its digest, if the definition or a lock has it
    model: str = ""  # path of a model file, which has a kind and no handler
    kind: str = ""

    def check_unchanged(self) -> None:
        """Raises a `DigestError` if the files are no longer those that were verified."""
        if expected := self.provenance.tree_sha256:
            path, got = self.root, tree_sha256(self.root)
        elif expected := self.file_sha256:
            path = self.root / str(self.file)
            got = file_sha256(path)
        if expected and got != expected:
            raise DigestError(
                f'"{path}" was changed after it was verified: expected sha256 {expected}, '
                f"got {got}; restore it, or load the model again"
            )
