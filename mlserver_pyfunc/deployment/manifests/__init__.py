"""Kubernetes objects that serve a function, derived from its definition.

Nothing here calls a cluster or an image engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mlserver_pyfunc.definition import FunctionDefinition

from . import advice, kserve, kubernetes, seldon_v1, seldon_v2
from .options import ManifestError, Options, options_of
from .workload import Object, plan

__all__ = ["PLATFORMS", "Manifest", "ManifestError", "Options", "derive", "dump", "options_of"]

_MODULES = {each.PLATFORM.name: each for each in (kserve, seldon_v1, seldon_v2, kubernetes)}
PLATFORMS = tuple(_MODULES)

# Text that needs no quotes, because no parser takes it for a number, a date or a boolean. The
# parser of Kubernetes knows more of these than PyYAML does, such as `y` and `1e3`.
_PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[A-Za-z/].*", re.IGNORECASE)
# YAML takes these for line breaks too, and would read them back as newlines.
_OTHER_BREAKS = re.compile("[\r\x85\u2028\u2029]")


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


def dump(objects: Sequence[Mapping[str, Any]]) -> str:
    """Writes objects as YAML documents."""
    style: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 10**9}
    return str(yaml.dump_all(objects, Dumper=_Dumper, **style))


class _Dumper(yaml.SafeDumper):
    """Indents lists below their keys, and repeats equal objects instead of a reference."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Ignores `indentless`, which puts lists at the indentation of their key."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Turns off references."""
        return True


def _style(value: str) -> str | None:
    if _OTHER_BREAKS.search(value):
        return '"'
    if "\n" in value:
        return "|"
    if _PLAIN.fullmatch(value):
        return None
    return "'" if '"' in value else '"'


_Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, _style(text))
)
