"""Writes the OpenAPI 3.1 document of a model from its contract."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.protocol.samples import examples

from .openapi_schemas import Schema, ref, schemas

_READABLE = 1000
"""Most elements of an example. A longer one, such as a picture, cannot be read."""

_ERRORS = {
    "400": "The request cannot be read or breaks the contract: the message says where, what was "
    "expected and what was received.",
    "404": "The model is not served: the message names those that are.",
    "500": "The handler failed, or its answer breaks the contract.",
    "503": "The model is loading, too many calls wait, or no call can run now.",
    "504": "The call passed its time limit.",
}


def document(
    definition: FunctionDefinition, name: str, version: str | None = None, server: str = ""
) -> Schema:
    """Describes the endpoints of a model, with its own tensors."""
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
    sizes: dict[str, int] = {}
    required = [t for t in definition.inputs if not t.optional or t.example is not None]
    inputs = _tensors(required, sizes)
    answer: Schema = {"model_name": name, "outputs": _tensors(definition.outputs, sizes)}
    return {
        "operationId": operation,
        "summary": f"Call {name}",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": ref("InferenceRequest"),
                    "examples": _example({"inputs": inputs}, inputs),
                }
            },
        },
        "responses": {
            "200": {
                "description": "The outputs, which keep the contract.",
                "content": {
                    "application/json": {
                        "schema": ref("InferenceResponse"),
                        "examples": _example(answer, answer["outputs"]),
                    }
                },
            },
            **{status: _error(status) for status in _ERRORS},
        },
    }


def _example(body: Schema, tensors: Sequence[Schema]) -> Schema:
    """Returns the body as an example, if it is short enough to be read."""
    count = sum(len(tensor["data"]) for tensor in tensors)
    return {"contract": {"value": body}} if count <= _READABLE else {}


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
            **{status: _error(status) for status in ("400", "404", "503")},
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
            "404": _error("404"),
        },
    }


def _ready(name: str, operation: str) -> Schema:
    return {
        "operationId": operation,
        "summary": f"Check whether {name} accepts calls now",
        "responses": {
            "200": {
                "description": "It does.",
                "content": {"application/json": {"schema": ref("Ready")}},
            },
            **{status: _error(status) for status in ("404", "503")},
        },
    }


def _error(status: str) -> Schema:
    response: Schema = {
        "description": _ERRORS[status],
        "content": {"application/json": {"schema": ref("Error")}},
    }
    if status == "503":
        response["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait.",
                "schema": {"type": "string"},
            }
        }
    return response


def _tensors(tensors: Sequence[TensorDefinition], sizes: dict[str, int]) -> list[Schema]:
    declared = {tensor.name: tensor.example for tensor in tensors if tensor.example is not None}
    return examples([tensor.spec for tensor in tensors], declared, sizes)
