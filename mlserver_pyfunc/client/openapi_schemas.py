"""Writes the JSON Schemas of a model's messages, for its OpenAPI document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.protocol.datatypes import DATATYPES

Schema = dict[str, Any]


def schemas(definition: FunctionDefinition) -> Schema:
    """Returns schemas by name: of request, response, event, metadata, errors and each tensor."""
    return {
        "InferenceRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string", "description": "Returned with the answer."},
                "parameters": _PARAMETERS,
                "inputs": _tensors(definition.inputs, "Input"),
                "outputs": _requested(definition),
            },
        },
        "InferenceResponse": {
            "type": "object",
            "required": ["model_name", "outputs"],
            "properties": {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "id": {"type": "string"},
                "parameters": _PARAMETERS,
                "outputs": {
                    "type": "array",
                    "items": _one_of(definition.outputs, "Output"),
                    "maxItems": len(definition.outputs),
                },
            },
        },
        "Event": {
            "type": "object",
            "description": "A server-sent event. `data` is a response or an error, as JSON.",
            "required": ["data"],
            "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
        },
        "Metadata": _METADATA,
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string"}},
        },
        "UnreadableRequest": {
            "type": "object",
            "description": "`detail` if MLServer refused the body, `error` if the runtime did.",
            "anyOf": [{"required": ["detail"]}, {"required": ["error"]}],
        },
        **{f"Input_{i}": _tensor(t, is_output=False) for i, t in enumerate(definition.inputs)},
        **{f"Output_{i}": _tensor(t, is_output=True) for i, t in enumerate(definition.outputs)},
    }


_PARAMETERS: Schema = {"type": "object", "additionalProperties": True}

_METADATA: Schema = {
    "type": "object",
    "required": ["name", "platform"],
    "properties": {
        "name": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": {"type": "object"}},
        "outputs": {"type": "array", "items": {"type": "object"}},
        "parameters": _PARAMETERS,
    },
}


def ref(name: str) -> Schema:
    """Returns a reference to one of `schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _one_of(tensors: Sequence[TensorDefinition], kind: str) -> Schema:
    if not tensors:
        return {}
    refs = [ref(f"{kind}_{index}") for index in range(len(tensors))]
    return refs[0] if len(refs) == 1 else {"oneOf": refs}


def _tensors(tensors: Sequence[TensorDefinition], kind: str) -> Schema:
    """Describes a list that holds each required tensor once, in any order."""
    required = [tensor for tensor in tensors if not tensor.optional]
    schema: Schema = {
        "type": "array",
        "minItems": len(required),
        "maxItems": len(tensors),
        "items": _one_of(tensors, kind),
    }
    if len(tensors) > 1:
        schema["allOf"] = [{"contains": _named(tensor), "maxContains": 1} for tensor in required]
    return schema


def _named(tensor: TensorDefinition) -> Schema:
    return {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"const": tensor.name}},
    }


def _requested(definition: FunctionDefinition) -> Schema:
    names = [tensor.name for tensor in definition.outputs]
    return {
        "type": "array",
        "description": "Outputs to send. All are sent if this is absent.",
        "maxItems": len(names),
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"enum": names}},
        },
    }


def _tensor(tensor: TensorDefinition, *, is_output: bool) -> Schema:
    sizes = [{"type": "integer", "minimum": 0} if s == -1 else {"const": s} for s in tensor.shape]
    shape: Schema = {"type": "array", "minItems": len(sizes), "maxItems": len(sizes)}
    shape["description"] = f"{list(tensor.shape)}; -1 stands for any size"
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
    if tensor.description:
        schema["description"] = tensor.description
    return schema


def _data(tensor: TensorDefinition, *, is_output: bool) -> Schema:
    element = _element(tensor, is_output=is_output)
    flat: Schema = {"type": "array", "items": element, "description": "Row-major."}
    if -1 not in tensor.shape:
        flat["minItems"] = flat["maxItems"] = math.prod(tensor.shape)
    if is_output or len(tensor.shape) < 2:
        return flat
    nested = element
    for size in reversed(tensor.shape):
        nested = {"type": "array", "items": nested}
        if size != -1:
            nested["minItems"] = nested["maxItems"] = size
    return {"anyOf": [flat, nested]}


def _element(tensor: TensorDefinition, *, is_output: bool) -> Schema:
    dtype = DATATYPES[tensor.datatype].dtype
    if dtype.kind == "O":
        return {"type": "string"}
    if dtype.kind == "b":
        return {"type": "boolean"}
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return {"type": "integer", "minimum": int(info.min), "maximum": int(info.max)}
    most = float(np.finfo(dtype).max)
    number: Schema = {"type": "number", "minimum": -most, "maximum": most}
    if not is_output:
        return number
    return {"anyOf": [number, {"type": "null", "description": "NaN or infinity"}]}


def _tensor_parameters(tensor: TensorDefinition) -> Schema:
    if tensor.datatype != "BYTES":
        return _PARAMETERS
    content_type: Schema = {
        "enum": ["base64"],
        "description": "The elements are base64. Needed for bytes that are not UTF-8 text.",
    }
    return {"type": "object", "properties": {"content_type": content_type}}
