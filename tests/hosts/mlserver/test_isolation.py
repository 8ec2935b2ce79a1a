"""Functions of several Pythons, with dependencies that conflict, in one server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from mlserver_pyfunc.environments.uv import find_uv
from tests.needs import require
from tests.waiting import wait_until

from . import grpc_calls
from .conftest import GrpcCall
from .models import ECHO, STREAMS, inline, tensor, tensor_name, write_model, write_repository
from .process import ServerProcess, serving
from .test_protocol import BINARY_ROUTE, ROUTED, _filled, _seen, _send
from .wire import DTYPES, Request, Tensor, rest_infer

NEEDS = {
    "3.10": ["numpy==1.26.*", "pydantic==1.10.*"],
    "3.11": ["numpy>=2.1,<3", "pydantic==2.9.*"],
    "3.12": ["numpy==1.26.*", "protobuf==3.20.*"],
    "3.13": ["numpy>=2.1,<3", "pydantic>=2.10,<3"],
}

REPORT = """
import json
import sys
from importlib import metadata

from mlserver_pyfunc import InferenceError


def versions():
    for name in ("numpy", "pydantic", "protobuf", "mlserver"):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, None


def report(x):
    if x[0] < 0:
        raise InferenceError("below zero", 400)
    tops = {name.partition(".")[0] for name in sys.modules}
    return json.dumps({
        "python": "%d.%d" % sys.version_info[:2],
        "versions": dict(versions()),
        "imported": sorted(tops & {"mlserver", "pydantic", "yaml", "starlette", "packaging"}),
        "path": sys.path,
    })
"""

ECHOED = [
    tensor(tensor_name(datatype, kind), datatype, shape, optional=True)
    for datatype in DTYPES
    for kind, shape in {"batch": [-1, 2], "scalar": []}.items()
]

CALLS = """
import os
import pathlib
import time


def handler(x, context):
    pathlib.Path(context.init_parameters["folder"], "begun").touch()
    if x[0] > 0:
        time.sleep(float(x[0]))
    while x[0] < 0:
        pass
    return x


def close(context):
    pathlib.Path(context.init_parameters["folder"], f"unloaded-{os.getpid()}").touch()
"""


def name_of(kind: str, version: str) -> str:
    return f"{kind}-{version.replace('.', '')}"


def models() -> dict[str, dict[str, Any]]:
    report = {
        "inputs": [tensor("x", "FP32", [-1])],
        "outputs": [tensor("report", "BYTES", [])],
    }
    echo = {"inputs": ECHOED, "outputs": [*ECHOED, tensor("seen", "BYTES", [])]}
    count = {
        "inputs": [
            tensor("upto", "INT64", [1]),
            tensor("fail_at", "INT64", [1], optional=True),
            tensor("mark", "BYTES", [1], optional=True, content_type="str"),
        ],
        "outputs": [tensor("n", "INT64", [1])],
    }
    found = {}
    for version, requirements in NEEDS.items():
        needs = {"python_version": version, "requirements": requirements}
        found[name_of("report", version)] = {**inline(REPORT, "report", report), **needs}
        found[name_of("echo", version)] = {**inline(ECHO, "echo", echo), **needs}
        found[name_of("count", version)] = {**inline(STREAMS, "count", count), **needs}
    return found


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for an empty cache of ours; uv keeps what it has downloaded before."""
    downloads = subprocess.run(
        [find_uv(), "cache", "dir"], capture_output=True, text=True, check=True
    )
    return {
        "MLSERVER_PYFUNC_CACHE": str(tmp_path_factory.mktemp("cache")),
        "UV_CACHE_DIR": downloads.stdout.strip(),
    }


@pytest.fixture(scope="session")
def pythons(
    tmp_path_factory: pytest.TempPathFactory, cache: dict[str, str]
) -> Iterator[ServerProcess]:
    """One server with functions of four Pythons."""
    require(*(f"Python {version}" for version in NEEDS))
    folder = tmp_path_factory.mktemp("pythons")
    write_repository(folder, models())
    with serving(folder, tmp_path_factory.mktemp("server"), *models(), env=cache) as server:
        yield server


@pytest.mark.parametrize("version", NEEDS)
def test_each_function_has_its_own_python_and_dependencies(
    version: str, pythons: ServerProcess
) -> None:
    request = Request(name_of("report", version), [Tensor("x", "FP32", (1,), [1.0])])
    reply = rest_infer(pythons.client, request).expect_ok()
    report = json.loads(reply.outputs["report"].values[0])
    assert report["python"] == version
    installed = report["versions"]
    assert installed["numpy"].startswith("1.26." if version in ("3.10", "3.12") else "2.")
    expected = {"3.10": "1.10.", "3.11": "2.9.", "3.13": "2."}.get(version)
    assert (
        installed["pydantic"] is None
        if expected is None
        else installed["pydantic"].startswith(expected)
    )
    assert (installed["protobuf"] or "").startswith("3.20.") == (version == "3.12")
    assert installed["mlserver"] is None
    assert report["imported"] == [], "the worker needs only NumPy and the standard library"
    cached = [path for path in report["path"] if "site-packages" in path]
    assert len(cached) == 1, f"packages of another environment can be seen: {cached}"


