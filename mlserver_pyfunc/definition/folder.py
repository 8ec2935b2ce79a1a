"""A function's folder, read as MLServer reads it: for whatever works without a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlserver_pyfunc.errors import DefinitionError

from . import FILE_NAME, FunctionDefinition, read
from .locate import Located, find_definition
from .model_settings import IMPLEMENTATION, MODEL_SETTINGS, read_settings


@dataclass(frozen=True)
class FunctionFolder:
    """A definition with the name and version it is served under.

    Attributes:
        located: The definition and where it was found.
        model_name: Of model-settings.json, else the definition's, else the folder's.
        model_version: Likewise; None without one.
        settings_file: model-settings.json; None where there is none.
    """

    located: Located
    model_name: str
    model_version: str | None
    settings_file: Path | None

    @property
    def definition(self) -> FunctionDefinition:
        return self.located.definition


def open_folder(path: str | Path) -> FunctionFolder:
    """Reads a function's folder, or a definition file itself.

    Raises:
        DefinitionError: There is no definition, or it is not valid.
    """
    path = Path(path)
    if path.is_file() and path.name != MODEL_SETTINGS:
        return _named(Located(read(path), path.parent, str(path)), {}, None)
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise DefinitionError(f"{path}: no such folder, expected one that holds {FILE_NAME}")
    settings_file = folder / MODEL_SETTINGS
    if not settings_file.is_file():
        return _named(find_definition(None, str(folder.resolve()), None), {}, None)
    settings = read_settings(settings_file)
    parameters = settings.get("parameters") or {}
    located = find_definition(settings_file, parameters.get("uri"), parameters.get("extra"))
    return _named(located, settings, settings_file)


def environment_model(folder: Path) -> dict[str, str]:
    """Settings by which MLServer serves a folder that has no model-settings.json."""
    if any(folder.rglob(MODEL_SETTINGS)):
        return {}
    opened = open_folder(folder)
    return {
        "MLSERVER_MODEL_NAME": opened.model_name,
        "MLSERVER_MODEL_IMPLEMENTATION": IMPLEMENTATION,
        "MLSERVER_MODEL_URI": str(folder.resolve()),
    }


def _named(
    located: Located, settings: Mapping[str, Any], settings_file: Path | None
) -> FunctionFolder:
    definition = located.definition
    name = settings.get("name") or definition.model_name or located.folder.resolve().name
    version = (settings.get("parameters") or {}).get("version") or definition.model_version
    return FunctionFolder(located, name, version, settings_file)
