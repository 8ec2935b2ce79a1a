"""Requests and replies as clients write and read them, without any code of the product."""

from __future__ import annotations

import base64
import json
import math
import struct
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

DTYPES = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BYTES": "O",
}  # fmt: skip

CONTENTS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents", "INT8": "int_contents",
    "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A tensor with its elements in a flat list; BYTES elements are bytes.

    Attributes:
        raw: Sent over gRPC instead of what `values` encode to.
        contents: Field of `InferTensorContents`, sent instead of the datatype's own.
        second_contents: Another field, which gets the values too.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any]
    parameters: dict[str, Any] = field(default_factory=dict)
    raw: bytes | None = None
    contents: str | None = None
    second_contents: str | None = None

    @property
    def bits(self) -> bytes:
        """The elements bit for bit: NaN equals itself, 0.0 is not -0.0."""
        return encode_raw(self.datatype, self.values)


@dataclass(frozen=True)
class Request:
    model: str
    inputs: list[Tensor]
    outputs: list[str] = field(default_factory=list)
    id: str = ""
    version: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        status: HTTP status, or name of the gRPC code.
        error: Empty where there is none.
        headers: HTTP headers or trailing metadata.
    """

    status: int | str
    error: str = ""
    outputs: dict[str, Tensor] = field(default_factory=dict)
    id: str = ""
    version: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)

    def expect_ok(self) -> Reply:
        assert self.status in (200, "OK"), f"{self.status}: {self.error}"
        return self


def encode_raw(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    return np.array(values, dtype=DTYPES[datatype]).tobytes()


def decode_raw(datatype: str, raw: bytes) -> list[Any]:
    if datatype != "BYTES":
        return np.frombuffer(raw, dtype=DTYPES[datatype]).tolist()
    values, position = [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        values.append(raw[position + 4 : position + 4 + length])
        position += 4 + length
    return values


def nest(values: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return values[0]
    size = math.prod(shape[1:])
    return [nest(values[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]


def json_request(request: Request, *, nested: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = {"inputs": [_json_tensor(each, nested) for each in request.inputs]}
    if request.outputs:
        body["outputs"] = [{"name": name} for name in request.outputs]
    if request.id:
        body["id"] = request.id
    if request.parameters:
        body["parameters"] = request.parameters
    return body


def _json_tensor(tensor: Tensor, nested: bool) -> dict[str, Any]:
    values, parameters = tensor.values, dict(tensor.parameters)
    if tensor.datatype == "BYTES" and all(isinstance(value, bytes) for value in values):
        try:
            values = [value.decode() for value in values]
        except UnicodeDecodeError:
            values = [base64.b64encode(value).decode() for value in values]
            parameters.setdefault("content_type", "base64")
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "data": nest(values, tensor.shape) if nested else values,
        **({"parameters": parameters} if parameters else {}),
    }


def rest_infer(client: httpx.Client, request: Request, *, nested: bool = False) -> Reply:
    version = f"/versions/{request.version}" if request.version else ""
    response = client.post(
        f"/v2/models/{request.model}{version}/infer",
        content=json.dumps(json_request(request, nested=nested)),
        headers={"Content-Type": "application/json", **request.headers},
    )
    return read_json(response)


def read_json(response: httpx.Response) -> Reply:
    headers = dict(response.headers)
    if response.status_code != 200:
        try:
            error = response.json()["error"]
        except (ValueError, KeyError):
            error = f"not a protocol error: {response.text}"
        return Reply(response.status_code, error, headers=headers)
    body = response.json()
    outputs = {output["name"]: _from_json(output) for output in body["outputs"]}
    return Reply(
        200,
        outputs=outputs,
        id=body.get("id", ""),
        version=body.get("model_version", ""),
        headers=headers,
        parameters=body.get("parameters", {}),
    )


def _from_json(output: dict[str, Any]) -> Tensor:
    values = output["data"]
    if output["datatype"] == "BYTES":
        is_base64 = output.get("parameters", {}).get("content_type") == "base64"
        values = [base64.b64decode(v, validate=True) if is_base64 else v.encode() for v in values]
    if output["datatype"].startswith("FP"):
        values = [math.nan if value is None else value for value in values]
    return Tensor(output["name"], output["datatype"], tuple(output["shape"]), values)
