"""Where a model's function definition is, and whether its settings agree with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlserver_pyfunc.errors import DefinitionError

from . import FILE_NAME, FunctionDefinition, parse, read
from .model_settings import read_settings

# Seldon Core v2 keeps version 3 of the model "iris" in iris_3/1, and names it iris_3.
_SELDON_NAME = re.compile(r"(.+)_\d+")
_SELDON_VERSION = "1"


@dataclass(frozen=True)
class Located:
    """A definition, the folder its relative paths start from, and where it was found."""

    definition: FunctionDefinition
    folder: Path
    where: str


def find_definition(settings_file: Path | None, uri: str | None, extra: Any) -> Located:
    """Finds a model's definition, in this order: `extra.function`; function.yaml beside
    model-settings.json; function.yaml under `parameters.uri`.

    Args:
        settings_file: model-settings.json; None for a model defined by environment.
        uri: `parameters.uri`.
        extra: `parameters.extra`.

    Raises:
        DefinitionError: There is none, or it is not valid.
    """
    beside = settings_file.parent if settings_file else None
    under = _uri_folder(uri, beside)
    folder = beside or under or Path.cwd()
    inline = extra.get("function") if isinstance(extra, Mapping) else None
    if inline is not None:
        return _inline(inline, folder)
    candidates = [path / FILE_NAME for path in (beside, under) if path is not None]
    for path in candidates:
        if path.is_file():
            return Located(read(path), path.parent, str(path))
    looked = ", ".join(["parameters.extra.function", *map(str, dict.fromkeys(candidates))])
    raise DefinitionError(f"no function definition found, looked for {looked}")


def disagreements(
    definition: FunctionDefinition,
    *,
    version: str | None,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
) -> list[str]:
    """Compares a definition with what model-settings.json says too; empty where they agree."""
    found = []
    if version and definition.model_version and version != definition.model_version:
        found.append(
            f'model_version is "{definition.model_version}", '
            f'but model-settings.json says "{version}"'
        )
    for kind, declared in (("inputs", inputs), ("outputs", outputs)):
        ours = [_tensor(tensor) for tensor in getattr(definition, kind)]
        theirs = [_tensor(tensor) for tensor in declared]
        if ours and theirs and ours != theirs:
            found.append(
                f"{kind} are {_listed(ours)}, but model-settings.json says {_listed(theirs)}"
            )
    return found


def explicit_name(settings_file: Path | None) -> str | None:
    """The `name` that model-settings.json itself gives, which MLServer fills in otherwise."""
    return explicit_settings(settings_file).get("name") or None


def explicit_settings(settings_file: Path | None) -> Mapping[str, Any]:
    """What model-settings.json itself says; nothing where it cannot be read."""
    if settings_file is None:
        return {}
    try:
        return read_settings(settings_file)
    except DefinitionError:
        return {}


def seldon_model(settings_file: Path | None, name: str) -> str | None:
    """The Seldon Core v2 Model that a model-settings.json was rewritten for; None for others.

    Its name and version are the platform's count, not the user's.
    """
    match = _SELDON_NAME.fullmatch(name)
    if settings_file is None or match is None:
        return None
    folder = settings_file.parent
    return match[1] if (folder.parent.name, folder.name) == (name, _SELDON_VERSION) else None


def _inline(value: Any, folder: Path) -> Located:
    where = "parameters.extra.function"
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        path = folder / value
        path = path / FILE_NAME if path.is_dir() else path
        return Located(read(path), path.parent, str(path))
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DefinitionError(f"{where}: not JSON: {error}") from None
    return Located(parse(value, where), folder, where)


def _uri_folder(uri: str | None, beside: Path | None) -> Path | None:
    if not uri:
        return None
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        return None
    path = (beside or Path.cwd()) / unquote(parts.path)
    return path if path.is_dir() else path.parent


def _tensor(tensor: Any) -> tuple[str, str, tuple[int, ...]]:
    datatype = getattr(tensor.datatype, "value", tensor.datatype)
    return tensor.name, datatype, tuple(tensor.shape)


def _listed(tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {datatype} {list(shape)}" for name, datatype, shape in tensors)
