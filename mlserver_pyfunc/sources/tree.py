"""The result of every kind of source: a tree of modules and a record of its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """Origin of a source."""

    source: str  # URI that the definition gives, without credentials
    commit: str | None = None
    sha256: str | None = None
    tree_sha256: str | None = None

    def as_parameters(self) -> dict[str, str]:
        """Returns the known values, for the model's metadata."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Pin:
    """Commit and digests that a lock requires, so that nothing newer is fetched."""

    commit: str | None = None
    sha256: str | None = None
    tree_sha256: str | None = None


@dataclass(frozen=True)
class SourceTree:
    """A function's code, ready to import."""

    root: Path
    provenance: Provenance
    module: str | None = None  # of a handler that is given without one
    # Source text by module name, which hides a file of the same name.
    inline: Mapping[str, str] = field(default_factory=dict)
