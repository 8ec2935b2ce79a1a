"""Limits that a call has besides `serving.timeout`: its client's deadline, and a whole stream's."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .models import inline, tensor, write_model
from .process import ServerProcess, serving
from .wire import Request, Tensor, json_request

# Those that are asked to stay end only if they are told.
CODE = """
import asyncio
import itertools
import time


def sync(x, cancelled):
    if x[0] == 1:
        cancelled.wait()
    return x


async def coroutine(x):
    if x[0] == 1:
        await asyncio.Event().wait()
    return x


def items(x, cancelled):
    yield x
    if x[0] == 1:
        cancelled.wait()
        yield x


async def items_async(x):
    yield x
    if x[0] == 1:
        await asyncio.Event().wait()


def endless(x):
    while x[0] == 1:
        time.sleep(0.01)
        yield x


async def endless_async(x):
    while x[0] == 1:
        await asyncio.sleep(0.01)
        yield x


def own(x, timeout: int = 0):
    time.sleep(0.01)
    return x + timeout
"""
X = {"inputs": [tensor("x", "FP32", [-1])], "outputs": [tensor("y", "FP32", [-1])]}
APART = {"isolation": "process"}
BATCH = {"batch": {"max_size": 4, "max_delay_ms": 1}}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "sync": ("sync", {}),
    "sync-isolated": ("sync", APART),
    "sync-threads": ("sync", {**APART, "concurrency": 2}),
    "async": ("coroutine", {}),
    "async-isolated": ("coroutine", APART),
    "batched": ("sync", BATCH),
    "batched-isolated": ("sync", {**APART, **BATCH}),
    "batched-async": ("coroutine", BATCH),
}
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "items": ("items", {}),
    "items-isolated": ("items", APART),
    "items-async": ("items_async", {}),
    "items-async-isolated": ("items_async", APART),
}
WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "endless": ("endless", {"stream_timeout": 0.3}),
    "endless-isolated": ("endless", {**APART, "stream_timeout": 0.3}),
    "endless-async": ("endless_async", {"stream_timeout": 0.3}),
    "endless-async-isolated": ("endless_async", {**APART, "stream_timeout": 0.3}),
    "hanging": ("items", {"stream_timeout": 0.3}),
    "hanging-isolated": ("items", {**APART, "stream_timeout": 0.3}),
}
OWN: dict[str, tuple[str, dict[str, Any]]] = {"own": ("own", {}), "own-isolated": ("own", APART)}
MODELS = {**CALLS, **STREAMS, **WHOLE, **OWN}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("deadlines")
    for name, (handler, serving_) in MODELS.items():
        write_model(folder / name, inline(CODE, handler, X, **serving_))
    env = {"MLSERVER_PARALLEL_WORKERS": "0"}
    with serving(folder, tmp_path_factory.mktemp("work"), *MODELS, env=env) as process:
        yield process
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log
        assert "killed" not in process.log


def _request(model: str, value: float, timeout: int = 0) -> Request:
    parameters = {"timeout": timeout} if timeout else {}
    return Request(model, [Tensor("x", "FP32", (1,), [value])], parameters=parameters)


def _post(
    server: ServerProcess, model: str, value: float, timeout: int = 0, header: str = ""
) -> httpx.Response:
    route = "infer" if model in CALLS or model in OWN else "infer_stream"
    body = json_request(_request(model, value, timeout))
    headers = {"Request-Timeout": header} if header else {}
    return server.client.post(f"/v2/models/{model}/{route}", json=body, headers=headers)


def _gone(server: ServerProcess, model: str, reason: str) -> float:
    port = server._env["MLSERVER_METRICS_PORT"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    sample = rf'^pyfunc_cancelled_total{{model="{model}",reason="{reason}".*}} (\S+)$'
    found = re.search(sample, text, re.M)
    return float(found[1]) if found else 0


DEADLINE = 'call of model "{}" passed its client\'s deadline of 0.3 s'


@pytest.mark.parametrize("given", [{"header": "0.3"}, {"timeout": 300_000}], ids=str)
@pytest.mark.parametrize("model", [*CALLS, *STREAMS])
def test_the_deadline_of_a_client_of_rest_shortens_the_time_limit(
    model: str, given: dict[str, Any], server: ServerProcess
) -> None:
    counted = _gone(server, model, "deadline")
    started = time.monotonic()
    reply = _post(server, model, 1, **given)
    assert time.monotonic() - started >= 0.29
    assert DEADLINE.format(model) in reply.text.replace('\\"', '"')
    assert reply.status_code == (504 if model in CALLS else 200), "the first item has been sent"
    assert reply.text.count("data: ") == (0 if model in CALLS else 2)
    assert _post(server, model, 0).status_code == 200
    assert _gone(server, model, "deadline") == counted + 1


@pytest.mark.parametrize("model", [*CALLS, *STREAMS])
def test_the_parameter_of_a_client_of_grpc_shortens_the_time_limit(
    model: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = _request(model, 1, timeout=300_000)
    if model in CALLS:
        reply = grpc_call(grpc_calls.infer, server.grpc_address, request, True)
    else:
        items, reply = grpc_call(grpc_calls.stream, server.grpc_address, [request], True)
        assert len(items) == 1
    assert (reply.status, reply.error) == ("DEADLINE_EXCEEDED", DEADLINE.format(model))
    assert _post(server, model, 0).status_code == 200


@pytest.mark.parametrize("model", CALLS)
def test_a_deadline_of_grpc_ends_the_call_and_is_counted(
    model: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    counted = _gone(server, model, "deadline")
    request = _request(model, 1)
    reply = grpc_call(grpc_calls.infer_and_cancel, server.grpc_address, request, 0.3)
    assert reply.status == "DEADLINE_EXCEEDED"
    end = time.monotonic() + 60
    while _gone(server, model, "deadline") != counted + 1:
        assert time.monotonic() < end, "it is not counted"
        time.sleep(0.02)
    assert _post(server, model, 0).status_code == 200


@pytest.mark.parametrize("model", [*CALLS, *STREAMS])
def test_a_call_whose_deadline_has_passed_is_not_begun(model: str, server: ServerProcess) -> None:
    reply = _post(server, model, 1, header="0")
    assert reply.status_code == 504
    assert "passed its client's deadline of 0 s" in reply.json()["error"]
    assert _post(server, model, 0).status_code == 200


@pytest.mark.parametrize("header", ["soon", "-1", "nan", "inf", ""])
def test_a_deadline_that_is_no_number_of_seconds_is_refused(
    header: str, server: ServerProcess
) -> None:
    body = json_request(_request("sync", 0))
    path, headers = "/v2/models/sync/infer", {"Request-Timeout": header}
    reply = server.client.post(path, json=body, headers=headers)
    text = f"header \"Request-Timeout\": expected seconds, got '{header}'"
    assert (reply.status_code, reply.json()) == (400, {"error": text})


@pytest.mark.parametrize("model", ["sync", "sync-isolated"])
@pytest.mark.parametrize("header", ["60", "100000"])
def test_a_deadline_that_is_far_changes_nothing(
    header: str, model: str, server: ServerProcess
) -> None:
    assert _post(server, model, 0, header=header).status_code == 200
    assert _post(server, model, 0, timeout=10**12).status_code == 200


@pytest.mark.parametrize("model", OWN)
def test_a_parameter_of_the_handler_is_no_deadline(model: str, server: ServerProcess) -> None:
    """A deadline of 5 us would have passed."""
    reply = _post(server, model, 1, timeout=5)
    assert reply.json()["outputs"][0]["data"] == [6.0]


@pytest.mark.parametrize("model", WHOLE)
def test_a_stream_has_a_time_limit_as_a_whole_over_rest(model: str, server: ServerProcess) -> None:
    counted = _gone(server, model, "deadline")
    started = time.monotonic()
    reply = _post(server, model, 1)
    assert time.monotonic() - started >= 0.29
    *items, error = reply.text.split("\n\n")[:-1]
    assert items
    limit = "its time limit of 0.3 s for the whole stream (serving.stream_timeout)"
    assert f"passed {limit}" in error
    assert _post(server, model, 0).status_code == 200
    assert _gone(server, model, "deadline") == counted, "the client has not asked for it"


@pytest.mark.parametrize("model", WHOLE)
def test_a_stream_has_a_time_limit_as_a_whole_over_grpc(
    model: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    items, end = grpc_call(grpc_calls.stream, server.grpc_address, [_request(model, 1)], True)
    assert items
    assert end.status == "DEADLINE_EXCEEDED"
    assert "for the whole stream (serving.stream_timeout)" in end.error


@pytest.mark.parametrize("model", WHOLE)
def test_the_shorter_one_of_both_limits_counts(model: str, server: ServerProcess) -> None:
    assert "client's deadline of 0.1 s" in _post(server, model, 1, header="0.1").text
    assert "(serving.stream_timeout)" in _post(server, model, 1, header="30").text
