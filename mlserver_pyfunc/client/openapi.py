"""Writes the OpenAPI 3.1 document of a model from its contract."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.protocol.samples import examples

from .openapi_schemas import Schema, schemas
from .templates import render

_READABLE = 1000
"""Most elements of an example. A longer one, such as a picture, cannot be read."""


def document(
    definition: FunctionDefinition, name: str, version: str | None = None, server: str = ""
) -> Schema:
    """Describes the endpoints of a model, with its own tensors."""
    path = f"/v2/models/{quote(name, safe='')}"
    paths = [(path, "")]
    if version:
        paths.append((f"{path}/versions/{quote(version, safe='')}", "_version"))
    sizes: dict[str, int] = {}
    required = [t for t in definition.inputs if not t.optional or t.example is not None]
    inputs, outputs = _tensors(required, sizes), _tensors(definition.outputs, sizes)
    text = render(
        "openapi.json.jinja",
        name=name,
        version=version,
        server=server,
        paths=paths,
        request_example={"inputs": inputs} if _is_readable(inputs) else None,
        response_example={"model_name": name, "outputs": outputs}
        if _is_readable(outputs)
        else None,
        schemas=schemas(definition),
    )
    described: Schema = json.loads(text)
    return described


def _is_readable(tensors: Sequence[Schema]) -> bool:
    return sum(len(tensor["data"]) for tensor in tensors) <= _READABLE


def _tensors(tensors: Sequence[TensorDefinition], sizes: dict[str, int]) -> list[Schema]:
    declared = {tensor.name: tensor.example for tensor in tensors if tensor.example is not None}
    return examples([tensor.spec for tensor in tensors], declared, sizes)
