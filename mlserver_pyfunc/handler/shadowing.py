"""Keeps modules in model folders from shadowing this package and its dependencies.

Problem: MLServer inserts the folder of each model-settings.json at the front of `sys.path` while
it imports the model's implementation, and reloads the implementation's module each time
(`ModelSettings.implementation` in mlserver/settings.py). `mlserver start FOLDER` inserts "." and
FOLDER for good (mlserver/cli/serve.py). A file numpy.py or a folder mlserver_pyfunc beside a
model would be imported in place of the installed package, for the whole server.

Things that don't work:
- Importing all dependencies first: the reload of this package searches `sys.path` anew, and some
  dependencies import their own on first use.
- Removing the folders from `sys.path`: MLServer removes its entry itself and fails if it is gone.

Solution: `prefer_installed` moves the folders of models to the end of `sys.path` while this
package imports its runtime, and `pin_package` adds a finder that finds this package where it is.
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
    """Makes reloads of this package find it again, whatever a model folder contains.

    Without it, a folder `mlserver_pyfunc` beside a model is imported in place of this package:
    MLServer puts the model's folder first on `sys.path` for the reload.

    Further calls have no effect.
    """
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
