"""Calls whose clients leave: those that wait never run, and handlers are told."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import wait_until

from . import grpc_calls, triton_calls
from .conftest import GrpcCall
from .models import inline, tensor, write_model
from .process import ServerProcess, serving
from .wire import Request, Tensor

CODE = """
import asyncio
import pathlib
import time

FOLDER = pathlib.Path({folder!r})


def note(text):
    with (FOLDER / "log").open("a") as log:
        log.write(text + chr(10))


def is_over():
    return (FOLDER / "go").exists()


def wait(who):
    note("began " + who)
    while who == "first" and not is_over():
        time.sleep(0.01)
    return who


async def wait_async(who):
    note("began " + who)
    try:
        while who == "first" and not is_over():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        note("cancelled " + who)
        raise
    return who


async def items(who):
    yield await wait_async(who)


def ask(who, cancelled):
    first = who.item(0) if who.ndim else who.item()
    note("began " + first)
    while first == "first" and not is_over():
        if cancelled.wait(0.01):
            note("cancelled first")
            break
    return who


def ask_items(who, cancelled):
    yield ask(who, cancelled)


def stay(who):
    wait(who.item(0) if who.ndim else who.item())
    return who


def stay_items(who):
    yield stay(who)


async def ask_async(who, cancelled):
    return await asyncio.to_thread(ask, who, cancelled)
