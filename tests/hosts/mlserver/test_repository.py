"""Load and unload requests that come at the same time: one set of workers is left, or none."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from .models import inline, tensor, write_model
from .process import ServerProcess, serving
from .test_isolation import _workers
from .wire import Request, Tensor, rest_infer

WORKERS = 2
SECONDS = 60
CODE = """
import socket
import time


def setup(seconds=0.0):
    time.sleep(seconds)


def handler(x):
    return x
"""
X, Y = (tensor(name, "FP32", [1]) for name in "xy")


def _write(folder: Path, seconds: float = 0.0) -> None:
    definition = inline(
        CODE, "handler", {"inputs": [X], "outputs": [Y]}, isolation="process", workers=WORKERS
    )
    definition["source"]["init_function"] = "setup"
    write_model(folder, {**definition, "init_parameters": {"seconds": seconds}})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("repository")
    _write(folder / "isolated")
    _write(folder / "slow", 1.0)
    with serving(folder, tmp_path_factory.mktemp("work"), "isolated", "slow") as server:
        assert _rest(server, "slow", "unload") == "OK"
        yield server
        assert server.stop() == 0, server.log


def _rest(server: ServerProcess, model: str, action: str) -> str:
    response = server.client.post(f"/v2/repository/models/{model}/{action}")
    codes = {200: "OK", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
    return codes.get(response.status_code, response.text)


def _grpc(server: ServerProcess, model: str, action: str, seconds: float = SECONDS) -> str:
    method = f"/inference.GRPCInferenceService/RepositoryModel{action.capitalize()}"
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(method)
        try:
            # Field 2 of the request is the name of the model.
            call(b"\x12" + bytes([len(model)]) + model.encode(), timeout=seconds)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def _at_once(
    server: ServerProcess, model: str, *actions: tuple[Callable[..., str], str]
) -> list[str]:
    with ThreadPoolExecutor(len(actions)) as pool:
        calls = [pool.submit(call, server, model, action) for call, action in actions]
        return [call.result() for call in calls]


def _expect_workers(server: ServerProcess, count: int) -> None:
    """Waits until the server has so many workers. It starts none later: all requests are over."""
    deadline = time.monotonic() + SECONDS
    while (found := _count(_workers(server))) != count:
        assert time.monotonic() < deadline, f"expected {count} workers, got {found}"
        time.sleep(0.1)


def _count(processes: list[psutil.Process]) -> int:
    """Counts workers. Each has a process beside it that ends what it leaves, as parent or child."""
    parents = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            parents.add(process.ppid())
    return sum(process.pid not in parents for process in processes)


def _is_loading(server: ServerProcess, model: str) -> bool:
    try:
        status = server.client.get(f"/v2/models/{model}/ready").status_code
    except httpx.TransportError:
        return False
    assert status != 200, "the model should still load"
    return status != 404


def _is_served(server: ServerProcess, model: str) -> bool:
    request = Request(model, [Tensor("x", "FP32", (1,), [1.5])])
    return rest_infer(server.client, request).status == 200


def test_loads_at_the_same_time_leave_one_set_of_workers(server: ServerProcess) -> None:
    answers = _at_once(server, "isolated", *[(_rest, "load"), (_grpc, "load")] * 4)
    assert answers == ["OK"] * 8
    _expect_workers(server, WORKERS)
    assert _is_served(server, "isolated")


def test_loads_and_unloads_at_the_same_time_leave_one_set_of_workers_or_none(
    server: ServerProcess,
) -> None:
    mixed = [(_rest, "load"), (_grpc, "unload"), (_grpc, "load"), (_rest, "unload")]
    for shift in range(4):
        answers = _at_once(server, "isolated", *(mixed[shift:] + mixed[:shift]) * 2)
        assert set(answers) <= {"OK", "NOT_FOUND"}
        _expect_workers(server, WORKERS if _is_served(server, "isolated") else 0)
    assert _grpc(server, "isolated", "load") == "OK"
    assert _is_served(server, "isolated")
    _expect_workers(server, WORKERS)
    assert _at_once(server, "isolated", (_rest, "unload"), (_grpc, "unload")).count("OK") == 1
    _expect_workers(server, 0)
    assert _rest(server, "isolated", "load") == "OK"


def test_a_load_ends_though_its_client_has_left(server: ServerProcess) -> None:
    assert _grpc(server, "slow", "load", seconds=0.3) == "DEADLINE_EXCEEDED"
    assert _grpc(server, "slow", "load") == "OK"
    _expect_workers(server, 2 * WORKERS)
    assert _is_served(server, "slow")
    assert _rest(server, "slow", "unload") == "OK"
    _expect_workers(server, WORKERS)


def test_a_load_during_the_load_at_start_leaves_one_set_of_workers(tmp_path: Path) -> None:
    _write(tmp_path / "models" / "slow", 2.0)
    with serving(tmp_path / "models", tmp_path) as server:
        deadline = time.monotonic() + SECONDS
        while not _is_loading(server, "slow"):
            assert time.monotonic() < deadline, server.log
            time.sleep(0.05)
        assert _rest(server, "slow", "load") == "OK"
        _expect_workers(server, WORKERS)
        assert _is_served(server, "slow")
        assert server.stop() == 0, server.log


SWITCH = "MLSERVER_PYFUNC_REPOSITORY_API"
# Address to listen on, and mode; then the answers to this machine by its loopback address, by
# another address, and by loopback through a proxy.
GUARDED = {
    "not set": ({}, "OK", "OK", "OK"),
    "open": ({SWITCH: "open"}, "OK", "OK", "OK"),
    "loopback": ({SWITCH: "loopback"}, "OK", "PERMISSION_DENIED", "PERMISSION_DENIED"),
    "off": ({SWITCH: "off"}, *["PERMISSION_DENIED"] * 3),
    "no such mode": ({SWITCH: "yes"}, *["PERMISSION_DENIED"] * 3),
}
FORWARDED = {"x-forwarded-for": "127.0.0.1"}
# REST, and the services of gRPC. The second one is deprecated in MLServer, and still served.
ROUTES = (
    "REST",
    "inference.GRPCInferenceService",
    "inference.model_repository.ModelRepositoryService",
)


def _other_address() -> str:
    """Returns an address of this machine other than loopback."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family is socket.AF_INET and not each.address.startswith("127."):
                return each.address
    pytest.skip("this machine has no address but loopback")


