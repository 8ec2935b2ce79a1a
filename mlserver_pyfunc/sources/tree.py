"""What every kind of source ends as: a tree of modules and a record of its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """Where a source came from.

    Attributes:
        source: As the definition gives it, without credentials.
        commit: The resolved git commit, 40 hex digits.
        sha256: Of the archive, file or inline code.
    """

    source: str
    commit: str | None = None
    sha256: str | None = None

    def as_parameters(self) -> dict[str, str]:
        """The values that are known, for the model's metadata."""
        known = {"source": self.source, "commit": self.commit, "sha256": self.sha256}
        return {key: value for key, value in known.items() if value is not None}


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
