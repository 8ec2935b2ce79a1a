"""Writes the OpenAPI 3.1 document of a model from its contract."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import numpy as np

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition, examples_of
from mlserver_pyfunc.definition.rendering import render
from mlserver_pyfunc.protocol.datatypes import DATATYPES
from mlserver_pyfunc.protocol.limits import LIMITS
from mlserver_pyfunc.protocol.samples import examples

Schema = dict[str, Any]

_READABLE = 1000
"""Most elements of an example. A longer one, such as a picture, cannot be read."""


def document(
    definition: FunctionDefinition, name: str, version: str | None = None, server: str = ""
) -> Schema:
    """Describes the endpoints of a model, with its own tensors."""
    sizes: dict[str, int] = {}
    required = [t for t in definition.inputs if not t.optional or t.example is not None]
    inputs, outputs = examples_of(required, sizes), examples_of(definition.outputs, sizes)
    text = render(
        "client/openapi.json.jinja",
        definition=definition,
        name=name,
        version=version,
        server=server,
        request=_readable(inputs),
        response=_readable(outputs),
        datatypes=DATATYPES,
        element_of=_element,
        default_of=_default,
        product=math.prod,
        text_of=partial(json.dumps, ensure_ascii=False),
    )
    described: Schema = json.loads(text)
    return described


def _readable(tensors: list[Schema]) -> list[Schema] | None:
    return tensors if sum(len(tensor["data"]) for tensor in tensors) <= _READABLE else None


_JSON_SCHEMA = {"exclusive_minimum": "exclusiveMinimum", "exclusive_maximum": "exclusiveMaximum"}


def _default(tensor: TensorDefinition) -> Any:
    return examples([tensor.spec], {tensor.name: tensor.default})[0]["data"]


def _element(tensor: TensorDefinition, *, is_output: bool) -> Schema:
    limits = tensor.model_dump(include=set(LIMITS), exclude_none=True)
    limits = {_JSON_SCHEMA.get(key, key): value for key, value in limits.items()}
    dtype = DATATYPES[tensor.datatype].dtype
    meaning = "no value" if tensor.nullable else ""
    if dtype.kind == "O":
        element: Schema = {"type": "string", **limits}
    elif dtype.kind == "b":
        element = {"type": "boolean"}
    elif dtype.kind in "iu":
        info = np.iinfo(dtype)
        element = {"type": "integer", "minimum": int(info.min), "maximum": int(info.max), **limits}
    else:
        most = float(np.finfo(dtype).max)
        element = {"type": "number", "minimum": -most, "maximum": most, **limits}
        meaning = "NaN or infinity" if is_output else meaning and "NaN"
    null = {"type": "null", "description": meaning}
    return {"anyOf": [element, null]} if meaning else element
