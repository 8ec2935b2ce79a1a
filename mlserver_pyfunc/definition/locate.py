"""Finds a model's definition, for the server and for all that works without one.

All of it raises DefinitionError if there is no definition, or it is not valid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlserver_pyfunc import models
from mlserver_pyfunc.errors import DefinitionError

from . import FILE_NAME, FunctionDefinition, parse, read
from .fields import parsed
from .model_settings import (
    IMPLEMENTATION,
    MODEL_SETTINGS,
    NAME_VARIABLE,
    read_settings,
    served_name,
)

_DEFINITIONS = (".yaml", ".yml", ".json", "")
_INLINE = "parameters.extra.function"
_RUN = "parameters.extra.init_parameters"


@dataclass(frozen=True)
class Place:
    """Where a definition is, before it is read: a file, or inline in model-settings.json."""

    folder: Path  # from which the definition's relative paths start
    file: Path | None = None  # which may be missing; None for an inline definition
    inline: Any = None  # value of `parameters.extra.function`: a mapping, or its JSON text
    init_parameters: Any = None  # value of `parameters.extra.init_parameters`: those of this run
    function: str = ""  # `model.py:predict`, if it is given so and has no definition

    @property
    def where(self) -> str:
        """The definition's file, the function itself, or the key of model-settings.json."""
        return str(self.file or self.function or _INLINE)

    def inline_value(self) -> Any:
        """Returns the inline definition, which is parsed if it is JSON text."""
        if not isinstance(self.inline, str):
            return self.inline
        try:
            return json.loads(self.inline, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise DefinitionError(f"{_INLINE}: not JSON: {error}") from None


@dataclass(frozen=True)
class Located:
    """A definition that was read, the folder its paths start from, and where it was."""

    definition: FunctionDefinition
    folder: Path
    where: str


@dataclass(frozen=True)
class FunctionFolder(Located):
    """A definition with the name and version it is served under."""

    model_name: str
    model_version: str | None  # that of model-settings.json, else of the definition
    settings_file: Path | None


def open_folder(path: str | Path) -> FunctionFolder:
    """Reads a function's folder, a definition file, or a function: `model.py:predict`."""
    path = Path(path)
    settings_file = settings_file_of(path)
    settings = read_settings(settings_file) if settings_file else {}
    located = read_place(place_of(path, settings_file, settings))
    folder = settings_file.parent if settings_file else located.folder
    name = served_name(settings, located.definition, folder)
    given = (settings.get("parameters") or {}).get("version")
    version = given or located.definition.model_version
    return FunctionFolder(
        **vars(located), model_name=name, model_version=version, settings_file=settings_file
    )


def find_definition(settings_file: Path | None, uri: str | None, extra: Any) -> Located:
    """Finds and reads the definition of a model by its settings."""
    return read_place(find_place(settings_file, uri, extra))


def find_place(settings_file: Path | None, uri: str | None, extra: Any) -> Place:
    """Finds where a model's definition is.

    The first of these wins: `extra.function`, which is taken even if it is wrong;
    function.yaml beside model-settings.json; function.yaml in the folder of `parameters.uri`.
    A model that environment variables define has no model-settings.json.
    """
    given = extra if isinstance(extra, Mapping) else {}
    beside = settings_file.parent if settings_file else None
    under = _uri_folder(uri, beside)
    place = _given(given.get("function"), beside or under or Path.cwd())
    candidates = [path / FILE_NAME for path in (beside, under) if path is not None]
    for path in candidates:
        if place is None and path.is_file():
            place = Place(path.parent, path)
    for path in candidates:
        place = place or _function(path.parent, is_named=False)
    if place is None:
        looked = ", ".join([_INLINE, *map(str, dict.fromkeys(candidates))])
        below = {f'"{name}"' for path in candidates for name in functions_below(path.parent)}
        needed = f'{MODEL_SETTINGS} with {{"implementation": "{IMPLEMENTATION}"}}'
        names = ", ".join(sorted(below))
        hint = f": to serve {names} together, each needs a {needed}" if below else ""
        raise DefinitionError(f"no function definition found, looked for {looked}{hint}")
    return replace(place, init_parameters=given.get("init_parameters"))


def functions_below(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder that hold a function.yaml."""
    return [path.parent.name for path in folder.glob(f"*/{FILE_NAME}")]


def settings_file_of(path: Path) -> Path | None:
    """Returns the model-settings.json of a folder, or the file itself if it is one."""
    file = path / MODEL_SETTINGS if path.is_dir() else path
    return file if file.name == MODEL_SETTINGS and file.is_file() else None


def place_of(path: Path, settings_file: Path | None, settings: Mapping[str, Any]) -> Place:
    """Finds the definition of a folder, or of a definition file itself, as the server finds it."""
    if settings_file is not None:
        parameters = settings.get("parameters") or {}
        return find_place(settings_file, parameters.get("uri"), parameters.get("extra"))
    if function := _function(path, is_named=True):
        return function
    if path.suffix == ".py":
        raise DefinitionError(f"{path}: expected a folder, or {path}:NAME for a function of it")
    if not path.exists():
        expected = f"a folder that holds {FILE_NAME}, a model file, or FILE.py:NAME"
        raise DefinitionError(f"{path}: no such file or folder, expected {expected}")
    if path.is_file():
        if path.suffix not in _DEFINITIONS:
            expected = ", ".join(dict.fromkeys([*_DEFINITIONS[:-1], *models.NAMES]))
            raise DefinitionError(f"{path}: expected a file that ends in one of {expected}")
        return Place(path.parent, path)
    return find_place(None, str(path.resolve()), None)


def read_place(place: Place) -> Located:
    """Reads the definition that is at a place."""
    definition = read(place.file) if place.file else parse(place.inline_value(), place.where)
    own = parsed(place.init_parameters)
    if own is not None:
        if not isinstance(own, Mapping):
            raise DefinitionError(f"{_RUN}: expected a mapping, got {type(own).__name__}")
        merged = {**definition.init_parameters, **own}
        definition = definition.model_copy(update={"init_parameters": merged})
    return Located(definition, place.folder, place.where)


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
        "MLSERVER_MODEL_URI": str(opened.folder.resolve()),
    }
    if split_function(folder)[1] is not None:
        variables["MLSERVER_MODEL_EXTRA"] = json.dumps({"function": str(folder.resolve())})
    return variables


def _given(function: Any, folder: Path) -> Place | None:
    """Returns the place that `extra.function` names or is; None without one."""
    if not isinstance(function, str) or function.lstrip().startswith("{"):
        return None if function is None else Place(folder, inline=function)
    path = folder / function
    if found := _function(path, is_named=False):
        return found
    return Place(path, path / FILE_NAME) if path.is_dir() else Place(path.parent, path)


def _function(path: Path, *, is_named: bool) -> Place | None:
    """Returns the place of a function without a definition: `model.py:predict`, `model.onnx`.

    Its model is named after the function, unless model-settings.json or the folder gives a name.
    """
    file, handler = split_function(path)
    if handler is None:
        return None
    source = {"source": file.name, **({"handler": handler} if handler else {})}
    definition: dict[str, Any] = {"source": source}
    if is_named and file.name != models.MLFLOW:
        name = handler.partition(".")[0] or file.stem
        definition["model_name"] = re.sub(r"[^\w.-]+", "-", name)
    return Place(file.parent, inline=json.dumps(definition), function=str(path))


def split_function(path: Path) -> tuple[Path, str | None]:
    """Splits `model.py:predict` into file and function; any other path has no function.

    The function of a model file is "". The file of a folder that MLflow has written is in it.
    """
    name, _, handler = path.name.rpartition(":")
    is_folder = path.is_dir() and not (path / FILE_NAME).exists()
    model = path / models.MLFLOW if is_folder else path
    if models.is_model(model):
        return model, ""
    return (path.with_name(name), handler) if name.endswith(".py") else (path, None)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'"{repeated}" is given twice in one mapping')
    return value


def _uri_folder(uri: str | None, beside: Path | None) -> Path | None:
    """Returns the folder that `parameters.uri` names; None if it is not on this machine."""
    if not uri:
        return None
    # Only a URL has escapes, a query and a fragment: a plain path may hold "%", "?" and "#".
    if ":" in uri.partition("/")[0]:
        parts = urlsplit(uri)
        if parts.scheme != "file":
            return None
        uri = unquote(parts.path)
    path = (beside or Path.cwd()) / uri
    return path if path.is_dir() else path.parent
