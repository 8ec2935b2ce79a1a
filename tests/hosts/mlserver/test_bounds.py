"""Requests that are too large, compressed to bombs, or sent by the page of another site."""

from __future__ import annotations

import gzip
import json
import socket
import tracemalloc
import zlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mlserver_pyfunc.hosts.common import json_body
from mlserver_pyfunc.hosts.mlserver import rest_bounds

from . import grpc_calls
from .conftest import GrpcCall
from .models import inline, tensor, write_model
from .process import ServerProcess, serving
from .wire import Request, Tensor

BOUND = 1 << 20
OTHER = """
from mlserver import MLModel
from mlserver.types import InferenceResponse


class Other(MLModel):
    async def predict(self, payload):
        return InferenceResponse(model_name=self.name, outputs=[])
"""
X, Y = (tensor(name, "FP32", [-1]) for name in "xy")
GOOD = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]})
JSON = {"Content-Type": "application/json"}
PATHS = [
    "/v2/models/echo/infer",
    "/v2/models/echo/infer_stream",
    "/v2/models/unknown/infer",
    "/v2/repository/index",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder, work = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("work")
    more = {"inputs": [X], "outputs": [Y]}
    write_model(folder / "echo", inline("def handler(x):\n    return x\n", "handler", more))
    other = folder / "other"
    other.mkdir()
    (other / "others.py").write_text(OTHER)
    settings = {"name": "other", "implementation": "others.Other", "parallel_workers": 0}
    (other / "model-settings.json").write_text(json.dumps(settings))
    env = {
        "MLSERVER_PYFUNC_MAX_BODY": "1 MiB",
        "MLSERVER_GRPC_MAX_MESSAGE_LENGTH": str(BOUND),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MLSERVER_CORS_SETTINGS": json.dumps({"allow_origins": ["https://allowed.example"]}),
    }
    with serving(folder, work, "echo", "other", env=env) as started:
        yield started


def padded(size: int) -> bytes:
    return GOOD.encode() + b" " * (size - len(GOOD))


def chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 50_000):
        yield body[start : start + 50_000]


def expect_too_large(reply: httpx.Response) -> None:
    assert reply.status_code == 413, reply.text
    error = reply.json()["error"]
    assert f"expected up to {BOUND} bytes (MLSERVER_PYFUNC_MAX_BODY), got more" in error


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", ["length", "chunked", "gzip", "deflate", "multipart"])
def test_a_body_over_the_bound_is_refused(form: str, path: str, server: ServerProcess) -> None:
    large = padded(BOUND + 1)
    headers = dict(JSON)
    content: Any = large
    if form == "chunked":
        content = chunks(large)
    elif form == "gzip":
        content, headers["Content-Encoding"] = gzip.compress(large), "gzip"
    elif form == "deflate":
        content, headers["Content-Encoding"] = zlib.compress(large), "deflate"
    elif form == "multipart":
        content, headers["Content-Type"] = chunks(large), "multipart/form-data; boundary=x"
    reply = server.client.post(path, content=content, headers=headers)
    if "unknown" in path:  # Its body is not read.
        assert reply.status_code == 404, reply.text
        return
    expect_too_large(reply)


@pytest.mark.parametrize("form", ["length", "chunked", "gzip", "deflate", "raw deflate"])
def test_a_body_of_the_bound_is_served(form: str, server: ServerProcess) -> None:
    body = padded(BOUND)
    headers = dict(JSON)
    content: Any = body
    if form == "chunked":
        content = chunks(body)
    elif form == "gzip":
        content, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    elif form == "deflate":
        content, headers["Content-Encoding"] = zlib.compress(body), "deflate"
    elif form == "raw deflate":
        content, headers["Content-Encoding"] = zlib.compress(body)[2:-4], "deflate"
    reply = server.client.post("/v2/models/echo/infer", content=content, headers=headers)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("form", ["length", "chunked", "gzip"])
def test_another_runtime_gets_bodies_as_without_us(form: str, server: ServerProcess) -> None:
    large = padded(2 * BOUND)
    headers = dict(JSON)
    content: Any = chunks(large) if form == "chunked" else large
    if form == "gzip":
        content, headers["Content-Encoding"] = gzip.compress(large), "gzip"
    reply = server.client.post("/v2/models/other/infer", content=content, headers=headers)
    assert reply.status_code == 200, reply.text


def test_a_message_over_the_bound_is_refused(server: ServerProcess, grpc_call: GrpcCall) -> None:
    values = [0.0] * (BOUND // 4)
    request = Request("echo", [Tensor("x", "FP32", (len(values),), values)])
    reply = grpc_call(grpc_calls.infer, server.grpc_address, request, True)
    assert reply.status == "RESOURCE_EXHAUSTED"
    assert str(BOUND) in reply.error


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_inflated_up_to_the_bound_only(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    bomb = compress(bytes(200 << 20))
    monkeypatch.setattr(rest_bounds, "MAX_BODY", BOUND)
    tracemalloc.start()
    with pytest.raises(rest_bounds.BodyTooLargeError):
        rest_bounds.inflate(bomb, encoding)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * BOUND


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_001])
def test_inflates_members_and_padding_as_gzip_does(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    for compressed in (
        gzip.compress(body),
        gzip.compress(body, 0),
        gzip.compress(body) + gzip.compress(b"more"),
        gzip.compress(body) + bytes(100),
        gzip.compress(body) + bytes(100) + gzip.compress(b"more"),
        gzip.compress(body) + bytes(200_000) + gzip.compress(b"more"),
    ):
        assert rest_bounds.inflate(compressed, "gzip") == gzip.decompress(compressed)


@pytest.mark.parametrize("cut", [1, 5, 12, 30])
def test_a_body_that_is_cut_off_is_an_error(cut: int) -> None:
    with pytest.raises((EOFError, zlib.error)):
        rest_bounds.inflate(gzip.compress(b"some text that is long enough")[:-cut], "gzip")


@pytest.mark.parametrize("numbers", [True, False])
def test_json_of_too_many_lists_is_refused(numbers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "MAX_LISTS", 5000)
    monkeypatch.setattr(json_body, "MAX_VALUES", 20_000)
    data = "[" + ",".join(["[1]"] * 5000) + "]"
    body = f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1], "data": {data}}}]}}'
    with pytest.raises(json.JSONDecodeError, match="up to 5000 lists and objects"):
        json_body.parse(body.encode() if numbers else b"[" + data.encode() + b"]")


