"""The fast path: binary tensors over REST, and nothing of it for other runtimes."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from . import grpc_calls, kserve_calls
from .conftest import GrpcCall
from .models import MODELS, write_model, write_repository
from .process import ServerProcess, serving
from .wire import Request, Tensor, json_request

STOCK = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


class Numbers(MLModel):
    async def predict(self, payload):
        x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output("y", x * 2)
        return InferenceResponse(model_name=self.name, outputs=[output])


class Texts(MLModel):
    async def predict(self, payload):
        texts = StringCodec.decode_input(payload.inputs[0])
        output = StringCodec.encode_output("y", [text.upper() for text in texts])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""

STOCK_MODELS = ("numbers", "texts", "sklearn")
VOLATILE = ("date", "ce-id", "ce-requestid")


def _write_stock(folder: Path) -> None:
    import joblib
    from sklearn.linear_model import LinearRegression

    (folder / "stock_runtimes.py").write_text(STOCK)
    implementations = {
        "numbers": {"implementation": "stock_runtimes.Numbers"},
        "texts": {"implementation": "stock_runtimes.Texts"},
        "sklearn": {
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": "model.joblib"},
        },
    }
    for name, settings in implementations.items():
        (folder / name).mkdir()
        text = json.dumps({"name": name, "parallel_workers": 0, **settings})
        (folder / name / "model-settings.json").write_text(text)
    # One name, and a version of it by each runtime.
    twice = {"code": "def handler(x):\n    return x * 2\n", "handler": "handler"}
    tensors = [{"name": name, "datatype": "FP32", "shape": [-1, -1]} for name in "xy"]
    definition = {"source": twice, "inputs": tensors[:1], "outputs": tensors[1:]}
    write_model(folder / "both-2", definition, name="both", parameters={"version": "2"})
    (folder / "both-1").mkdir()
    stock = {"name": "both", "parameters": {"version": "1"}, **implementations["numbers"]}
    (folder / "both-1" / "model-settings.json").write_text(json.dumps(stock))
    model = LinearRegression().fit([[0.0, 1.0], [1.0, 0.0]], [1.0, 2.0])
    joblib.dump(model, folder / "sklearn" / "model.joblib")


@pytest.fixture(scope="module")
def mixed_servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Other runtimes beside ours, with the fast path on and off."""
    folder = tmp_path_factory.mktemp("mixed")
    write_repository(folder, {"echo": MODELS["echo"]})
    _write_stock(folder)
    models = ("echo", "both/versions/1", "both/versions/2", *STOCK_MODELS)
    off = {"MLSERVER_PYFUNC_FASTPATH": "0"}
    with (
        serving(folder, tmp_path_factory.mktemp("on"), *models) as on,
        serving(folder, tmp_path_factory.mktemp("off"), *models, env=off) as without,
    ):
        # The routes of ours are there from the first request on.
        on.client.get("/v2/health/live")
        yield on, without


FP32 = Tensor("x", "FP32", (2, 2), [1.5, -2.0, 0.25, 3.0])
INT64 = Tensor("x", "INT64", (3,), [1, -2, 2**62])
TEXT = Tensor("x", "BYTES", (2,), [b"open", b"inference"])
WRONG = Tensor("x", "FP32", (2, 2), [1.5], raw=b"1234")
MANY = Tensor("x", "FP32", (40, 50), [n / 4 for n in range(2000)])
STOCK_REQUESTS = [
    Request("numbers", [FP32], id="a"),
    Request("numbers", [INT64], id="b"),
    Request("numbers", [WRONG], id="c"),
    Request("texts", [TEXT], id="d"),
    Request("sklearn", [FP32], id="e"),
    Request("absent", [FP32], id="f"),
    Request("both", [FP32], id="g", version="1"),
    Request("both", [MANY], id="h", version="1"),
    Request("both", [FP32], id="i", version="2"),
    Request("both", [FP32], id="j"),
]


@pytest.mark.parametrize("request_", STOCK_REQUESTS, ids=lambda r: f"{r.model}-{r.id}")
def test_other_runtimes_answer_byte_for_byte_the_same_over_rest(
    request_: Request, mixed_servers: tuple[ServerProcess, ServerProcess]
) -> None:
    answers = []
    for server in mixed_servers:
        body = json.dumps(json_request(request_))
        version = f"/versions/{request_.version}" if request_.version else ""
        path = f"/v2/models/{request_.model}{version}/infer"
        # uvicorn closes the connection after an exception.
        sent = {"Content-Type": "application/json", "Connection": "close"}
        response = server.client.post(path, content=body, headers=sent)
        headers = {k: v for k, v in response.headers.items() if k not in VOLATILE}
        answers.append((response.status_code, headers, response.content))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
