"""A model's OpenAPI 3.1 document, from its contract."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from .definition import FunctionDefinition, TensorDefinition
from .tensors import DATATYPES

Schema = dict[str, Any]

_READABLE = 1000

_ERRORS = {
    "400": "The request breaks the contract: the message says where, what was expected and got.",
    "422": "The body is not an inference request.",
    "500": "The handler failed, or its answer breaks the contract.",
    "503": "Too many calls wait, or no call can run now.",
    "504": "The call passed its time limit.",
}


def document(
    definition: FunctionDefinition, name: str, version: str | None = None, server: str = ""
) -> Schema:
    """Describes a model's endpoints with its own tensors.

    Args:
        definition: Declares the tensors.
        name: As served.
        version: As served; None without one.
        server: URL of the server, or its path prefix.
    """
    base = f"/v2/models/{quote(name, safe='')}"
    bases = [base, f"{base}/versions/{quote(version, safe='')}"] if version else [base]
    paths: Schema = {}
    for index, path in enumerate(bases):
        suffix = "_version" if index else ""
        paths[f"{path}/infer"] = {"post": _infer(definition, name, f"infer{suffix}")}
        paths[f"{path}/infer_stream"] = {"post": _stream(name, f"infer_stream{suffix}")}
        paths[path] = {"get": _metadata(name, f"metadata{suffix}")}
        paths[f"{path}/ready"] = {"get": _ready(name, f"ready{suffix}")}
    described: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": version or "unversioned",
            "description": f"Open Inference Protocol v2 API of the function `{name}`.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(definition)},
    }
    if server:
        described["servers"] = [{"url": server}]
    return described


def example(tensors: Sequence[TensorDefinition], size: int = 1) -> list[Schema]:
    """Protocol tensors that keep the contract; -1 axes have `size`."""
    return [_example(tensor, size) for tensor in tensors]


def _infer(definition: FunctionDefinition, name: str, operation: str) -> Schema:
    answer: Schema = {"model_name": name, "outputs": example(definition.outputs)}
    return {
        "operationId": operation,
        "summary": f"Call {name}",
        "requestBody": _request_body(definition),
        "responses": {
            "200": {
                "description": "The outputs, checked against the contract.",
                "content": {
                    "application/json": {
                        "schema": _ref("InferenceResponse"),
                        "examples": _examples(answer, definition.outputs),
                    }
                },
            },
            **{status: _error(status) for status in _ERRORS},
        },
    }


def _request_body(definition: FunctionDefinition) -> Schema:
    required = [tensor for tensor in definition.inputs if not tensor.optional]
    return {
        "required": True,
        "content": {
            "application/json": {
                "schema": _ref("InferenceRequest"),
                "examples": _examples({"inputs": example(required)}, required),
            }
        },
    }


def _examples(body: Schema, tensors: Sequence[TensorDefinition]) -> Schema:
    """An example to be read: a picture's worth of numbers is none."""
    sizes = [math.prod(1 if size == -1 else size for size in t.shape) for t in tensors]
    return {"contract": {"value": body}} if sum(sizes) <= _READABLE else {}


def _stream(name: str, operation: str) -> Schema:
    return {
        "operationId": operation,
        "summary": f"Call {name} and get its answers as server-sent events",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("InferenceRequest")}},
        },
        "responses": {
            "200": {
                "description": "Each event's data is an inference response, or an error.",
                "content": {"text/event-stream": {"schema": _ref("Event")}},
            },
            "422": _error("422"),
        },
    }


def _metadata(name: str, operation: str) -> Schema:
    return {
        "operationId": operation,
        "summary": f"The contract of {name} and where its code came from",
        "responses": {
            "200": {
                "description": "The model's metadata.",
                "content": {"application/json": {"schema": _ref("Metadata")}},
            },
        },
    }


def _ready(name: str, operation: str) -> Schema:
    return {
        "operationId": operation,
        "summary": f"Whether a call of {name} could run now",
        "responses": {
            "200": {"description": "It could."},
            "400": {"description": "It could not."},
        },
    }


def _error(status: str) -> Schema:
    # The host answers a body that it cannot read in a form of its own.
    schema = "UnreadableRequest" if status == "422" else "Error"
    response: Schema = {
        "description": _ERRORS[status],
        "content": {"application/json": {"schema": _ref(schema)}},
    }
    if status == "503":
        response["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}
        }
    return response


def _schemas(definition: FunctionDefinition) -> Schema:
    return {
        "InferenceRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string", "description": "Comes back with the answer."},
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
            "description": "A server-sent event: `data` is a response or an error, as JSON.",
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
            "description": "`detail` of the host, or `error` of the runtime.",
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


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _one_of(tensors: Sequence[TensorDefinition], kind: str) -> Schema:
    if not tensors:
        return {}
    refs = [_ref(f"{kind}_{index}") for index in range(len(tensors))]
    return refs[0] if len(refs) == 1 else {"oneOf": refs}


def _tensors(tensors: Sequence[TensorDefinition], kind: str) -> Schema:
    """Each required tensor once, in any order."""
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
        "description": "Which outputs to send; all where this is absent.",
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
    shape["description"] = f"{list(tensor.shape)}, where -1 admits any size"
    if sizes:
        shape["prefixItems"] = sizes
        # For readers that know no prefixItems.
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
        "description": "Elements are base64, for bytes that are not UTF-8 text.",
    }
    return {"type": "object", "properties": {"content_type": content_type}}


def _example(tensor: TensorDefinition, size: int) -> Schema:
    shape = [size if axis == -1 else axis for axis in tensor.shape]
    values = {"O": "text", "b": True, "f": 0.5}
    value = values.get(DATATYPES[tensor.datatype].dtype.kind, 1)
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": shape,
        "data": [value] * math.prod(shape),
    }
