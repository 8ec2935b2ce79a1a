"""What a server says about its models: metadata, and why a model cannot be called."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from mlserver_pyfunc.definition import TensorDefinition
from mlserver_pyfunc.protocol.limits import LIMITS
from mlserver_pyfunc.protocol.types import listed

PLATFORM = "mlserver_pyfunc"


def metadata_tensors(tensors: Sequence[TensorDefinition]) -> list[dict[str, Any]]:
    """Describes tensors, and behind them those that tell their null elements."""
    companions = [each for tensor in tensors if (each := tensor.spec.companion)]
    parameters = {"optional": True, "description": "true for null"}
    told = [
        {"name": each.name, "datatype": "BOOL", "shape": [*each.shape], "parameters": parameters}
        for each in companions
    ]
    return [*map(_metadata_tensor, tensors), *told]


def _metadata_tensor(tensor: TensorDefinition) -> dict[str, Any]:
    shown = {"content_type", "description", "nullable", "optional", *LIMITS} - {"enum"}
    parameters = tensor.model_dump(include=shown, exclude_defaults=True)
    if any(tensor.spec.axes):
        parameters["axes"] = tensor.shape_text
    # As text: gRPC has no lists there.
    for key in ("example", "labels", "default", "enum"):
        if (value := getattr(tensor, key)) is not None:
            parameters[key] = json.dumps(value, ensure_ascii=False)
    described = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.sizes}
    return {**described, "parameters": parameters} if parameters else described


def not_found(what: str, served: Iterable[str], none: str) -> str:
    """Returns the text about a model or version that is unknown, with those that are served."""
    names = [*served]
    return f"{what} not found" + (f", expected {listed(names)}" if names else f": {none}")


def not_ready(name: str, version: str | None = None) -> str:
    where = f'version "{version}" of model "{name}"' if version else f'model "{name}"'
    return f"{where} is not ready: it is loading, or no call can run now; try again"
