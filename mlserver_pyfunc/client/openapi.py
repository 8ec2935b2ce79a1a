"""Writes the OpenAPI 3.1 document of a model from its contract."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

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
    path = f"/v2/models/{quote(name, safe='')}"
    paths = [(path, "")]
    if version:
        paths.append((f"{path}/versions/{quote(version, safe='')}", "_version"))
    sizes: dict[str, int] = {}
    required = [t for t in definition.inputs if not t.optional or t.example is not None]
    inputs, outputs = examples_of(required, sizes), examples_of(definition.outputs, sizes)
    text = render(
        "client/openapi.json.jinja",
        name=name,
        version=version,
        server=server,
        paths=paths,
        request_example={"inputs": inputs} if _is_readable(inputs) else None,
        response_example={"model_name": name, "outputs": outputs}
        if _is_readable(outputs)
        else None,
        schemas=_schemas(definition),
    )
    described: Schema = json.loads(text)
    return described


def _is_readable(tensors: Sequence[Schema]) -> bool:
    return sum(len(tensor["data"]) for tensor in tensors) <= _READABLE


def _schemas(definition: FunctionDefinition) -> Schema:
    outputs_warn = definition.contract.responses == "warn"
    return {
        "inputs": _tensors(definition.inputs, "Input", definition.contract.requests == "warn"),
        "requested": _requested(definition),
        "outputs": {
            "type": "array",
            "items": _items(definition.outputs, "Output", outputs_warn),
            **({} if outputs_warn else {"maxItems": len(definition.outputs)}),
        },
        "tensors": {
            **{f"Input_{i}": _tensor(t, is_output=False) for i, t in enumerate(definition.inputs)},
            **{f"Output_{i}": _tensor(t, is_output=True) for i, t in enumerate(definition.outputs)},
        },
    }


_JSON_SCHEMA = {"exclusive_minimum": "exclusiveMinimum", "exclusive_maximum": "exclusiveMaximum"}

_ANY_TENSOR: Schema = {
    "type": "object",
    "required": ["name", "datatype", "shape", "data"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"enum": list(DATATYPES)},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "data": {"type": "array"},
    },
}


def _items(tensors: Sequence[TensorDefinition], kind: str, warn: bool) -> Schema:
    """One of the declared tensors, or any tensor where the contract only warns."""
    refs: list[Schema] = [
        {"$ref": f"#/components/schemas/{kind}_{index}"} for index in range(len(tensors))
    ]
    if warn:
        return {"anyOf": [*refs, _ANY_TENSOR]}
    return {"oneOf": refs} if len(refs) > 1 else refs[0] if refs else {}


def _tensors(tensors: Sequence[TensorDefinition], kind: str, warn: bool) -> Schema:
    """Describes a list of each required tensor once, in any order, or any if the contract warns."""
    if warn:
        return {"type": "array", "items": _items(tensors, kind, warn)}
    required = [tensor for tensor in tensors if not tensor.optional]
    schema: Schema = {
        "type": "array",
        "minItems": len(required),
        "maxItems": len(tensors),
        "items": _items(tensors, kind, warn),
    }
    if len(tensors) > 1:
        named = [{"properties": {"name": {"const": tensor.name}}} for tensor in required]
        head = {"type": "object", "required": ["name"]}
        schema["allOf"] = [{"contains": {**head, **each}, "maxContains": 1} for each in named]
    return schema


def _requested(definition: FunctionDefinition) -> Schema:
    names = [tensor.name for tensor in definition.outputs]
    is_open = not names or definition.contract.requests == "warn"
    name: Schema = {"type": "string"} if is_open else {"enum": names}
    return {
        "type": "array",
        "description": "Outputs to send. All are sent if this is absent.",
        **({} if is_open else {"maxItems": len(names)}),
        "items": {"type": "object", "required": ["name"], "properties": {"name": name}},
    }


def _tensor(tensor: TensorDefinition, *, is_output: bool) -> Schema:
    sizes = [{"type": "integer", "minimum": 0} if s == -1 else {"const": s} for s in tensor.sizes]
    shape: Schema = {"type": "array", "minItems": len(sizes), "maxItems": len(sizes)}
    shape["description"] = f"{tensor.sizes}; -1 stands for any size"
    if sizes:
        shape["prefixItems"] = sizes
        # For tools that do not know prefixItems.
        shape["items"] = {"type": "integer", "minimum": 0}
    schema: Schema = {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": tensor.name},
            "datatype": {"const": tensor.datatype},
            "shape": shape,
            "data": _data(tensor, is_output=is_output),
            "parameters": _tensor_parameters(tensor),
        },
    }
    if description := _description(tensor):
        schema["description"] = description
    return schema


def _description(tensor: TensorDefinition) -> str:
    notes = [tensor.description] if tensor.description else []
    if names := list(dict.fromkeys(size for size in tensor.shape if isinstance(size, str))):
        notes.append(
            f"Shape {tensor.shape_text}: {', '.join(names)} may be of any size, "
            "the same in all tensors of a request and its answer"
        )
    if tensor.labels:
        axis = tensor.labels_axis
        notes.append(f"Axis {axis}: {', '.join(tensor.labels)}")
    if tensor.default is not None:
        notes.append(f"Default: {json.dumps(tensor.default, ensure_ascii=False)}")
    return ". ".join(notes)


def _data(tensor: TensorDefinition, *, is_output: bool) -> Schema:
    element = _element(tensor, is_output=is_output)
    flat: Schema = {"type": "array", "items": element, "description": "Row-major."}
    if tensor.default is not None:
        flat["default"] = examples([tensor.spec], {tensor.name: tensor.default})[0]["data"]
    if -1 not in tensor.sizes:
        flat["minItems"] = flat["maxItems"] = math.prod(tensor.sizes)
    if is_output or len(tensor.shape) < 2:
        return flat
    nested = element
    for size in reversed(tensor.sizes):
        nested = {"type": "array", "items": nested}
        if size != -1:
            nested["minItems"] = nested["maxItems"] = size
    return {"anyOf": [flat, nested]}


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


def _tensor_parameters(tensor: TensorDefinition) -> Schema:
    if tensor.datatype != "BYTES":
        return {"type": "object", "additionalProperties": True}
    content_type: Schema = {
        "enum": ["base64"],
        "description": "The elements are base64. Needed for bytes that are not UTF-8 text.",
    }
    return {"type": "object", "properties": {"content_type": content_type}}
