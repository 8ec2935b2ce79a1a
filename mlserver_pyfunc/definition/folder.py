"""A function's folder, read as MLServer reads it, for commands that work without a server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from . import FunctionDefinition
from .locate import Located, place_of, read_place, split_function
from .model_settings import (
    IMPLEMENTATION,
    MODEL_SETTINGS,
    NAME_VARIABLE,
    read_settings,
    served_name,
)


@dataclass(frozen=True)
class FunctionFolder:
    """A definition with the name and version it is served under.

    The version is that of model-settings.json, else of the definition.
    """

    located: Located
    model_name: str
    model_version: str | None
    settings_file: Path | None

    @property
    def definition(self) -> FunctionDefinition:
        """The definition."""
        return self.located.definition


def settings_file_of(path: Path) -> Path | None:
    """Returns the model-settings.json of a folder, or the file itself if it is one."""
    file = path / MODEL_SETTINGS if path.is_dir() else path
    return file if file.name == MODEL_SETTINGS and file.is_file() else None


def open_folder(path: str | Path) -> FunctionFolder:
    """Reads a function's folder, a definition file, or a function: `model.py:predict`.

    Raises DefinitionError if there is no definition, or it is not valid.
    """
    path = Path(path)
    settings_file = settings_file_of(path)
    settings = read_settings(settings_file) if settings_file else {}
    located = read_place(place_of(path, settings_file, settings))
    definition = located.definition
    name = served_name(
        settings, definition, settings_file.parent if settings_file else located.folder
    )
    version = (settings.get("parameters") or {}).get("version") or definition.model_version
    return FunctionFolder(located, name, version, settings_file)


def environment_model(folder: Path) -> dict[str, str]:
    """Returns the variables by which MLServer serves a folder without a model-settings.json.

    A function, `model.py:predict`, takes the place of a folder.
    """
    if any(folder.rglob(MODEL_SETTINGS)):
        return {}
    opened = open_folder(folder)
    variables = {
        NAME_VARIABLE: opened.model_name,
        "MLSERVER_MODEL_IMPLEMENTATION": IMPLEMENTATION,
        "MLSERVER_MODEL_URI": str(opened.located.folder.resolve()),
    }
    if split_function(folder)[1] is not None:
        variables["MLSERVER_MODEL_EXTRA"] = json.dumps({"function": str(folder.resolve())})
    return variables
