"""MLServer's settings files: a model's model-settings.json and a server's settings.json."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from mlserver_pyfunc.errors import DefinitionError

from .reading import expectation

if TYPE_CHECKING:
    from .models import FunctionDefinition

MODEL_SETTINGS = "model-settings.json"
SERVER_SETTINGS = "settings.json"
IMPLEMENTATION = "mlserver_pyfunc.PyFuncRuntime"
"""Value of `implementation` in the model-settings.json of a function."""
SETTINGS_TEXT = json.dumps({"implementation": IMPLEMENTATION}, indent=2) + "\n"
"""A model-settings.json that says no more than MLServer must know of a function."""
NAME_VARIABLE = "MLSERVER_MODEL_NAME"
"""Variable by which KServe and Seldon Core 1 name a model."""

# Seldon Core v2 writes version 3 of the model "iris" to the folder iris_3/1 and names it iris_3.
_SELDON_NAME = re.compile(r"(.+)_\d+")
_SELDON_VERSION = "1"


class _Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class _Parameters(BaseModel):
    uri: str | None = None
    version: str | None = None
    extra: dict[str, Any] | None = None


class ModelSettings(BaseModel):
    """The keys of model-settings.json that are read without MLServer."""

    name: str | None = None
    implementation: str | None = None
    max_batch_size: int | None = None
    inputs: list[_Tensor] | None = None
    outputs: list[_Tensor] | None = None
    parameters: _Parameters | None = None


def read_settings(path: Path) -> dict[str, Any]:
    """Reads a settings file. Raises DefinitionError if it cannot be read or is not valid."""
    try:
        return parse_settings(path.name, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DefinitionError(f"{path}: {error}") from None


def parse_settings(name: str, text: str) -> dict[str, Any]:
    """Parses the text of a settings file. Raises ValueError where MLServer would refuse it."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"expected a mapping, got {type(settings).__name__}")
    if name == MODEL_SETTINGS:
        try:
            ModelSettings.model_validate(settings)
        except ValidationError as error:
            raise ValueError(settings_problems(error)) from None
    return settings


def settings_problems(error: ValidationError) -> str:
    """Describes what is wrong with settings, key by key."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {expectation(problem)}"
        for problem in error.errors(include_url=False, include_input=False)
    )


def explicit_settings(settings_file: Path | None) -> Mapping[str, Any]:
    """Returns what model-settings.json itself says; empty if it cannot be read."""
    if settings_file is None:
        return {}
    try:
        return read_settings(settings_file)
    except DefinitionError:
        return {}


def given_name(settings: Mapping[str, Any]) -> str | None:
    """Returns the name that a model is given by its explicit settings or by the environment."""
    return settings.get("name") or os.environ.get(NAME_VARIABLE) or None


def served_name(settings: Mapping[str, Any], definition: FunctionDefinition, folder: Path) -> str:
    """Returns the name that a model is served under, by the server and by every command.

    The first of these wins: `name` in model-settings.json, the variable `MLSERVER_MODEL_NAME`,
    `model_name` in the definition, the folder's name.
    """
    # Not Path.resolve: MLServer does not follow links.
    folder_name = os.path.basename(os.path.abspath(folder))
    return given_name(settings) or definition.model_name or folder_name


def seldon_model(settings_file: Path | None, name: str) -> str | None:
    """Returns the Seldon Core v2 Model that a model-settings.json was rewritten for, or None."""
    match = _SELDON_NAME.fullmatch(name)
    if settings_file is None or match is None:
        return None
    folder = settings_file.parent
    return match[1] if (folder.parent.name, folder.name) == (name, _SELDON_VERSION) else None


def disagreements(definition: FunctionDefinition, settings: Any, version: str | None) -> list[str]:
    """Compares a definition with the version and the tensors that model-settings.json gives too."""
    found = []
    if version and definition.model_version and version != definition.model_version:
        found.append(
            f'model_version is "{definition.model_version}", '
            f'but model-settings.json says "{version}"'
        )
    for kind in ("inputs", "outputs"):
        ours = [(t.name, t.datatype, tuple(t.sizes)) for t in getattr(definition, kind)]
        theirs = [
            (t.name, getattr(t.datatype, "value", t.datatype), tuple(t.shape))
            for t in getattr(settings, kind) or ()
        ]
        if ours and theirs and ours != theirs:
            found.append(
                f"{kind} are {_listed(ours)}, but model-settings.json says {_listed(theirs)}"
            )
    return found


def _listed(tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {datatype} {list(shape)}" for name, datatype, shape in tensors)