@pytest.mark.parametrize("version", NEEDS)
def test_metadata_tells_how_a_function_runs(version: str, pythons: ServerProcess) -> None:
    parameters = pythons.client.get(f"/v2/models/{name_of('echo', version)}").json()["parameters"]
    assert parameters["isolation"] == "process"
    assert parameters["python"].startswith(version)
    assert parameters["workers"] == "1 of 1 up"


@pytest.mark.parametrize("version", NEEDS)
def test_an_inference_error_crosses_the_border(
    version: str, pythons: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request(name_of("report", version), [Tensor("x", "FP32", (1,), [-1.0])])
    reply = rest_infer(pythons.client, request)
    assert (reply.status, reply.error) == (400, "below zero")
    reply = grpc_call(grpc_calls.infer, pythons.grpc_address, request, True)
    assert (reply.status, reply.error) == ("INVALID_ARGUMENT", "below zero")


@pytest.mark.parametrize(("kind", "shape"), [("batch", (3, 2)), ("scalar", ())])
@pytest.mark.parametrize(("route", "datatype"), [*ROUTED, *((BINARY_ROUTE, d) for d in DTYPES)])
@pytest.mark.parametrize("version", NEEDS)
def test_a_tensor_reaches_each_python_and_comes_back_bit_for_bit(
    version: str,
    route: str,
    datatype: str,
    kind: str,
    shape: tuple[int, ...],
    pythons: ServerProcess,
    grpc_call: GrpcCall,
    triton_call: GrpcCall,
) -> None:
    sent = _filled(datatype, kind, shape, route)
    request = Request(name_of("echo", version), [sent])
    reply = _send(route, request, pythons, grpc_call, triton_call).expect_ok()
    assert reply.outputs["seen"].values[0].decode() == _seen(sent)
    got = reply.outputs[sent.name]
    assert (got.datatype, got.shape, got.bits) == (sent.datatype, sent.shape, sent.bits)


def _events(server: ServerProcess, request: Request) -> list[dict[str, Any]]:
    body = {"inputs": [{"name": t.name, "datatype": t.datatype, "shape": t.shape, "data": t.values}
                       for t in request.inputs]}  # fmt: skip
    url = f"/v2/models/{request.model}/infer_stream"
    with server.client.stream("POST", url, json=body) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.parametrize("version", NEEDS)
def test_streams_and_their_errors_reach_rest_and_grpc(
    version: str, pythons: ServerProcess, grpc_call: GrpcCall
) -> None:
    upto = Tensor("upto", "INT64", (1,), [5])
    request = Request(name_of("count", version), [upto])
    seen = [event["outputs"][0]["data"][0] for event in _events(pythons, request)]
    assert seen == [0, 1, 2, 3, 4]
    items, end = grpc_call(grpc_calls.stream, pythons.grpc_address, [request], True)
    assert [item.outputs["n"].values[0] for item in items] == seen
    assert end.status == "OK"
    failing = Request(request.model, [upto, Tensor("fail_at", "INT64", (1,), [2])])
    events = _events(pythons, failing)
    assert [event["outputs"][0]["data"][0] for event in events[:2]] == [0, 1]
    assert events[2:] == [{"error": "no 2 today"}]
    items, end = grpc_call(grpc_calls.stream, pythons.grpc_address, [failing], True)
    assert [item.outputs["n"].values[0] for item in items] == [0, 1]
    assert (end.status, end.error) == ("ABORTED", "no 2 today")


def test_a_grpc_client_that_leaves_closes_the_generator(
    pythons: ServerProcess, grpc_call: GrpcCall, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    inputs = [
        Tensor("upto", "INT64", (1,), [100_000]),
        Tensor("mark", "BYTES", (1,), [str(mark).encode()]),
    ]
    request = Request("count-313", inputs)
    items, _ = grpc_call(grpc_calls.stream, pythons.grpc_address, [request], True, 3)
    assert len(items) == 3
    wait_until(mark.exists, "the generator was not closed")


def test_readiness_follows_the_workers_and_requests_wait(pythons: ServerProcess) -> None:
    request = Request("report-310", [Tensor("x", "FP32", (1,), [1.0])])
    rest_infer(pythons.client, request).expect_ok()
    for worker in _workers(pythons):
        worker.kill()
    wait_until(lambda: not pythons.is_ready("report-310"), "ready without a worker")
    rest_infer(pythons.client, request).expect_ok()
    for model in models():
        wait_until(lambda model=model: pythons.is_ready(model), f"{model} is not ready again")


def _calls(folder: Path, **serving: Any) -> dict[str, Any]:
    tensors = {"inputs": [tensor("x", "FP32", [-1])], "outputs": [tensor("y", "FP32", [-1])]}
    definition = inline(CALLS, "handler", tensors, isolation="process", workers=2, **serving)
    definition["source"]["unload_function"] = "close"
    return {**definition, "init_parameters": {"folder": str(folder)}}


def _infer(server: ServerProcess, seconds: float, replies: list[Any]) -> threading.Thread:
    request = Request("calls", [Tensor("x", "FP32", (1,), [seconds])])

    def infer() -> None:
        # A server that is killed does not answer.
        with contextlib.suppress(httpx.TransportError):
            replies.append(rest_infer(server.client, request))

    thread = threading.Thread(target=infer, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("parallel_workers", ["0", "1"])
def test_sigterm_answers_what_runs_unloads_and_leaves_nothing(
    parallel_workers: str, tmp_path: Path
) -> None:
    write_model(tmp_path / "models" / "calls", _calls(tmp_path))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {"MLSERVER_PARALLEL_WORKERS": parallel_workers, "TMPDIR": str(temporary)}
    with serving(tmp_path / "models", tmp_path, "calls", env=env) as server:
        workers = _workers(server)
        assert len(workers) == 2
        replies: list[Any] = []
        thread = _infer(server, 1.5, replies)
        wait_until((tmp_path / "begun").exists, "the call does not begin")
        assert server.stop() == 0
        thread.join(60)
        assert replies[0].status == 200, replies
    assert not any(worker.is_running() for worker in workers)
    unloaded = {path.name for path in tmp_path.glob("unloaded-*")}
    assert unloaded == {f"unloaded-{worker.pid}" for worker in workers}
    assert not list(temporary.iterdir())


def test_workers_leave_when_the_server_is_killed(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "calls", _calls(tmp_path))
    with serving(tmp_path / "models", tmp_path, "calls") as server:
        workers = _workers(server)
        # One works without a pause, the other waits for a call.
        _infer(server, -1, [])
        wait_until((tmp_path / "begun").exists, "the call does not begin")
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not any(w.is_running() for w in workers), "workers outlive the server")
        server.wait_for_end()


def test_a_reload_replaces_the_workers(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "calls", _calls(tmp_path))
    with serving(tmp_path / "models", tmp_path, "calls") as server:
        first = _workers(server)
        assert server.client.post("/v2/repository/models/calls/load").status_code == 200
        wait_until(lambda: not any(w.is_running() for w in first), "workers were left behind")
        assert len(_workers(server)) == 2
        assert len(_shared_memory(server.pid)) == 4
        rest_infer(server.client, Request("calls", [Tensor("x", "FP32", (1,), [0.0])])).expect_ok()
        assert server.client.post("/v2/repository/models/calls/unload").status_code == 200
        wait_until(lambda: not _workers(server), "workers were left behind")
        wait_until(lambda: not _shared_memory(server.pid), "shared memory was left behind")


def _workers(server: ServerProcess) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(server.pid).children(recursive=True):
        try:
            # A worker is the child of its guardian, which has the same command.
            parent = psutil.Process(child.ppid())
            if all("bootstrap.py" in " ".join(one.cmdline()) for one in (child, parent)):
                found.append(child)
        except psutil.Error:
            continue
    return found


def _shared_memory(pid: int) -> list[str]:
    """Arenas that a process has mapped. They have no name by which others could find them."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line for line in maps if "/memfd:mlserver-pyfunc" in line]


def test_deaths_are_told_though_the_host_waits_for_children_too(tmp_path: Path) -> None:
    code = "import os\n\ndef handler(x):\n    os._exit(int(x[0]))\n"
    tensors = {"inputs": [tensor("x", "FP32", [-1])], "outputs": [tensor("y", "FP32", [-1])]}
    write_model(
        tmp_path / "models" / "exits", inline(code, "handler", tensors, isolation="process")
    )
    env = {"MLSERVER_PARALLEL_WORKERS": "1"}
    with serving(tmp_path / "models", tmp_path, "exits", env=env) as server:
        for number in range(1, 11):
            request = Request("exits", [Tensor("x", "FP32", (1,), [float(number)])])
            assert f"exited with code {number}" in rest_infer(server.client, request).error
