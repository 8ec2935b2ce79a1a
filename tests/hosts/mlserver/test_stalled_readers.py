"""Clients that ask for a stream and do not read it, or do not send what they announce."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .models import inline, tensor, write_repository
from .process import ServerProcess, serving
from .wire import Request, Tensor, json_request

# Each item is 400 KB, so that the buffers between server and client are soon full.
CODE = """
import numpy as np

def flood(upto):
    for n in range(upto.item()):
        yield np.full(100_000, n, dtype="f4")
"""
TENSORS = {
    "inputs": [tensor("upto", "INT64", [1])],
    "outputs": [tensor("n", "FP32", [-1])],
}
MODELS = {
    "flood": inline(CODE, "flood", TENSORS),
    "flood-isolated": inline(CODE, "flood", TENSORS, isolation="process"),
}
ENDLESS = 1_000_000


@pytest.fixture(scope="module")
def flooding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("flooding")
    write_repository(folder, MODELS)
    env = {"MLSERVER_PYFUNC_WRITE_TIMEOUT": "2"}
    with serving(folder, tmp_path_factory.mktemp("work"), *MODELS, env=env) as server:
        yield server
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log


def _request(model: str, upto: int) -> Request:
    return Request(model, [Tensor("upto", "INT64", (1,), [upto])])


def _items(server: ServerProcess, model: str, upto: int) -> int:
    """Counts the items of a stream. The answer takes up to 60 s, the limit of a call."""
    path, body = f"/v2/models/{model}/infer_stream", json_request(_request(model, upto))
    text = server.client.post(path, json=body).text
    assert "error" not in text, text[:300]
    return text.count("data: ")


@pytest.mark.parametrize("model", MODELS)
def test_a_client_of_rest_that_does_not_read_loses_its_stream(
    model: str, flooding: ServerProcess
) -> None:
    body = json.dumps(json_request(_request(model, ENDLESS))).encode()
    host, _, port = flooding.rest_address.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST /v2/models/{model}/infer_stream HTTP/1.1\r\nHost: {host}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert _items(flooding, model, 3) == 3
        with suppress(ConnectionResetError):
            while connection.recv(1 << 20):
                pass


@pytest.mark.parametrize("model", MODELS)
def test_a_client_of_grpc_that_does_not_read_loses_its_stream(
    model: str, flooding: ServerProcess, grpc_call: GrpcCall, tmp_path: Path
) -> None:
    done, address = tmp_path / "done", flooding.grpc_address
    with ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(
            grpc_call, grpc_calls.stall, address, _request(model, ENDLESS), str(done)
        )
        try:
            flooding.wait_for_log(f"[{model}] WARNING - a client of gRPC has read nothing for 2 s")
            assert _items(flooding, model, 3) == 3
        finally:
            done.touch()
        assert stalled.result() == "DEADLINE_EXCEEDED"


def test_a_client_that_reads_slowly_gets_all(flooding: ServerProcess) -> None:
    path, body = "/v2/models/flood/infer_stream", json_request(_request("flood", 12))
    count = 0
    with flooding.client.stream("POST", path, json=body) as response:
        for piece in response.iter_bytes(1 << 20):
            count += piece.count(b"data: ")
            time.sleep(0.3)
    assert count == 12


def test_slow_uploads_hold_up_nobody_and_are_answered(flooding: ServerProcess) -> None:
    body = json.dumps(json_request(_request("flood", 1))).encode()
    host, _, port = flooding.rest_address.partition(":")
    head = f"POST /v2/models/flood/infer_stream HTTP/1.1\r\nHost: {host}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with ExitStack() as opened:
        slow = []
        for _ in range(100):
            connection = socket.create_connection((host, int(port)), timeout=60)
            slow.append(opened.enter_context(connection))
            connection.sendall(head.encode() + body[:20])
        for place in range(20, len(body)):
            for connection in slow:
                connection.sendall(body[place : place + 1])
            if place % 10 == 0:
                assert _items(flooding, "flood", 1) == 1
        # More of them come at once than may wait.
        answers = [connection.recv(1000)[:12] for connection in slow]
        assert {b"HTTP/1.1 200"} <= {*answers} <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
