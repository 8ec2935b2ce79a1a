"""What MLServer answers for a model: by the protocol, whatever the route and the fast path."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import grpc_calls, kserve_calls, triton_calls
from .conftest import GrpcCall
from .models import inline, tensor, write_model
from .process import ServerProcess
from .wire import Request, Tensor, json_request

X, Y = (tensor(name, "FP32", [-1, 4]) for name in "xy")
ECHO = {"inputs": [X], "outputs": [Y]}
HANDLER = "def handler(x):\n    return x\n"
WAITS = f"""
import pathlib
import time


def init(gate):
    while not pathlib.Path(gate).exists():
        time.sleep(0.05)


{HANDLER}"""
OTHERS = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Other(MLModel):
    async def predict(self, payload):
        if payload.id == "fails":
            raise RuntimeError("out of luck")
        output = NumpyCodec.encode_output("y", NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[output])

    async def metadata(self):
        raise RuntimeError("out of words")
"""
SERVED = ('"iris"', '"loading"', '"other"')
FORM = (
    '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.5, 0.5, 0.5, 0.5]}]}'
)
JSON = {"Content-Type": "application/json"}
CALLS = ("infer", "infer_stream", "generate", "generate_stream")


def _request(model: str, version: str = "", **more: Any) -> Request:
    x = Tensor("x", "FP32", (1, 4), [1.0, 2.0, 3.0, 4.0])
    return Request(model, [x], version=version, **more)


def _write_models(folder: Path, gate: Path) -> None:
    write_model(folder / "iris", inline(HANDLER, "handler", {**ECHO, "model_version": "7"}))
    waits = inline(WAITS, "handler", ECHO)
    waits["source"]["init_function"] = "init"
    write_model(folder / "loading", {**waits, "init_parameters": {"gate": str(gate)}})
    (folder / "others.py").write_text(OTHERS)
    settings = {"name": "other", "implementation": "others.Other", "parallel_workers": 0}
    (folder / "other").mkdir()
    (folder / "other" / "model-settings.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module", params=["1", "0"], ids=["fast path", "plain path"])
