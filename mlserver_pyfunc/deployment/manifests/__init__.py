"""Kubernetes objects that serve a function, derived from its definition.

Nothing here calls a cluster or an image engine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition import kubernetes_names as names
from mlserver_pyfunc.definition.rendering import environment
from mlserver_pyfunc.deployment.server_settings import METRICS_PATH, PORTS

from . import checks, inline, pod
from .options import ManifestError, Options, options_of
from .workload import BY_NAME, plan

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["PLATFORMS", "Manifest", "ManifestError", "Options", "derive", "dump", "options_of"]

PLATFORMS = tuple(BY_NAME)

# PyYAML has it where libyaml was there: it is 30 times faster.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Text that needs no quotes, because no parser takes it for a number, a date or a boolean. The
# parser of Kubernetes knows more of these than PyYAML does, such as `y` and `1e3`.
_PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[A-Za-z/].*", re.IGNORECASE)
# YAML takes these for line breaks too, and would read them back as newlines.
_OTHER_BREAKS = re.compile("[\r\x85\u2028\u2029]")


class Manifest(NamedTuple):
    """The objects of a function, in the order to apply them, and warnings about them."""

    objects: list[dict[str, Any]]
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
    workload = plan(BY_NAME[platform], definition, folder, options, settings_file)
    warnings = list(checks.warnings(platform, workload))
    template = _templates().get_template(f"deployment/manifests/{platform}.yaml.jinja")
    text = template.render(
        workload=workload,
        options=workload.options,
        serving=workload.definition.serving,
        pod=pod,
        inline=inline,
        names=names,
        ports=PORTS,
        metrics_path=METRICS_PATH,
    )
    return Manifest([_filled(each) for each in yaml.load_all(text, _LOADER) if each], warnings)


@cache
def _templates() -> Environment:
    return environment().overlay(autoescape=True, finalize=_as_yaml)


def _as_yaml(value: Any) -> Any:
    """Writes a value of a template as YAML on one line. Markup is a part of the template itself."""
    if hasattr(value, "__html__"):
        return value
    written = yaml.safe_dump(
        value, default_style='"', default_flow_style=True, sort_keys=False, width=math.inf
    )
    from markupsafe import Markup

    return Markup(written.rstrip("\n"))


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items() if item is not None}
    return [_filled(item) for item in value] if isinstance(value, list) else value


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
