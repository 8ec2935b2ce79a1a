"""The result of every kind of source: a tree of modules and a record of its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """Origin of a source.

    Attributes:
        source: URI that the definition gives, without credentials.
        commit: Resolved git commit, 40 hex digits.
        sha256: Digest of the archive, file or inline code.
        tree_sha256: Digest of the tree, as `sources.digest.tree_sha256` defines it.
    """

    source: str
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
    """A function's code, ready to import.

    Attributes:
        root: Folder that modules are imported from and that relative paths start from.
        provenance: Origin of the source.
        module: Module of a handler that is given without one; None for a folder.
        inline: Source text by module name, which hides a file of the same name.
    """

    root: Path
    provenance: Provenance
    module: str | None = None
    inline: Mapping[str, str] = field(default_factory=dict)
