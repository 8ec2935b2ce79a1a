"""What every kind of source ends as: a tree of modules and a record of its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """Where a source came from.

    Attributes:
        source: As the definition gives it, without credentials.
        commit: The resolved git commit, 40 hex digits.
        sha256: Of the archive, file or inline code.
        tree_sha256: Of the tree, as `sources.digest.tree_sha256` defines it.
    """

    source: str
    commit: str | None = None
    sha256: str | None = None
    tree_sha256: str | None = None

    def as_parameters(self) -> dict[str, str]:
        """The values that are known, for the model's metadata."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Pin:
    """What a lock says a source must be, so that nothing newer is fetched.

    Attributes:
        commit: The git commit.
        sha256: Of the archive or file.
        tree_sha256: Of the tree.
    """

    commit: str | None = None
    sha256: str | None = None
    tree_sha256: str | None = None


@dataclass(frozen=True)
class SourceTree:
    """A function's code, ready to import.

    Attributes:
        root: Folder whose modules can be imported, and which relative files start from.
        provenance: Where it came from.
        module: The module that a handler without a module path is in; None for a folder.
        inline: Source text by module name; such a module hides a file of the same name.
    """

    root: Path
    provenance: Provenance
    module: str | None = None
    inline: Mapping[str, str] = field(default_factory=dict)
