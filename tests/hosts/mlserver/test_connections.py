"""Connections end when they are old and before the server does, and no request is lost by it."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from mlserver_pyfunc.hosts.mlserver import connections, patches

from . import grpc_calls
from .balancers import ConnectionBalancer, GrpcBalancer, running
from .conftest import GrpcCall
from .models import tensor, write_model
from .process import ServerProcess
from .wire import Request, Tensor, rest_infer

CODE = """
import os
import pathlib


def handler(by, context):
    pod = os.environ["POD"]
    with (pathlib.Path(context.init_parameters["record"]) / f"{pod} {by.item()}").open("a") as file:
        file.write(".")
    return {"pod": pod}
"""
CLIENTS = 4
# MLServer imports it before it listens: see CONTAINER_VARIABLES.
EARLY = {"MLSERVER_MODEL_REPOSITORY_IMPLEMENTATION": "mlserver_pyfunc.SchemalessModelRepository"}


def _pod(name: str, models: Path, work: Path, **env: str) -> ServerProcess:
    (work / name).mkdir()
    server = ServerProcess(models, work / name, env={"POD": name, **EARLY, **env})
    server.start()
    return server


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    source = {"code": CODE, "handler": "handler"}
    definition = {
        "source": source,
        "init_parameters": {"record": str(tmp_path)},
        "inputs": [tensor("by", "BYTES", [1], content_type="str")],
        "outputs": [tensor("pod", "BYTES", [1])],
    }
    write_model(folder / "where", definition)
    return folder


def _request(by: str) -> Request:
    return Request("where", [Tensor("by", "BYTES", (1,), [by.encode()])])


def _wait_for(*files: Path) -> None:
    deadline = time.monotonic() + 120
    while missing := [file.name for file in files if not file.exists()]:
        assert time.monotonic() < deadline, f"no answer from {missing}"
        time.sleep(0.05)


def _sizes(folder: Path) -> Counter[str]:
    return Counter({file.name: file.stat().st_size for file in folder.glob("[ab] *")})


def _count_answers(addresses: list[str], until: Path) -> Counter[str]:
    """Calls as `grpc_calls.count_answers` does; the addresses may change meanwhile."""
    answers: Counter[str] = Counter()
    with ExitStack() as stack:

        @cache
        def client(address: str) -> httpx.Client:
            made = httpx.Client(base_url=f"http://{address}", timeout=60)
            return stack.enter_context(made)

        while not until.exists():
            for address in tuple(addresses):
                try:
                    reply = rest_infer(client(address), _request("REST"))
                except httpx.TransportError as error:
                    answers[repr(error)] += 1
                else:
                    answers[grpc_calls.pod_of(reply)] += 1
                time.sleep(0.005)
    return answers


@pytest.mark.parametrize("balancer", ["of connections", "of requests"])
def test_a_new_server_gets_its_share_and_one_that_ends_loses_no_request(
    balancer: str, models: Path, tmp_path: Path, grpc_call: GrpcCall
) -> None:
    done = tmp_path / "done"
    with ExitStack() as stack:
        # Clients stay with `b`, so that it ends while they call it.
        a = _pod("a", models, tmp_path, MLSERVER_PYFUNC_CONNECTION_AGE="1")
        b = _pod("b", models, tmp_path, MLSERVER_PYFUNC_CONNECTION_AGE="6")
        for pod in (a, b):
            stack.callback(pod.close)
            pod.wait_until_ready("where")
        rest, grpc = [a.rest_address], [a.grpc_address]
        if balancer == "of connections":
            of_rest = ConnectionBalancer(rest)
            of_grpc: ConnectionBalancer | GrpcBalancer = ConnectionBalancer(grpc)
            stack.enter_context(running(of_rest, of_grpc))
            to_rest = [of_rest.address]
        else:
            of_grpc, to_rest = GrpcBalancer(grpc), rest
            stack.enter_context(running(of_grpc))
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS + 1))
        stack.callback(done.touch)
        by_rest = [pool.submit(_count_answers, to_rest, done) for _ in range(CLIENTS)]
        by_grpc = pool.submit(
            grpc_call,
            grpc_calls.count_answers,
            of_grpc.address,
            _request("gRPC"),
            str(done),
            CLIENTS,
        )
        _wait_for(tmp_path / "a REST", tmp_path / "a gRPC")
        rest.append(b.rest_address)
        grpc.append(b.grpc_address)
        _wait_for(tmp_path / "b REST", tmp_path / "b gRPC")
        time.sleep(2)
        before = _sizes(tmp_path)
        time.sleep(3)
        share = _sizes(tmp_path) - before
        # As a cluster does while the hook of a pod waits, before SIGTERM.
        rest.remove(b.rest_address)
        grpc.remove(b.grpc_address)
        time.sleep(0.5)
        assert b.stop() == 0, b.log
        time.sleep(0.5)
        done.touch()
        answers = {
            "REST": sum((each.result() for each in by_rest), Counter[str]()),
            "gRPC": by_grpc.result(),
        }
    for counted in answers.values():
        assert set(counted) == {"a", "b"}, answers
    for protocol in answers:
        assert share[f"b {protocol}"] > share[f"a {protocol}"] / 3, share


def test_a_server_that_ends_says_so_in_the_last_answer_of_each_connection(
    models: Path, tmp_path: Path
) -> None:
    server = _pod("a", models, tmp_path)
    with ThreadPoolExecutor(16) as pool:
        try:
            server.wait_until_ready("where")
            # Half of them are idle for longer than it takes uvicorn to notice the signal.
            pauses = [0, 0.3] * 8
            calls = [pool.submit(_call_until_told, server.rest_address, each) for each in pauses]
            time.sleep(1)
            assert not any(each.done() for each in calls)
            server.terminate()
            assert all(each.result() > 1 for each in calls)
            assert server.wait_for_end() == 0
        finally:
            server.close()


def _call_until_told(address: str, pause: float = 0) -> int:
    """Calls on one connection, with pauses, until an answer says that it ends."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.connect()
    for calls in count(1):  # noqa: B007
        connection.request("GET", "/v2/models/where")
        answer = connection.getresponse()
        answer.read()
        if answer.headers.get("connection") == "close":
            break
        time.sleep(pause)
    return calls


def test_an_old_connection_is_told_to_end_by_its_last_answer(models: Path, tmp_path: Path) -> None:
    server = _pod("a", models, tmp_path, MLSERVER_PYFUNC_CONNECTION_AGE="1")
    try:
        server.wait_until_ready("where")
        for _ in range(2):
            assert _call_until_told(server.rest_address) > 1
    finally:
        server.close()


@pytest.mark.parametrize("protocol", ["h11", "httptools"])
async def test_both_parsers_of_uvicorn_end_old_connections_and_keep_idle_ones(
    protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches.install()
    monkeypatch.setattr(connections, "AGE", 0.5)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        text = b"last" if connections.is_due(scope) else b"more"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text})

    server = uvicorn.Server(uvicorn.Config(app, port=0, http=protocol, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    host, port = server.servers[0].sockets[0].getsockname()
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
        assert (await client.get("/")).text == "more"
        (connection,) = server.server_state.connections
        assert connection.timeout_keep_alive == 100
        await asyncio.sleep(0.6)
        assert (await client.get("/")).text == "last"
    server.should_exit = True
    await serving
