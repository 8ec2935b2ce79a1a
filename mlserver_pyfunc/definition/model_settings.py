"""MLServer's settings files: model-settings.json of a model and settings.json of a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mlserver_pyfunc.errors import DefinitionError

MODEL_SETTINGS = "model-settings.json"
SERVER_SETTINGS = "settings.json"
IMPLEMENTATION = "mlserver_pyfunc.PyFuncRuntime"
"""Of a model of ours, in its model-settings.json."""


class DeclaredTensor(BaseModel):
    """A tensor that model-settings.json declares."""

    name: str
    datatype: str
    shape: list[int]


class _Parameters(BaseModel):
    uri: str | None = None
    version: str | None = None
    extra: dict[str, Any] | None = None


class _ModelSettings(BaseModel):
    """Of what model-settings.json may say, what is read without MLServer."""

    name: str | None = None
    implementation: str | None = None
    max_batch_size: int | None = None
    inputs: list[DeclaredTensor] | None = None
    outputs: list[DeclaredTensor] | None = None
    parameters: _Parameters | None = None


def read_settings(path: Path) -> dict[str, Any]:
    """What a settings file says.

    Raises:
        DefinitionError: It cannot be read, or `parse_settings` refuses it.
    """
    try:
        return parse_settings(path.name, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DefinitionError(f"{path}: {error}") from None


def parse_settings(name: str, text: str) -> dict[str, Any]:
    """What the text of a settings file says.

    Args:
        name: The file's.
        text: Its content.

    Raises:
        ValueError: It is not a JSON mapping, or a value is of another kind than MLServer takes.
    """
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"expected a mapping, got {type(settings).__name__}")
    if name == MODEL_SETTINGS:
        try:
            _ModelSettings.model_validate(settings)
        except ValidationError as error:
            raise ValueError(worded(error)) from None
    return settings


def worded(error: ValidationError) -> str:
    """What is wrong with settings, by their keys."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        for problem in error.errors(include_url=False, include_input=False)
    )
