"""Kubernetes objects that serve a function, derived from its definition.

Nothing here talks to a cluster or an image engine, and nothing imports mlserver.
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
    platform: str, definition: FunctionDefinition, folder: Path, options: Options
) -> list[dict[str, Any]]:
    """Derives the objects of a function, in the order to apply them.

    Args:
        platform: One of `PLATFORMS`.
        definition: The function.
        folder: Its folder, where the lock is and relative sources start.
        options: What is asked for besides.

    Raises:
        ManifestError: The function or the options do not go with the platform.
        SourceError: The function's lock or local source cannot be read.
    """
    described, derive = _PLATFORMS[platform]
    return derive(plan(described, definition, folder, options))


def warnings(
    platform: str, definition: FunctionDefinition, folder: Path, options: Options
) -> list[str]:
    """What is worth knowing before the objects are applied; empty where all is well.

    Raises:
        ManifestError: As `objects`.
    """
    described, _ = _PLATFORMS[platform]
    return list(advice.warnings(platform, plan(described, definition, folder, options)))