@pytest.mark.parametrize("request_", STOCK_REQUESTS, ids=lambda r: f"{r.model}-{r.id}")
def test_other_runtimes_answer_the_same_over_grpc(
    request_: Request,
    raw: bool,
    mixed_servers: tuple[ServerProcess, ServerProcess],
    grpc_call: GrpcCall,
) -> None:
    replies = [
        grpc_call(grpc_calls.infer, server.grpc_address, request_, raw) for server in mixed_servers
    ]
    assert replies[0] == replies[1]


def test_other_runtimes_refuse_binary_tensors_as_mlserver_does(
    mixed_servers: tuple[ServerProcess, ServerProcess],
) -> None:
    head, body = _binary_body([FP32])
    # uvicorn closes the connection after an exception.
    headers = _headers(head, Connection="close")
    answers = [
        server.client.post("/v2/models/numbers/infer", content=body, headers=headers)
        for server in mixed_servers
    ]
    assert answers[0].status_code >= 400
    assert (answers[0].status_code, answers[0].content) == (
        answers[1].status_code,
        answers[1].content,
    )


MALFORMED = {
    "not json": b"{",
    "empty": b"",
    "null": b"null",
    "a list": b"[1]",
    "no inputs": b"{}",
    "unknown datatype": b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP8","data":[1]}]}',
    "shape of text": b'{"inputs":[{"name":"x","shape":["a"],"datatype":"FP32","data":[1]}]}',
    "not utf-8": b'{"id":"\xff"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_body_is_answered_alike_without_the_fast_path(
    body: bytes, mixed_servers: tuple[ServerProcess, ServerProcess]
) -> None:
    headers = {"Content-Type": "application/json"}
    answers = [
        server.client.post("/v2/models/echo/infer", content=body, headers=headers)
        for server in mixed_servers
    ]
    assert answers[0].status_code == 400
    assert answers[0].json() == answers[1].json()


def _binary_body(
    tensors: list[Tensor], json_tensors: tuple[Tensor, ...] = (), **extra: Any
) -> tuple[int, bytes]:
    """A body of the binary extension: the length of its JSON, and all of it."""
    inputs, raw = [], b""
    for tensor in tensors:
        bits = tensor.bits if tensor.raw is None else tensor.raw
        entry = {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype}
        parameters = {"binary_data_size": len(tensor.bits), **tensor.parameters}
        inputs.append({**entry, "parameters": parameters})
        raw += bits
    inputs += json_request(Request("", list(json_tensors)))["inputs"]
    head = json.dumps({"inputs": inputs, **extra}).encode()
    return len(head), head + raw


def _headers(head: int, **more: str) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(head),
        **more,
    }


