"""Each row of docs/contract.md is sent to a real server, over REST and over gRPC."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlserver.grpc import utils as grpc_utils

import mlserver_pyfunc.hosts.mlserver.runtime  # noqa: F401  its import extends the mapping
from tests.hosts.mlserver.process import ServerProcess, serving
from tests.places import ROOT

from .markdown import tables
from .session import assert_printed, run, steps, write_models

DOCUMENT = ROOT / "docs" / "contract.md"
REQUESTS = tables(DOCUMENT, "Requests")
RESPONSES = tables(DOCUMENT, "Responses")
# tritonclient and MLServer cannot live in one process.
GRPC = """
import base64, json, sys, grpc
from tritonclient.grpc import service_pb2
address, model, tensors = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
request = service_pb2.ModelInferRequest(model_name=model)
for tensor in tensors:
    part = request.inputs.add(
        name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"]
    )
    values = tensor.get("data", [])
    if "raw" in tensor:
        request.raw_input_contents.append(base64.b64decode(tensor["raw"]))
    if "size" in tensor:
        request.raw_input_contents.append(bytes(tensor["size"]))
    if tensor["datatype"] == "BYTES":
        decode = base64.b64decode if "parameters" in tensor else str.encode
        values = [decode(value) for value in values]
    getattr(part.contents, tensor["field"]).extend(values)
with grpc.insecure_channel(address) as channel:
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/" + (sys.argv[4] if len(sys.argv) > 4 else "ModelInfer"),
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    try:
        call(request)
        print(json.dumps(["OK", ""]))
    except grpc.RpcError as error:
        print(json.dumps([error.code().name, error.details()]))
