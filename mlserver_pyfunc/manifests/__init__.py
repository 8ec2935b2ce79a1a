"""Kubernetes objects that serve a function, derived from its definition.

Nothing here talks to a cluster or an image engine, and nothing imports mlserver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..definition import FunctionDefinition
from . import kserve, kubernetes, seldon_v1, seldon_v2
from .names import ManifestError
from .options import Options, parse
from .workload import Object, Workload, plan

__all__ = ["PLATFORMS", "ManifestError", "Options", "dump", "objects", "parse", "warnings"]

_PLATFORMS: dict[str, tuple[Callable[[Workload], list[Object]], tuple[str, ...]]] = {
    "kserve": (kserve.objects, kserve.SHAPES),
    "seldon-v1": (seldon_v1.objects, seldon_v1.SHAPES),
    "seldon-v2": (seldon_v2.objects, seldon_v2.SHAPES),
    "kubernetes": (kubernetes.objects, kubernetes.SHAPES),
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
    derive, shapes = _PLATFORMS[platform]
    return derive(plan(definition, folder, options, shapes))


def warnings(
    platform: str, definition: FunctionDefinition, folder: Path, options: Options
) -> list[str]:
    """What is worth knowing before the objects are applied; empty where all is well.

    Raises:
        ManifestError: As `objects`.
    """
    _, shapes = _PLATFORMS[platform]
    return list(plan(definition, folder, options, shapes).warnings)


def dump(found: Sequence[dict[str, Any]]) -> str:
    """Writes objects as YAML documents."""
    documents = [
        yaml.dump(each, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
        for each in found
    ]
    return "---\n".join(documents)


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their keys, and nothing is written as a reference."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True
