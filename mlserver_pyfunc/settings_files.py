"""MLServer's settings files: model-settings.json of a model and settings.json of a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import DefinitionError

MODEL_SETTINGS = "model-settings.json"
SERVER_SETTINGS = "settings.json"
IMPLEMENTATION = "mlserver_pyfunc.PyFuncRuntime"
"""Of a model of ours, in its model-settings.json."""


def read_settings(path: Path) -> dict[str, Any]:
    """What a settings file says.

    Raises:
        DefinitionError: It cannot be read, or `parse_settings` refuses it.
    """
    try:
        return parse_settings(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DefinitionError(f"{path}: {error}") from None


def parse_settings(text: str) -> dict[str, Any]:
    """What the text of a settings file says.

    Raises:
        ValueError: It is not a JSON mapping, or its parameters are none.
    """
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"expected a mapping, got {type(settings).__name__}")
    parameters = settings.get("parameters")
    if not isinstance(parameters, dict | None):
        raise ValueError(f"parameters: expected a mapping, got {type(parameters).__name__}")
    return settings