"""
FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "INT32": "int_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BF16": "fp32_contents",
    "BYTES": "bytes_contents",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("repository")
    models = write_models(DOCUMENT, repository)
    with serving(repository, tmp_path_factory.mktemp("work"), *models) as running:
        yield running


@pytest.mark.server
@pytest.mark.parametrize("row", REQUESTS, ids=[row[0] for row in REQUESTS])
def test_refuses_the_request_as_documented(row: list[str], server: ServerProcess) -> None:
    tensor, error = json.loads(unquoted(row[1])), unquoted(row[2])
    assert rest(server, "contract", [tensor]) == (400, {"error": error})
    if row[3] == "same":
        assert grpc(server, "contract", [tensor]) == ["INVALID_ARGUMENT", error]


@pytest.mark.server
@pytest.mark.parametrize("row", RESPONSES, ids=[row[0] for row in RESPONSES])
def test_refuses_the_result_as_documented(row: list[str], server: ServerProcess) -> None:
    expression, error = unquoted(row[1]), unquoted(row[2])
    tensor = {"name": "expression", "datatype": "BYTES", "shape": [1], "data": [expression]}
    assert rest(server, "result", [tensor]) == (500, {"error": error})
    assert grpc(server, "result", [tensor]) == ["INTERNAL", error]


@pytest.mark.server
@pytest.mark.parametrize("step", list(steps(DOCUMENT)), ids=lambda step: step.name)
def test_prints_what_the_document_shows(step: Any, server: ServerProcess, tmp_path: Path) -> None:
    assert_printed(step.expected, run(step, server.rest_address, server.grpc_address, tmp_path))


@pytest.mark.server
def test_refuses_bytes_that_do_not_add_up_as_documented(server: ServerProcess) -> None:
    i = {"name": "i", "datatype": "INT32"}
    s = {"name": "s", "datatype": "BYTES", "shape": [1], "raw": encoded(b"\x09\0\0\0abc")}
    u = {"name": "u", "datatype": "UINT8", "shape": [0]}
    one = {**i, "shape": [1], "raw": encoded(b"1234")}
    answers = [
        grpc(server, "contract", [{**one, "shape": [2]}]),
        grpc(server, "contract", [s]),
        binary(server, {**i, "shape": [2]}, 8, b"1234"),
        binary(server, {**i, "shape": [1]}, 4, b"12345678"),
        grpc(server, "contract", [one, u]),
        grpc(server, "contract", [{**one, "data": [1]}]),
    ]
    documented = [unquoted(row[1]) for row in tables(DOCUMENT, "Binary tensors")]
    for (status, error), text in zip(answers, documented, strict=True):
        assert status in (400, "INVALID_ARGUMENT")
        assert error.endswith(text)


@pytest.mark.server
def test_answers_before_the_function_is_asked_as_the_document_lists(server: ServerProcess) -> None:
    nothing: list[dict[str, Any]] = []
    bf16 = {"name": "i", "datatype": "BF16", "shape": [1], "data": [1]}
    without = {"name": "i", "datatype": "INT32", "shape": [1]}
    large = {"name": "u", "datatype": "UINT8", "shape": [5 * 2**20], "size": 5 * 2**20}
    status, answer = rest(server, "no-such", nothing)
    assert (status, answer["error"][:36]) == (404, 'model "no-such" not found, expected ')
    assert grpc(server, "no-such", nothing)[0] == "NOT_FOUND"
    assert post(server, "contract", b'{"inputs": [')[0] == 400
    for body in (b"", b"[]", b'{"x": 1}', b'{"instances": []}'):
        status, answer = post(server, "contract", body)
        assert (status, "expected {" in answer["error"]) == (400, True)
    plain = {"Content-Type": "text/plain"}
    assert post(server, "contract", b'{"inputs": []}', plain)[0] == 200
    brotli = {"Content-Encoding": "br"}
    assert post(server, "contract", b'{"inputs": []}', brotli)[0] == 400
    expected = {"error": 'input "i" of model "contract": expected datatype INT32, got BF16'}
    assert rest(server, "contract", [bf16]) == (400, expected)
    assert grpc(server, "contract", [bf16])[1].endswith("expected datatype INT32, got BF16")
    assert '"data" is missing' in rest(server, "contract", [without])[1]["error"]
    assert post(server, "contract", b"", method="no-such-method")[0] == 404
    assert post(server, "contract", b"", method="ready")[0] == 405
    assert grpc(server, "contract", [without])[1].endswith(
        "expected 1 elements for shape [1], got 0"
    )
    assert grpc(server, "contract", nothing, "NoSuchMethod")[0] == "UNIMPLEMENTED"
    assert grpc(server, "contract", [large])[0] == "RESOURCE_EXHAUSTED"


def test_maps_each_status_as_documented() -> None:
    rows = tables(DOCUMENT, "Errors")
    codes = {row[0]: row[1] for row in rows if row[0][0].isdigit()}
    documented = {int(status): code for row, code in codes.items() for status in row.split(",")}
    assert documented == {
        status: code.name for status, code in grpc_utils.STATUS_CODE_MAPPING.items()
    }


def rest(server: ServerProcess, model: str, tensors: list[dict[str, Any]]) -> tuple[int, Any]:
    return post(server, model, json.dumps({"inputs": tensors}).encode())


def post(
    server: ServerProcess,
    model: str,
    body: bytes,
    headers: dict[str, str] | None = None,
    method: str = "infer",
) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://{server.rest_address}/v2/models/{model}/{method}",
        data=body,
        headers=headers or {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def binary(
    server: ServerProcess, tensor: dict[str, Any], size: int, data: bytes
) -> tuple[int, str]:
    head = {"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}
    text = json.dumps(head).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(text)),
    }
    status, body = post(server, "contract", text + data, headers)
    return status, body["error"]


def grpc(
    server: ServerProcess, model: str, tensors: list[dict[str, Any]], *method: str
) -> list[str]:
    sent = [{"field": FIELDS[tensor["datatype"]], **tensor} for tensor in tensors]
    command = [sys.executable, "-c", GRPC, server.grpc_address, model, json.dumps(sent), *method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    answer: list[str] = json.loads(done.stdout)
    return answer


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unquoted(cell: str) -> str:
    return cell.strip("`")
