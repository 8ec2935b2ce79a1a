"""Kubernetes objects that serve a function, derived from its definition.

Nothing here calls a cluster or an image engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mlserver_pyfunc.definition import FunctionDefinition

from . import advice, kserve, kubernetes, seldon_v1, seldon_v2
from .options import ManifestError, Options, options_of, parse
from .workload import Object, plan
from .yaml_text import dump

__all__ = [
    "PLATFORMS",
    "Manifest",
    "ManifestError",
    "Options",
    "derive",
    "dump",
    "options_of",
    "parse",
]

_MODULES = {each.PLATFORM.name: each for each in (kserve, seldon_v1, seldon_v2, kubernetes)}
PLATFORMS = tuple(_MODULES)


class Manifest(NamedTuple):
    """The objects of a function, in the order to apply them, and warnings about them."""

    objects: list[Object]
    warnings: list[str]


def derive(
    platform: str,
    definition: FunctionDefinition,
    folder: Path,
    options: Options,
    settings_file: Path | None = None,
) -> Manifest:
    """Derives the objects of a function for one of `PLATFORMS`.

    `folder` holds the lock, and relative sources start there. `settings_file` is the function's
    model-settings.json, if that is not in the folder.

    Raises:
        PyFuncError: The function or the options do not fit the platform, or cannot be read.
    """
    module = _MODULES[platform]
    workload = plan(module.PLATFORM, definition, folder, options, settings_file)
    return Manifest(module.objects(workload), list(advice.warnings(platform, workload)))