@pytest.mark.parametrize("datatype", ["FP32", "BOOL"])
def test_json_of_too_many_values_is_refused(datatype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "MAX_VALUES", 5000)
    for count in (4900, 5000):
        data = "[" + ",".join(["1"] * count) + "]"
        head = f'"name": "x", "datatype": "{datatype}", "shape": [{count}]'
        body = f'{{"inputs": [{{{head}, "data": {data}}}]}}'.encode()
        if count == 4900:
            assert json_body.parse(body)["inputs"][0]["name"] == "x"
            continue
        with pytest.raises(json.JSONDecodeError, match="up to 5000 values"):
            json_body.parse(body)


@pytest.mark.parametrize("length", ["0" * 4400 + "5", "9" * 4400, "-1", "1e3"])
def test_a_length_of_the_header_that_is_no_number_is_refused(
    length: str, server: ServerProcess
) -> None:
    headers = {**JSON, "Inference-Header-Content-Length": length}
    reply = server.client.post("/v2/models/echo/infer", content=GOOD, headers=headers)
    assert reply.status_code in (400, 422), reply.text
    assert "Traceback" not in server.log


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-site"},
]
OWN = [
    {},
    {"Origin": "http://HOST"},
    {"Origin": "http://HOST", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://outside.example", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://outside.example", "X-Forwarded-Host": "outside.example"},
    {"Origin": "https://allowed.example", "Sec-Fetch-Site": "cross-site"},
]
CALLS = [
    "/v2/models/echo/infer",
    "/v2/models/unknown/infer",
    "/v2/repository/index",
    "/v2/repository/models/echo/load",
]


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_is_refused(
    headers: dict[str, str], path: str, server: ServerProcess
) -> None:
    sent = {"Content-Type": "text/plain", **headers}
    reply = server.client.post(path, content=GOOD, headers=sent)
    assert reply.status_code == 403, reply.text
    assert "cors_settings" in reply.json()["error"]


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_own_pages_and_programs_are_served(headers: dict[str, str], server: ServerProcess) -> None:
    sent = {name: value.replace("HOST", server.rest_address) for name, value in headers.items()}
    reply = server.client.post("/v2/models/echo/infer", content=GOOD, headers={**JSON, **sent})
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_runtime_is_called_as_without_us(
    headers: dict[str, str], server: ServerProcess
) -> None:
    sent = {**JSON, **headers}
    reply = server.client.post("/v2/models/other/infer", content=GOOD, headers=sent)
    assert reply.status_code == 200, reply.text


def raw(server: ServerProcess, request: bytes, *, read: bool = True) -> bytes:
    host, _, port = server.rest_address.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        return connection.recv(65536) if read else b""


def test_a_trailer_is_no_header(server: ServerProcess) -> None:
    head = (
        "POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    body = f"{len(GOOD):x}\r\n{GOOD}\r\n0\r\nInference-Header-Content-Length: 7\r\n\r\n"
    reply = raw(server, (head + body).encode())
    assert reply.startswith(b"HTTP/1.1 200 "), reply


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_while_it_sends_leaves_no_traceback(
    path: str, server: ServerProcess
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    raw(server, f"{head}Content-Length: 1000\r\n\r\n{{".encode(), read=False)
    raw(server, f"{head}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n".encode(), read=False)
    # Answered on a later connection, when the two before have been given up.
    for _ in range(3):
        reply = server.client.post("/v2/models/echo/infer", content=GOOD, headers=JSON)
        assert reply.status_code == 200
    assert "Traceback" not in server.log
    assert "Exception in ASGI application" not in server.log


@pytest.mark.parametrize("first", ["guard", "tracing"])
async def test_an_application_is_guarded_and_traced(first: str) -> None:
    app = FastAPI()
    app.post("/x")(lambda: {"done": True})
    server = SimpleNamespace(_app=app)
    spans = InMemorySpanExporter()
    tracer = TracerProvider()
    tracer.add_span_processor(SimpleSpanProcessor(spans))
    add_custom_handlers = rest_bounds.guard_requests(AsyncMock())
    if first == "guard":
        await add_custom_handlers(server, None)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=tracer)
    if first == "tracing":
        await add_custom_handlers(server, None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        own = await client.post("/x")
        foreign = await client.post("/x", headers={"Sec-Fetch-Site": "cross-site"})
    assert (own.status_code, foreign.status_code) == (200, 403)
    assert "POST /x" in [span.name for span in spans.get_finished_spans()]