def edges(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with a model that is ready, one that loads, one that failed, and another's."""
    work = tmp_path_factory.mktemp("edges")
    folder, gate = work / "models", work / "gate"
    _write_models(folder, gate)
    server = ServerProcess(folder, work, env={"MLSERVER_PYFUNC_FASTPATH": request.param})
    server.start()
    try:
        server.wait_until_ready("iris", "other")
        write_model(folder / "broken", inline("import nowhere_at_all", "handler", ECHO))
        assert server.client.post("/v2/repository/models/broken/load").status_code == 500
        yield server
        gate.touch()
        server.wait_until_ready("loading")
        assert server.client.get("/v2/health/ready").json() == {"ready": True}
        assert server.stop() == 0, server.log
    finally:
        server.close()


def _binary(request: Request) -> tuple[bytes, dict[str, str]]:
    """A body of the binary extension that is not UTF-8, so JSON parsers stumble over it."""
    body = json_request(request)
    for part in body["inputs"]:
        del part["data"]
        part["parameters"] = {"binary_data_size": 16}
    head = json.dumps(body).encode()
    return head + b"\xff\xfe\xd8\x00" * 4, {"Inference-Header-Content-Length": str(len(head))}


def _call(
    route: str, request: Request, server: ServerProcess, grpc_call: GrpcCall, call: str = "infer"
) -> tuple[Any, str, str]:
    """Returns status, error and `Retry-After`."""
    if route.startswith("grpc"):
        reply = grpc_call(grpc_calls.infer, server.grpc_address, request, route == "grpc raw")
        return reply.status, reply.error, ""
    body, headers = json.dumps(json_request(request)).encode(), JSON
    if route == "binary":
        body, headers = _binary(request)
    version = f"/versions/{request.version}" if request.version else ""
    path = f"/v2/models/{request.model}{version}/{call}"
    response = server.client.post(path, content=body, headers=headers)
    assert response.headers["content-type"] == "application/json", response.text
    assert set(response.json()) == {"error"}
    retry = response.headers.get("retry-after", "")
    return response.status_code, response.json()["error"], retry


UNSERVED = {
    "an unknown model": (_request("absent"), 404, "NOT_FOUND", 'model "absent" not found, expect'),
    "an unknown version": (
        _request("iris", version="9"),
        404,
        "NOT_FOUND",
        'version "9" of model "iris" not found, expected "7"',
    ),
    "a version of a model without": (
        _request("other", version="9"),
        404,
        "NOT_FOUND",
        'version "9" of model "other" not found: it has none',
    ),
    "a failed model": (
        _request("broken"),
        404,
        "NOT_FOUND",
        'model "broken" not found: function "broken" failed to load: import: ModuleNotFoundError',
    ),
    "a loading model": (
        _request("loading"),
        503,
        "UNAVAILABLE",
        'model "loading" is not ready: it is loading, or no call can run now; try again',
    ),
}


@pytest.mark.parametrize("route", ["json", "binary", "grpc typed", "grpc raw"])
@pytest.mark.parametrize("case", UNSERVED)
def test_a_call_to_a_model_that_cannot_take_it_says_why(
    case: str, route: str, edges: ServerProcess, grpc_call: GrpcCall
) -> None:
    request, status, code, text = UNSERVED[case]
    got, error, retry = _call(route, request, edges, grpc_call)
    assert got == (code if route.startswith("grpc") else status)
    assert error.startswith(text)
    assert retry == ("1" if got == 503 else "")
    if case == "an unknown model":
        assert [name for name in SERVED if name not in error] == []


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", UNSERVED)
def test_each_rest_call_says_so(
    case: str, call: str, edges: ServerProcess, grpc_call: GrpcCall
) -> None:
    request, status, _, text = UNSERVED[case]
    for route in ("json", "binary"):
        got, error, _ = _call(route, request, edges, grpc_call, call)
        assert (got, error[: len(text)]) == (status, text)


def test_a_stream_to_a_model_that_cannot_take_it_says_why(
    edges: ServerProcess, grpc_call: GrpcCall
) -> None:
    for request, _, code, text in UNSERVED.values():
        _, end = grpc_call(grpc_calls.stream, edges.grpc_address, [request], True)
        assert (end.status, end.error[: len(text)]) == (code, text)


def test_a_large_body_to_an_unknown_model_is_refused_and_the_connection_goes_on(
    edges: ServerProcess,
) -> None:
    body, headers = _binary(_request("absent"))
    for _ in range(2):
        response = edges.client.post(
            "/v2/models/absent/infer", content=body + bytes(8 << 20), headers=headers
        )
        assert response.status_code == 404
    assert edges.client.get("/v2/health/live").json() == {"live": True}


@pytest.mark.parametrize("size", [0, 4], ids=["short", "long"])
def test_raw_contents_of_another_size_to_an_unknown_model_are_not_found(
    size: int, edges: ServerProcess, grpc_call: GrpcCall
) -> None:
    if "fast_path is off" in edges.log:
        pytest.skip("without the fast path MLServer unpacks raw contents first")
    x = Tensor("x", "FP32", (1, 4), [], raw=bytes(size))
    reply = grpc_call(grpc_calls.infer, edges.grpc_address, Request("absent", [x]), True)
    assert reply.status == "NOT_FOUND"


STATUS = {
    "/v2/health/live": (200, {"live": True}),
    "/v2/health/ready": (503, {"ready": False, "error": 'not ready: "loading"'}),
    "/v2/models/iris/ready": (200, {"name": "iris", "ready": True}),
    "/v2/models/iris/versions/7/ready": (200, {"name": "iris", "ready": True}),
    "/v2/models/other/ready": (200, {"name": "other", "ready": True}),
    "/v2/models/loading/ready": (
        503,
        {"name": "loading", "ready": False, "error": UNSERVED["a loading model"][3]},
    ),
}


@pytest.mark.parametrize("path", STATUS)
def test_status_has_the_bodies_of_the_protocol(path: str, edges: ServerProcess) -> None:
    response = edges.client.get(path)
    assert (response.status_code, response.json()) == STATUS[path]


@pytest.mark.parametrize("model", ["absent", "broken", "loading"])
def test_a_model_that_is_not_ready_is_no_error_over_grpc(
    model: str, edges: ServerProcess, grpc_call: GrpcCall
) -> None:
    assert grpc_call(grpc_calls.is_ready, edges.grpc_address, "iris")
    assert not grpc_call(grpc_calls.is_ready, edges.grpc_address, model)


WRONG_ROUTES = {
    ("GET", "/v2/nowhere"): (404, "GET /v2/nowhere: no such path, expected one of the Open "),
    ("POST", "/v2/models/iris/infr"): (404, "POST /v2/models/iris/infr: no such path, expected "),
    ("GET", "/v2/models/iris/infer"): (405, "GET /v2/models/iris/infer: expected POST, got GET"),
    ("GET", "/v2/models/other/infer"): (405, "GET /v2/models/other/infer: expected POST, got GET"),
    ("DELETE", "/v2/models/iris/ready"): (405, "DELETE /v2/models/iris/ready: expected "),
    ("GET", "/v2/models/absent"): (404, 'model "absent" not found, expected '),
    ("GET", "/v2/models/absent/ready"): (404, 'model "absent" not found, expected '),
    ("GET", "/v2/models/iris/versions/9/ready"): (404, 'version "9" of model "iris" not found'),
    ("GET", "/v2/models/other"): (
        500,
        "GET /v2/models/other failed: RuntimeError: out of words (the log has the traceback)",
    ),
    ("POST", "/v2/repository/models/absent/load"): (404, 'Model absent not found'),
    ("POST", "/v2/repository/models/absent/unload"): (404, 'model "absent" not found, expected '),
}  # fmt: skip


@pytest.mark.parametrize("route", WRONG_ROUTES, ids=" ".join)
def test_every_error_under_v2_has_one_form(route: tuple[str, str], edges: ServerProcess) -> None:
    response = edges.client.request(*route)
    status, text = WRONG_ROUTES[route]
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert response.json()["error"].startswith(text)
    if status == 405:
        assert response.headers["allow"] in response.json()["error"]


def test_other_paths_stay_as_mlserver_has_them(edges: ServerProcess) -> None:
    assert edges.client.get("/nowhere").json() == {"detail": "Not Found"}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": false}'])
def test_the_repository_index_needs_no_body(body: bytes, edges: ServerProcess) -> None:
    index = edges.client.post("/v2/repository/index", content=body)
    assert index.status_code == 200, index.text
    assert {each["name"]: each["state"] for each in index.json()} == {
        "iris": "READY", "other": "READY", "loading": "UNKNOWN", "broken": "UNAVAILABLE",
    }  # fmt: skip


def test_the_repository_index_refuses_another_body(edges: ServerProcess) -> None:
    ready = edges.client.post("/v2/repository/index", content=b'{"ready": true}')
    assert sorted(each["name"] for each in ready.json()) == ["iris", "other"]
    refused = edges.client.post("/v2/repository/index", content=b"[")
    assert refused.status_code == 400
    expected = 'repository index: expected no body or {"ready": true}: Invalid JSON'
    assert refused.json()["error"].startswith(expected)


def _without(key: str) -> bytes:
    body = json_request(_request("iris"))
    del body["inputs"][0][key]
    return json.dumps(body).encode()


def _with(**changes: Any) -> bytes:
    body = json_request(_request("iris"))
    body["inputs"][0].update(changes)
    return json.dumps(body).encode()


REQUEST = 'request of model "iris": expected '
INPUT = 'input "x" of model "iris": '
UNREADABLE = {
    "NaN": (
        b'{"inputs": [NaN]}',
        f"{REQUEST}JSON, got a body that cannot be read: unexpected character, expected a "
        "JSON value (JSON has no NaN: send null)",
    ),
    "malformed": (b'{"inputs": [', REQUEST + "JSON, got a body that cannot be read: "),
    "not UTF-8": (
        b'{"id": "\xff"}',
        f"{REQUEST}JSON, got a body that cannot be read: str is not valid UTF-8: surrogates not "
        "allowed (binary tensors need the header Inference-Header-Content-Length)",
    ),
    "empty": (b"", f"{REQUEST}{FORM}, got an empty body, or null"),
    "null": (b"null", f"{REQUEST}{FORM}, got an empty body, or null"),
    "a list": (b"[1]", f"{REQUEST}{FORM}, got [1]"),
    "an empty object": (b"{}", f"{REQUEST}{FORM}, got an empty object"),
    "a plain value": (b'{"x": 1}', f'{REQUEST}{FORM}, got an object with "x"'),
    "the V1 protocol": (
        b'{"instances": [[1, 2, 3, 4]]}',
        f'{REQUEST}{FORM}, got "instances", which is a request of the V1 protocol',
    ),
    "inputs that are no list": (b'{"inputs": 5}', f'{REQUEST}{FORM}, got "inputs": 5'),
    "an input that is no object": (
        b'{"inputs": [7]}',
        'inputs[0] of model "iris": expected an object with name, shape, datatype and data, got 7',
    ),
    "no name": (
        _without("name"),
        'inputs[0] of model "iris": "name" is missing, got "datatype", "shape", "data"',
    ),
    "no shape": (_without("shape"), INPUT + '"shape" is missing, got "name", "datatype", "data"'),
    "no datatype": (
        _without("datatype"),
        INPUT + '"datatype" is missing, got "name", "shape", "data"',
    ),
    "no data": (_without("data"), INPUT + '"data" is missing, got "name", "datatype", "shape"'),
    "an unknown datatype": (_with(datatype="FP8"), INPUT + "expected datatype FP32, got FP8"),
    "an unknown input's datatype": (
        _with(name="z", datatype="FP8"),
        'input "z" of model "iris": expected datatype BOOL, UINT8, ',
    ),
    "a shape of text": (_with(shape=["a"]), INPUT + "shape[0]: Input should be a valid integer"),
    "parameters that are no object": (
        json.dumps({**json_request(_request("iris")), "parameters": 5}).encode(),
        'request of model "iris": parameters: Input should be a valid dictionary',
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", UNREADABLE)
def test_a_body_that_is_no_request_is_told_what_it_should_be(
    case: str, call: str, edges: ServerProcess
) -> None:
    body, text = UNREADABLE[case]
    for path in (f"/v2/models/iris/{call}", f"/v2/models/iris/versions/7/{call}"):
        response = edges.client.post(path, content=body, headers=JSON)
        assert (response.status_code, list(response.json())) == (400, ["error"]), response.text
        assert response.json()["error"][: len(text)] == text


ENCODED = {
    "deflate": ("deflate", zlib.compress, 200),
    "deflate without zlib's header": ("deflate", lambda b: zlib.compress(b, wbits=-15), 200),
    "gzip": ("gzip", lambda b: zlib.compress(b, wbits=31), 200),
    "none": ("identity", bytes, 200),
    "twice": ("deflate, gzip", lambda b: zlib.compress(zlib.compress(b), wbits=31), 200),
    "not deflate": ("deflate", bytes, 400),
    "not gzip": ("gzip", bytes, 400),
    "an unknown encoding": ("br", bytes, 400),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", ENCODED)
def test_a_compressed_body_is_read(case: str, call: str, edges: ServerProcess) -> None:
    encoding, compress, status = ENCODED[case]
    body = compress(json.dumps(json_request(_request("iris"))).encode())
    headers = {**JSON, "Content-Encoding": encoding}
    response = edges.client.post(f"/v2/models/iris/{call}", content=body, headers=headers)
    assert response.status_code == status, response.text
    if status == 400:
        expected = "body is not " if case.startswith("not") else "Content-Encoding: expected "
        assert expected in response.json()["error"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_the_content_type_makes_no_difference(
    content_type: str, call: str, edges: ServerProcess
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    body = json.dumps(json_request(_request("iris"))).encode()
    response = edges.client.post(f"/v2/models/iris/{call}", content=body, headers=headers)
    assert response.status_code == 200, response.text


def test_binary_tensors_are_read_or_refused_in_words(edges: ServerProcess) -> None:
    body, headers = _binary(_request("iris"))
    for call in CALLS:
        response = edges.client.post(f"/v2/models/iris/{call}", content=body, headers=headers)
        if "fast_path is off" in edges.log:
            assert response.status_code == 400
            assert "expected JSON, got binary tensors" in response.json()["error"]
        else:
            assert response.status_code == 200, response.text


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("size", "shown"), [(True, "true"), ("1", "'1'")])
def test_a_size_that_is_no_number_is_refused(
    size: Any, shown: str, call: str, edges: ServerProcess
) -> None:
    body = _with(shape=[size, 4])
    response = edges.client.post(f"/v2/models/iris/{call}", content=body, headers=JSON)
    if "fast_path is off" in edges.log:
        # MLServer takes them for the number 1 before it asks the function.
        assert response.status_code == 200, response.text
    else:
        text = f"{INPUT}shape[0]: Input should be a valid integer, got {shown}"
        assert (response.status_code, response.json()) == (400, {"error": text})


def test_a_whole_float_is_a_size(edges: ServerProcess) -> None:
    body = _with(shape=[1.0, 4])
    response = edges.client.post("/v2/models/iris/infer", content=body, headers=JSON)
    assert response.status_code == 200, response.text


# As MLServer 1.7.1 answers it without this runtime.
OTHERS_ANSWERS = {
    b"{": (422, b'{"detail":[{"type":"json_invalid","loc":["body",1],"msg":"JSON decode error",'
    b'"input":{},"ctx":{"error":"unexpected end of data"}}]}'),
    b"": (422, b'{"detail":[{"type":"missing","loc":["body"],"msg":"Field required","input":null}'
    b"]}"),
    b'{"x":1}': (422, b'{"detail":[{"type":"missing","loc":["body","inputs"],"msg":"Field '
    b'required","input":{"x":1}}]}'),
}  # fmt: skip


@pytest.mark.parametrize("body", OTHERS_ANSWERS)
def test_bodies_to_a_model_of_another_runtime_are_refused_as_mlserver_does(
    body: bytes, edges: ServerProcess
) -> None:
    response = edges.client.post("/v2/models/other/infer", content=body, headers=JSON)
    assert (response.status_code, response.content) == OTHERS_ANSWERS[body]


def test_a_failure_of_another_runtime_is_answered_as_mlserver_does(edges: ServerProcess) -> None:
    body = json_request(_request("other", id="fails"))
    # uvicorn closes the connection after an exception.
    close = {"Connection": "close"}
    response = edges.client.post("/v2/models/other/infer", json=body, headers=close)
    assert (response.status_code, response.headers["content-type"]) == (
        500,
        "text/plain; charset=utf-8",
    )
    # Releases up to 1.7.2rc1 are in debug mode by default.
    assert response.text.startswith(("Traceback (most recent", "Internal Server Error"))


def test_refusals_over_grpc_log_no_traceback(edges: ServerProcess, grpc_call: GrpcCall) -> None:
    x = Tensor("x", "FP32", (1, 3), [1.0, 2.0, 3.0])
    reply = grpc_call(grpc_calls.infer, edges.grpc_address, Request("iris", [x], id="no-log"), True)
    assert reply.status == "INVALID_ARGUMENT"
    edges.wait_for_log(reply.error)
    before, after = edges.log.split(reply.error, 1)
    assert "[mlserver.grpc] INFO" in before.splitlines()[-1]
    assert not after.lstrip("\n").startswith("Traceback")


CLIENTS = ["triton http", "triton grpc", "kserve rest", "kserve grpc"]


@pytest.mark.parametrize("client", CLIENTS)
def test_public_clients_read_the_status_with_their_defaults(
    client: str, edges: ServerProcess, triton_call: GrpcCall, kserve_call: GrpcCall
) -> None:
    assert _status(client, edges, triton_call, kserve_call) == {
        "live": True,
        # It takes each status but 200 for an error.
        "ready": "HTTPStatusError" if client == "kserve rest" else False,
        "iris": True,
        "loading": False,
        "absent": False,
        "broken": False,
    }


def _status(
    client: str, server: ServerProcess, triton_call: GrpcCall, kserve_call: GrpcCall
) -> dict[str, Any]:
    call, module = (
        (triton_call, triton_calls) if "triton" in client else (kserve_call, kserve_calls)
    )
    address = server.grpc_address if client.endswith("grpc") else server.url
    answer: dict[str, Any] = call(module.status, client.split()[1], address, MODELS)
    return answer


MODELS = ["iris", "loading", "absent", "broken"]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("model", MODELS)
def test_public_clients_raise_errors_that_can_be_read(
    model: str,
    client: str,
    edges: ServerProcess,
    triton_call: GrpcCall,
    kserve_call: GrpcCall,
) -> None:
    is_triton, is_grpc = "triton" in client, client.endswith("grpc")
    call, module = (triton_call, triton_calls) if is_triton else (kserve_call, kserve_calls)
    address = edges.grpc_address if is_grpc else edges.url
    kind, message = call(module.infer_once, client.split()[1], address, model)
    if model == "iris":
        refused = not is_grpc and "fast_path is off" in edges.log
        expected = "expected JSON, got binary tensors" if refused else "[1.0, 2.0, 3.0, 4.0]"
        assert expected in message
        return
    assert kind == (
        "InferenceServerException" if is_triton else "AioRpcError" if is_grpc else "HTTPStatusError"
    )
    state = {"absent": "an unknown", "broken": "a failed", "loading": "a loading"}[model]
    _, status, code, text = UNSERVED[f"{state} model"]
    assert text in message
    assert (code if is_grpc else str(status)) in message