def _post(server: ServerProcess, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return server.client.post("/v2/models/echo/infer", content=body, headers=headers)


def _outputs(response: httpx.Response) -> dict[str, Any]:
    """Each output's JSON, with its binary bytes as `raw`."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get("inference-header-content-length", len(response.content)))
    start, outputs = length, {}
    for output in json.loads(response.content[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            output["raw"] = response.content[start : start + size]
            start += size
        outputs[output["name"]] = output
    assert start == len(response.content)
    return outputs


X = Tensor("fp32_any", "FP32", (3,), [1.5, -2.0, 0.25])
Y = Tensor("int16_any", "INT16", (2,), [7, -7])
Z = Tensor("bytes_any", "BYTES", (3,), [b"a", b"", b"\xff\x00"])
HALF = Tensor("fp16_any", "FP16", (2,), [1.5, -0.5])


def test_the_server_announces_the_extension(server: ServerProcess) -> None:
    assert "binary_tensor_data" in server.client.get("/v2").json()["extensions"]


def test_a_function_announces_the_extension_of_its_own(
    server: ServerProcess, plain_server: ServerProcess
) -> None:
    """Models of other runtimes in the server do not read binary tensors."""
    for process, told in ((server, True), (plain_server, None)):
        metadata = process.client.get("/v2/models/strict").json()
        assert metadata["parameters"].get("binary_tensor_data") is told


def test_binary_and_json_tensors_mix_in_a_request(server: ServerProcess) -> None:
    head, body = _binary_body([X, HALF, Z], json_tensors=(Y,))
    outputs = _outputs(_post(server, body, _headers(head)))
    assert outputs["fp32_any"]["data"] == X.values
    assert outputs["fp16_any"]["data"] == HALF.values
    assert outputs["int16_any"]["data"] == Y.values
    assert outputs["bytes_any"]["parameters"] == {"content_type": "base64"}


def test_binary_and_json_tensors_mix_in_a_response(server: ServerProcess) -> None:
    wanted = [
        {"name": "fp32_any", "parameters": {"binary_data": True}},
        {"name": "int16_any", "parameters": {"binary_data": False}},
        {"name": "bytes_any", "parameters": {"binary_data": True}},
    ]
    head, body = _binary_body([X, Y, Z], outputs=wanted)
    outputs = _outputs(_post(server, body, _headers(head)))
    assert outputs["fp32_any"]["raw"] == X.bits
    assert outputs["int16_any"]["data"] == Y.values
    assert outputs["bytes_any"]["raw"] == Z.bits
    assert "data" not in outputs["fp32_any"]


def test_binary_data_output_asks_for_all_outputs_as_binary(server: ServerProcess) -> None:
    body = {**json_request(Request("echo", [X])), "parameters": {"binary_data_output": True}}
    response = server.client.post("/v2/models/echo/infer", json=body)
    assert response.headers["content-type"] == "application/octet-stream"
    assert {name: "raw" in output for name, output in _outputs(response).items()} == {
        "fp32_any": True,
        "seen": True,
    }


def test_a_gzipped_body_is_taken(server: ServerProcess) -> None:
    head, body = _binary_body([X])
    headers = _headers(head, **{"Content-Encoding": "gzip"})
    outputs = _outputs(_post(server, gzip.compress(body), headers))
    assert outputs["fp32_any"]["data"] == X.values


@pytest.mark.parametrize("broken", [b"not gzip", gzip.compress(b"x" * 99, mtime=0)[:-12]])
def test_a_body_that_is_not_gzip_is_a_client_error(broken: bytes, server: ServerProcess) -> None:
    response = _post(server, broken, _headers(1, **{"Content-Encoding": "gzip"}))
    assert response.status_code == 400, response.text
    assert "gzip" in response.text


WHERE = 'input "fp32_any" of model "echo"'
SIZES = {
    "short body": (
        Tensor("fp32_any", "FP32", (3,), [0.0] * 3, raw=b"\0" * 8),
        f"{WHERE}: expected 12 bytes (binary_data_size), got 8 in the body",
    ),
    "long body": (
        Tensor("fp32_any", "FP32", (3,), [0.0] * 3, raw=b"\0" * 14),
        f"{WHERE}: expected the body to end with this tensor, got 2 bytes more",
    ),
    "other shape": (
        Tensor("fp32_any", "FP32", (4,), [0.0] * 3),
        f"{WHERE}: expected 16 bytes for FP32 of shape [4], got 12",
    ),
    "element runs past the end": (
        Tensor("bytes_any", "BYTES", (1,), [b"four"], raw=struct.pack("<I", 9) + b"four"),
        'input "bytes_any" of model "echo": expected 9 bytes in an element, got 4',
    ),
}


@pytest.mark.parametrize(("tensor", "error"), SIZES.values(), ids=SIZES.keys())
def test_sizes_that_do_not_add_up_name_the_tensor_and_the_bytes(
    tensor: Tensor, error: str, server: ServerProcess
) -> None:
    head, body = _binary_body([tensor])
    response = _post(server, body, _headers(head))
    assert (response.status_code, response.json()) == (400, {"error": error})


@pytest.mark.parametrize("length", ["x", "-1", "999999", ""])
def test_a_header_length_that_cannot_be_is_a_client_error(
    length: str, server: ServerProcess
) -> None:
    _, body = _binary_body([X])
    headers = {**_headers(0), "Inference-Header-Content-Length": length}
    response = _post(server, body, headers)
    assert response.status_code == 400, response.text
    assert server.is_ready("echo")


def test_a_large_json_body_is_refused_with_the_same_words_as_a_small_one(
    server: ServerProcess,
) -> None:
    for size in (3, 3000):
        values: list[Any] = [0.5] * size
        values[1] = None
        body = {"name": "fp32_any", "datatype": "FP32", "shape": [size], "data": values}
        response = server.client.post("/v2/models/echo/infer", json={"inputs": [body]})
        assert response.status_code == 400
        assert "got null at index 1" in response.json()["error"]


def test_a_large_answer_is_not_compressed_on_the_event_loop(server: ServerProcess) -> None:
    values = np.random.default_rng(0).random(50_000, dtype=np.float32).tolist()
    body = json_request(Request("echo", [Tensor("fp32_any", "FP32", (len(values),), values)]))
    response = server.client.post(
        "/v2/models/echo/infer", json=body, headers={"Accept-Encoding": "gzip"}
    )
    assert response.headers["content-encoding"] == "identity"
    assert _outputs(response)["fp32_any"]["shape"] == [50_000]


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "FP16", "BYTES", "BOOL"])
def test_the_kserve_rest_client_works_with_its_defaults(
    datatype: str, server: ServerProcess, kserve_call: GrpcCall
) -> None:
    values = {
        "FP32": [1.5, -2.0],
        "INT64": [2**62, -1],
        "FP16": [0.5, 2.0],
        "BYTES": ["a", "b\u00fc"],
        "BOOL": [True, False],
    }[datatype]
    got = kserve_call(kserve_calls.infer_by_rest, server.url, datatype, values)
    assert got == values


def test_inputs_are_read_only_where_they_view_the_request(server: ServerProcess) -> None:
    head, body = _binary_body([Tensor("x", "FP32", (2,), [1.0, 2.0])])
    response = server.client.post(
        "/v2/models/writes-to-its-input/infer", content=body, headers=_headers(head)
    )
    assert response.status_code == 500
    assert "read-only" in response.json()["error"]
