"""The workloads, and the bytes that a load generator sends for each over each route.

| | input | output |
|---|---|---|
| W1 | FP32 [1, 4] | FP32 [1, 4] |
| W2 | FP32 [1, 150528] | FP32 [1, 1000] |
| W3 | FP32 [8, 131072] | FP32 [8, 131072] |
| W4 | BYTES [1] | BYTES [1], in upper case |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from tritonclient.grpc import service_pb2 as pb

ROUTES = ("json", "binary", "typed", "raw")
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Workload:
    """The input of a model, and the output that it must give.

    Attributes:
        name: Name of the workload and of its model.
        values: Values of the input `x`.
        expected: Values that the output `y` must have.
    """

    name: str
    values: np.ndarray[Any, Any]
    expected: np.ndarray[Any, Any]

    @property
    def datatype(self) -> str:
        return "BYTES" if self.values.dtype == object else "FP32"


@dataclass(frozen=True)
class Request:
    """One HTTP request. A gRPC call is a request over HTTP/2 whose body is a framed message."""

    path: str
    headers: dict[str, str]
    body: bytes
    is_grpc: bool


def workloads() -> dict[str, Workload]:
    random = np.random.default_rng(0)
    w1 = random.random((1, 4), dtype=np.float32)
    w2 = random.random((1, 150528), dtype=np.float32)
    w3 = random.random((8, 131072), dtype=np.float32)
    text, upper = np.array([b"open inference"], object), np.array([b"OPEN INFERENCE"], object)
    made = [
        Workload("w1", w1, w1 * 2),
        Workload("w2", w2, w2[:, :1000] * 2),
        Workload("w3", w3, w3 * 2),
        Workload("w4", text, upper),
    ]
    return {workload.name: workload for workload in made}


def request(workload: Workload, route: str) -> Request:
    """Makes the request that a client sends for a workload over a route."""
    return {"json": _json, "binary": _binary, "typed": _typed, "raw": _raw}[route](workload)


def check(workload: Workload, route: str, headers: dict[str, str], body: bytes) -> None:
    """Raises AssertionError if a response does not have the expected tensor."""
    values = _decode_grpc(body) if route in ("typed", "raw") else _decode_rest(headers, body)
    if workload.datatype == "BYTES":
        assert values == list(workload.expected), (workload.name, route, values)
        return
    got = np.asarray(values, dtype=np.float32).reshape(workload.expected.shape)
    np.testing.assert_array_equal(got, workload.expected)


def _tensor(workload: Workload) -> dict[str, Any]:
    shape = list(workload.values.shape)
    return {"name": "x", "shape": shape, "datatype": workload.datatype}


def _json(workload: Workload) -> Request:
    flat = workload.values.ravel()
    data = [v.decode() for v in flat] if workload.datatype == "BYTES" else flat
    body = orjson.dumps(
        {"inputs": [{**_tensor(workload), "data": data}]}, option=orjson.OPT_SERIALIZE_NUMPY
    )
    headers = {"content-type": "application/json"}
    return Request(f"/v2/models/{workload.name}/infer", headers, body, is_grpc=False)


def _binary(workload: Workload) -> Request:
    raw = _raw_bytes(workload)
    head = orjson.dumps(
        {
            "inputs": [{**_tensor(workload), "parameters": {"binary_data_size": len(raw)}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    )
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    return Request(f"/v2/models/{workload.name}/infer", headers, head + raw, is_grpc=False)


def _typed(workload: Workload) -> Request:
    message = pb.ModelInferRequest(model_name=workload.name)
    tensor = message.inputs.add(**_tensor(workload))
    field = "bytes_contents" if workload.datatype == "BYTES" else "fp32_contents"
    getattr(tensor.contents, field).extend(workload.values.ravel().tolist())
    return _framed(message)


def _raw(workload: Workload) -> Request:
    message = pb.ModelInferRequest(model_name=workload.name)
    message.inputs.add(**_tensor(workload))
    message.raw_input_contents.append(_raw_bytes(workload))
    return _framed(message)


def _framed(message: pb.ModelInferRequest) -> Request:
    wire = message.SerializeToString()
    headers = {"content-type": "application/grpc", "te": "trailers"}
    return Request(GRPC_PATH, headers, struct.pack(">BI", 0, len(wire)) + wire, is_grpc=True)


def _raw_bytes(workload: Workload) -> bytes:
    if workload.datatype != "BYTES":
        return workload.values.tobytes()
    return b"".join(struct.pack("<I", len(v)) + v for v in workload.values)


def _decode_rest(headers: dict[str, str], body: bytes) -> Any:
    length = int(headers.get("inference-header-content-length", len(body)))
    output = orjson.loads(body[:length])["outputs"][0]
    if "data" not in output:
        return _unpacked(output["datatype"], body[length:])
    data = output["data"]
    return [v.encode() for v in data] if output["datatype"] == "BYTES" else data


def _decode_grpc(message: bytes) -> Any:
    response = pb.ModelInferResponse.FromString(message)
    output = response.outputs[0]
    if response.raw_output_contents:
        return _unpacked(output.datatype, response.raw_output_contents[0])
    contents = output.contents
    return list(contents.bytes_contents if output.datatype == "BYTES" else contents.fp32_contents)


def _unpacked(datatype: str, raw: bytes) -> Any:
    if datatype == "BYTES":
        return [raw[4:]]
    return np.frombuffer(raw, np.float32)
