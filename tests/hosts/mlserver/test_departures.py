"""Calls over REST whose clients leave: those that wait never run, and handlers are told."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .models import inline, tensor, write_model
from .process import ServerProcess, serving

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
"""
TEXT = [tensor("who", "BYTES", [], content_type="str")]
TENSORS = {"inputs": TEXT, "outputs": TEXT}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "sync": ("wait", {}),
    "sync-isolated": ("wait", {"isolation": "process"}),
    "async": ("wait_async", {"concurrency": 1}),
    "async-isolated": ("wait_async", {"isolation": "process"}),
    "items": ("items", {}),
    "items-isolated": ("items", {"isolation": "process"}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("departures")
    for name, (handler, serving_) in MODELS.items():
        (folder / name).mkdir()
        code = CODE.replace("{folder!r}", repr(str(folder / name)))
        write_model(folder / name, inline(code, handler, TENSORS, **serving_))
    env = {"MLSERVER_PARALLEL_WORKERS": "0"}
    with serving(folder, folder, *MODELS, env=env) as process:
        yield process
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log
        assert "never retrieved" not in process.log


def _call(server: ServerProcess, model: str, who: str) -> socket.socket:
    """Sends a call, and does not wait for its answer."""
    route = "infer_stream" if model.startswith("items") else "infer"
    sent = {"name": "who", "datatype": "BYTES", "shape": [], "data": [who]}
    body = json.dumps({"inputs": [sent]}).encode()
    connection = socket.create_connection(
        ("127.0.0.1", int(server.rest_address.rpartition(":")[2]))
    )
    head = f"POST /v2/models/{model}/{route} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json"
    connection.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def _folder(server: ServerProcess, model: str) -> Path:
    return server._work / model


def _waiting(server: ServerProcess, model: str) -> float:
    port = server._env["MLSERVER_METRICS_PORT"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    found = re.search(rf'^pyfunc_queue_depth{{model="{model}".*}} (\S+)$', text, re.M)
    return float(found[1]) if found else 0


def _until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


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
        _until(lambda: "began first" in _log(server, model), "the first call has not begun")
        with _call(server, model, "second"):
            _until(lambda: _waiting(server, model) == 1, "the second call does not wait")
        _until(lambda: _waiting(server, model) == 0, "the second call still waits")
        (_folder(server, model) / "go").touch()
        assert first.recv(12) == b"HTTP/1.1 200"
    with _call(server, model, "third") as third:
        assert third.recv(12) == b"HTTP/1.1 200"
    assert _log(server, model) == ["began first", "began third"]


@pytest.mark.parametrize("model", ["async", "async-isolated", "items", "items-isolated"])
def test_a_running_async_handler_is_cancelled_when_its_client_leaves(
    model: str, server: ServerProcess
) -> None:
    with _call(server, model, "first"):
        _until(lambda: "began first" in _log(server, model), "the call has not begun")
    _until(lambda: "cancelled first" in _log(server, model), "the handler was not cancelled")
    with _call(server, model, "second") as second:
        assert second.recv(12) == b"HTTP/1.1 200"
    assert _log(server, model) == ["began first", "cancelled first", "began second"]