def _load(server: ServerProcess, route: str, host: str, headers: Mapping[str, str]) -> str:
    """Loads the model at an address of the server. Returns the code and the message."""
    if route == "REST":
        url = server.url.replace("127.0.0.1", host) + "/v2/repository/models/plain/load"
        response = httpx.post(url, headers=dict(headers), timeout=SECONDS)
        codes = {200: "OK", 403: "PERMISSION_DENIED"}
        return f"{codes[response.status_code]} {response.text}"
    with grpc.insecure_channel(server.grpc_address.replace("127.0.0.1", host)) as channel:
        call = channel.unary_unary(f"/{route}/RepositoryModelLoad")
        try:
            call(b"\x12\x05plain", timeout=SECONDS, metadata=tuple(headers.items()))
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()}"
    return "OK"


@pytest.mark.parametrize("case", GUARDED)
def test_only_those_who_may_load_models(case: str, tmp_path: Path) -> None:
    variables, *expected = GUARDED[case]
    other = _other_address()
    definition = inline(CODE, "handler", {"inputs": [X], "outputs": [Y]})
    write_model(tmp_path / "models" / "plain", definition)
    env = {"MLSERVER_HOST": "0.0.0.0", **variables}
    with serving(tmp_path / "models", tmp_path, "plain", env=env) as server:
        for route in ROUTES:
            calls = [("127.0.0.1", {}), (other, {}), ("127.0.0.1", FORWARDED)]
            answers = [_load(server, route, host, headers) for host, headers in calls]
            assert [answer.split(" ")[0] for answer in answers] == expected, answers
            for answer in answers:
                assert answer.startswith("OK") or f"{SWITCH}=open" in answer
        index = httpx.post(f"{server.url}/v2/repository/index".replace("127.0.0.1", other), json={})
        assert index.json()[0]["state"] == "READY"
        assert server.stop() == 0, server.log


def test_a_server_that_starts_without_models_lets_others_load_them(tmp_path: Path) -> None:
    definition = inline(CODE, "handler", {"inputs": [X], "outputs": [Y]})
    write_model(tmp_path / "models" / "plain", definition)
    env = {
        "MLSERVER_HOST": "0.0.0.0",
        "MLSERVER_LOAD_MODELS_AT_STARTUP": "false",
        SWITCH: "loopback",
    }
    with serving(tmp_path / "models", tmp_path, env=env) as server:
        server.wait_for_log("Uvicorn running on")
        for route in ROUTES:
            for _ in range(2):
                assert _load(server, route, _other_address(), {}).startswith("OK")
        assert server.stop() == 0, server.log
