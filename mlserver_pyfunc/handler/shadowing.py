"""Keeps modules in model folders from shadowing this package and its dependencies.

MLServer inserts these folders at the front of `sys.path`, and reloads this package for each model.
docs/design/import-isolation.md says when, and what does not work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType

PACKAGE = __name__.partition(".")[0]
_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@contextmanager
def prefer_installed() -> Iterator[None]:
    """Moves model folders and "." to the end of `sys.path` within a `with` block."""
    before = list(sys.path)
    file = "model-settings.json"
    of_models = [e for e in before if e == "." or os.path.isfile(os.path.join(e, file))]
    sys.path[:] = [entry for entry in before if entry not in of_models] + of_models
    try:
        yield
    finally:
        sys.path[:] = before


def pin_package() -> None:
    """Makes reloads of this package find it again, whatever a model folder contains."""
    if not any(isinstance(finder, _PackageFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PackageFinder())


class _PackageFinder:
    # Not a subclass of importlib.abc.MetaPathFinder, which takes long to import: every process
    # imports this module.
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PACKAGE:
            return None
        return spec_from_file_location(
            PACKAGE, os.path.join(_FOLDER, "__init__.py"), submodule_search_locations=[_FOLDER]
        )
