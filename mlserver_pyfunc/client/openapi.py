"""Writes the OpenAPI 3.1 document of a model from its contract."""

from __future__ import annotations

import math
from collections.abc import Sequence
from urllib.parse import quote

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.protocol.samples import example

from .openapi_schemas import Schema, ref, schemas

_READABLE = 1000
"""Most elements of an example. A longer one, such as a picture, cannot be read."""

_ERRORS = {
    "400": "The request breaks the contract. The message says what was expected and what came.",
    "422": "The body is not an inference request.",
    "500": "The handler failed, or its answer breaks the contract.",
    "503": "Too many calls are waiting, or the model accepts no calls now.",
    "504": "The call took longer than its time limit.",
}


def document(
    definition: FunctionDefinition, name: str, version: str | None = None, server: str = ""
) -> Schema:
    """Describes the endpoints of a model, with its own tensors.

    Args:
        definition: The function's definition, which declares the tensors.
        name: Name of the model, as served.
        version: Version of the model, as served; None if it has none.
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
        "components": {"schemas": schemas(definition)},
    }
    if server:
        described["servers"] = [{"url": server}]
    return described


def _infer(definition: FunctionDefinition, name: str, operation: str) -> Schema:
    answer: Schema = {"model_name": name, "outputs": _example(definition.outputs)}
    return {
        "operationId": operation,
        "summary": f"Call {name}",
        "requestBody": _request_body(definition),
        "responses": {
            "200": {
                "description": "The outputs, which keep the contract.",
                "content": {
                    "application/json": {
                        "schema": ref("InferenceResponse"),
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
                "schema": ref("InferenceRequest"),
                "examples": _examples({"inputs": _example(required)}, required),
            }
        },
    }


def _examples(body: Schema, tensors: Sequence[TensorDefinition]) -> Schema:
    """Returns the body as an example, if it is short enough to be read."""
    sizes = [math.prod(1 if size == -1 else size for size in t.shape) for t in tensors]
    return {"contract": {"value": body}} if sum(sizes) <= _READABLE else {}


def _stream(name: str, operation: str) -> Schema:
    return {
        "operationId": operation,
        "summary": f"Call {name} and receive its answers as server-sent events",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ref("InferenceRequest")}},
        },
        "responses": {
            "200": {
                "description": "The data of each event is an inference response or an error.",
                "content": {"text/event-stream": {"schema": ref("Event")}},
            },
            "422": _error("422"),
        },
    }


def _metadata(name: str, operation: str) -> Schema:
    return {
        "operationId": operation,
        "summary": f"Get the contract of {name} and where its code came from",
        "responses": {
            "200": {
                "description": "The model's metadata.",
                "content": {"application/json": {"schema": ref("Metadata")}},
            },
        },
    }


def _ready(name: str, operation: str) -> Schema:
    return {
        "operationId": operation,
        "summary": f"Check whether {name} accepts calls now",
        "responses": {
            "200": {"description": "It does."},
            "400": {"description": "It does not."},
        },
    }


def _error(status: str) -> Schema:
    # MLServer answers 422 in a form of its own if it cannot read the body.
    schema = "UnreadableRequest" if status == "422" else "Error"
    response: Schema = {
        "description": _ERRORS[status],
        "content": {"application/json": {"schema": ref(schema)}},
    }
    if status == "503":
        response["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait.",
                "schema": {"type": "string"},
            }
        }
    return response


def _example(tensors: Sequence[TensorDefinition]) -> list[Schema]:
    return example([tensor.spec for tensor in tensors])