"""
TEXT = [tensor("who", "BYTES", [], content_type="str")]
ROWS = [tensor("who", "BYTES", [-1], content_type="str")]
BATCH = {"batch": {"max_size": 4, "max_delay_ms": 1}}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "sync": ("wait", {}),
    "sync-isolated": ("wait", {"isolation": "process"}),
    "async": ("wait_async", {"concurrency": 1}),
    "async-isolated": ("wait_async", {"isolation": "process"}),
    "items": ("items", {}),
    "items-isolated": ("items", {"isolation": "process"}),
    "ask": ("ask", {}),
    "ask-isolated": ("ask", {"isolation": "process"}),
    "ask-threads": ("ask", {"isolation": "process", "concurrency": 3}),
    "ask-batched": ("ask", BATCH),
    "ask-batched-isolated": ("ask", {"isolation": "process", **BATCH}),
    "ask-async": ("ask_async", {}),
    "ask-async-isolated": ("ask_async", {"isolation": "process"}),
    "items-ask": ("ask_items", {}),
    "items-ask-isolated": ("ask_items", {"isolation": "process"}),
    "items-ask-threads": ("ask_items", {"isolation": "process", "concurrency": 2}),
    "killed": ("wait", {"isolation": "process", "cancel": "kill"}),
    "items-killed": ("stay_items", {"isolation": "process", "cancel": "kill"}),
    "killed-batched": ("stay", {"isolation": "process", "cancel": "kill", **BATCH}),
}
ASKING = [model for model in MODELS if "ask" in model]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("departures")
    for name, (handler, serving_) in MODELS.items():
        (folder / name).mkdir()
        code = CODE.replace("{folder!r}", repr(str(folder / name)))
        tensors = ROWS if "batch" in serving_ else TEXT
        definition = inline(code, handler, {"inputs": tensors, "outputs": tensors}, **serving_)
        write_model(folder / name, definition)
    env = {"MLSERVER_PARALLEL_WORKERS": "0"}
    with serving(folder, folder, *MODELS, env=env) as process:
        yield process
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log
        assert "never retrieved" not in process.log


def _call(server: ServerProcess, model: str, who: str) -> socket.socket:
    """Sends a call, and does not wait for its answer."""
    body = json.dumps(_body(model, who)).encode()
    connection = socket.create_connection(
        ("127.0.0.1", int(server.rest_address.rpartition(":")[2]))
    )
    head = f"POST /v2/models/{model}/{_route(model)} HTTP/1.1\r\nHost: a\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def _shape(model: str) -> list[int]:
    return [1] if "batched" in model else []


def _request(model: str, who: str) -> Request:
    return Request(model, [Tensor("who", "BYTES", tuple(_shape(model)), [who.encode()])])


def _folder(server: ServerProcess, model: str) -> Path:
    return server._work / model


def _route(model: str) -> str:
    return "infer_stream" if model.startswith("items") else "infer"


def _body(model: str, who: str) -> dict[str, Any]:
    sent = {"name": "who", "datatype": "BYTES", "shape": _shape(model), "data": [who]}
    return {"inputs": [sent]}


def _metric(server: ServerProcess, name: str, model: str, more: str = "") -> float:
    port = server._env["MLSERVER_METRICS_PORT"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    found = re.search(rf'^{name}{{model="{model}"{more}.*}} (\S+)$', text, re.M)
    return float(found[1]) if found else 0


def _waiting(server: ServerProcess, model: str) -> float:
    return _metric(server, "pyfunc_queue_depth", model)


def _restarts(server: ServerProcess, model: str) -> float:
    return _metric(server, "pyfunc_worker_restarts_total", model, '.*reason="cancel"')


@pytest.fixture(autouse=True)
def _forget(server: ServerProcess) -> Iterator[None]:
    yield
    for model in MODELS:
        for name in ("go", "log"):
            (_folder(server, model) / name).unlink(missing_ok=True)


def _log(server: ServerProcess, model: str) -> list[str]:
    path = _folder(server, model) / "log"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("model", ["sync", "sync-isolated", "async", "async-isolated"])
def test_a_call_that_waits_never_runs_for_a_client_that_has_left(
    model: str, server: ServerProcess
) -> None:
    with _call(server, model, "first") as first:
        wait_until(lambda: "began first" in _log(server, model), "the first call has not begun")
        with _call(server, model, "second"):
            wait_until(lambda: _waiting(server, model) == 1, "the second call does not wait")
        wait_until(lambda: _waiting(server, model) == 0, "the second call still waits")
        (_folder(server, model) / "go").touch()
        assert first.recv(12) == b"HTTP/1.1 200"
    with _call(server, model, "third") as third:
        assert third.recv(12) == b"HTTP/1.1 200"
    assert _log(server, model) == ["began first", "began third"]


@pytest.mark.parametrize("model", ["async", "async-isolated", "items", "items-isolated", *ASKING])
def test_a_running_handler_that_is_async_or_asks_learns_that_its_client_has_left(
    model: str, server: ServerProcess
) -> None:
    with _call(server, model, "first"):
        wait_until(lambda: "began first" in _log(server, model), "the call has not begun")
    wait_until(lambda: "cancelled first" in _log(server, model), "the handler was not told")
    with _call(server, model, "second") as second:
        assert second.recv(12) == b"HTTP/1.1 200"
    assert _log(server, model) == ["began first", "cancelled first", "began second"]


@pytest.mark.parametrize("model", ASKING)
@pytest.mark.parametrize("seconds", [None, 0.5])
def test_a_handler_that_asks_is_told_that_a_call_over_grpc_is_cancelled(
    seconds: float | None, model: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    """By the client, or since the client's deadline has passed."""
    request, log = _request(model, "first"), str(_folder(server, model) / "log")
    how = "stream" if model.startswith("items") else "unary"
    code = grpc_call(grpc_calls.leave, server.grpc_address, request, how, log, seconds)
    assert code == ("CANCELLED" if seconds is None else "DEADLINE_EXCEEDED")
    wait_until(lambda: "cancelled first" in _log(server, model), "the handler was not told")
    answer = server.client.post(f"/v2/models/{model}/{_route(model)}", json=_body(model, "second"))
    assert answer.status_code == 200
    assert _log(server, model) == ["began first", "cancelled first", "began second"]


@pytest.mark.parametrize(
    "model", ["items", "items-isolated", "items-ask", "items-ask-isolated", "items-ask-threads"]
)
def test_a_stream_whose_requests_tritons_client_cancels_is_closed(
    model: str, server: ServerProcess, triton_call: GrpcCall
) -> None:
    request, log = _request(model, "first"), str(_folder(server, model) / "log")
    errors = triton_call(triton_calls.leave_stream, server.grpc_address, request, log)
    assert errors == ["StatusCode.CANCELLED"]
    wait_until(lambda: "cancelled first" in _log(server, model), "the handler was not told")
    answer = server.client.post(f"/v2/models/{model}/infer_stream", json=_body(model, "second"))
    assert answer.status_code == 200
    assert _log(server, model) == ["began first", "cancelled first", "began second"]


@pytest.mark.parametrize("model", ["killed", "items-killed", "killed-batched"])
def test_a_worker_whose_client_has_left_is_killed_if_the_function_says_so(
    model: str, server: ServerProcess
) -> None:
    with _call(server, model, "first"):
        wait_until(lambda: "began first" in _log(server, model), "the call has not begun")
    wait_until(lambda: _restarts(server, model) == 1, "the worker was not killed")
    with _call(server, model, "second") as second:
        assert second.recv(12) == b"HTTP/1.1 200"
