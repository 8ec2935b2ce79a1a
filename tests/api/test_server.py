"""A server of a function: starts, answers, stops, and ends with the process that started it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import psutil
import pytest

from mlserver_pyfunc import Function, Server, connect
from mlserver_pyfunc.client import CallError
from tests.places import FUNCTIONS

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Function.load(FUNCTIONS / "flaky").serve(MLSERVER_PYFUNC_PLAYGROUND="0") as started:
        yield started


def test_it_is_called_and_shows_itself(server: Server) -> None:
    (answer,) = server.infer(x=[1, 2]).values()
    assert answer.tolist() == [2, 4]
    assert repr(server) == f"Server(flaky at {server.url} and {server.grpc_target})"
    assert 'function "flaky" loaded' in server.logs()


def _call_by_one_route(url: str, options: dict[str, bool]) -> None:
    with connect(url, "flaky", **options) as model:  # type: ignore[arg-type]
        for sent in ([1, 2], np.array([1, 2], np.int32)):
            (answer,) = model.infer(x=sent).values()
            assert answer.tolist() == [2, 4]
        with pytest.raises(CallError, match="seven"):
            model.infer({"x": 7})
        assert [a.tolist() for a in model.infer(x=3).values()] == [[6]]


def _name_no_model(target: str) -> None:
    with pytest.raises(LookupError, match="no model named"):
        connect(target, grpc=True)


@pytest.fixture
def process() -> Iterator[ProcessPoolExecutor]:
    """A process without MLServer, whose gRPC messages have the names of tritonclient's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("options", [{}, {"binary": True}, {"grpc": True}])
def test_connect_calls_by_every_route(
    server: Server, process: ProcessPoolExecutor, options: dict[str, bool]
) -> None:
    url = f"grpc://{server.grpc_target}" if options.get("grpc") else server.url
    process.submit(_call_by_one_route, url, options).result()


def test_connect_finds_the_only_model_and_its_url(
    server: Server, process: ProcessPoolExecutor
) -> None:
    for url in (server.url, f"{server.url}/v2", f"{server.url}/v2/models/flaky"):
        assert repr(connect(url)) == "Model('flaky')"
    process.submit(_name_no_model, server.grpc_target).result()


def test_many_calls_run_at_a_time_in_an_event_loop(server: Server) -> None:
    async def cell() -> list[int]:
        with connect(server.url) as model:
            answers = await asyncio.gather(*(model.infer_async(x=n) for n in range(10, 42)))
        return [int(array[0]) for answer in answers for array in answer.values()]

    assert asyncio.run(cell()) == [2 * n for n in range(10, 42)]


def test_a_connection_that_the_server_has_closed_is_opened_again(server: Server) -> None:
    with connect(server.url) as model:
        model.infer(x=1)
        with model.client() as client:
            # As a server does with a connection that was idle for some seconds.
            client._connection.sock.shutdown(2)  # type: ignore[attr-defined]
        assert [a.tolist() for a in model.infer(x=1).values()] == [[2]]


KERNEL = """
import sys, time
from mlserver_pyfunc import Function
fn = Function.load(sys.argv[1])
server = fn.serve()
isolated = Function.from_source(
    f"file://{sys.argv[1]}/model.py", "fail_on_seven",
    inputs=fn.opened.definition.inputs, outputs=fn.opened.definition.outputs,
    serving={"isolation": "process"},
)
isolated(x=[1])
print("up", flush=True)
time.sleep(600)
"""


def test_nothing_is_left_after_the_kernel_was_killed() -> None:
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(FUNCTIONS / "flaky")], stdout=subprocess.PIPE, text=True
    )
    assert kernel.stdout is not None
    assert kernel.stdout.readline() == "up\n"
    started = psutil.Process(kernel.pid).children(recursive=True)
    assert len(started) >= 3, "the server, the guardian and the worker"
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.wait()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
