"""Keeps modules of users from standing in for this package or for what it needs.

MLServer puts the folder of each model on `sys.path`, before anything installed, when it
imports or reloads a model's implementation.

Needs only the standard library.
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
    """Has imports look into folders of models last, and into MLServer's "." too."""
    before = list(sys.path)
    of_models = [entry for entry in before if _is_of_models(entry)]
    sys.path[:] = [entry for entry in before if entry not in of_models] + of_models
    try:
        yield
    finally:
        sys.path[:] = before


def pin_package() -> None:
    """Has a reload of this package find it again, whatever lies in a model's folder. Idempotent."""
    if not any(isinstance(finder, _OwnFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OwnFinder())


def _is_of_models(entry: str) -> bool:
    return entry == "." or os.path.isfile(os.path.join(entry, "model-settings.json"))


class _OwnFinder:
    # No importlib.abc.MetaPathFinder: that imports much, and this module is always imported.
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PACKAGE:
            return None
        return spec_from_file_location(
            PACKAGE, os.path.join(_FOLDER, "__init__.py"), submodule_search_locations=[_FOLDER]
        )
