"""Kubernetes objects that serve a function, derived from its definition.

Nothing here calls a cluster or an image engine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import FunctionDefinition

from . import advice, kserve, kubernetes, seldon_v1, seldon_v2
from .names import ManifestError
from .options import Options, parse
from .workload import Object, Platform, Workload, plan
from .yaml_text import dump

__all__ = ["PLATFORMS", "ManifestError", "Options", "dump", "objects", "parse", "warnings"]

_PLATFORMS: dict[str, tuple[Platform, Callable[[Workload], list[Object]]]] = {
    module.PLATFORM.name: (module.PLATFORM, module.objects)
    for module in (kserve, seldon_v1, seldon_v2, kubernetes)
}
PLATFORMS = tuple(_PLATFORMS)


def objects(
    platform: str,
    definition: FunctionDefinition,
    folder: Path,
    options: Options,
    settings_file: Path | None = None,
) -> list[dict[str, Any]]:
    """Derives the objects of a function, in the order to apply them.

    Args:
        platform: One of `PLATFORMS`.
        definition: Definition of the function.
        folder: Folder of the function: it holds the lock, and relative sources start there.
        options: What the objects depend on besides the function.
        settings_file: Its model-settings.json, if that is not in its folder.

    Raises:
        ManifestError: The function or the options do not fit the platform.
        SourceError: The function's lock or local source cannot be read.
    """
    described, derive = _PLATFORMS[platform]
    return derive(plan(described, definition, folder, options, settings_file))


def warnings(
    platform: str,
    definition: FunctionDefinition,
    folder: Path,
    options: Options,
    settings_file: Path | None = None,
) -> list[str]:
    """Returns warnings about the objects that `objects` derives from the same arguments.

    Raises:
        ManifestError: The function or the options do not fit the platform.
    """
    described, _ = _PLATFORMS[platform]
    planned = plan(described, definition, folder, options, settings_file)
    return list(advice.warnings(platform, planned))
