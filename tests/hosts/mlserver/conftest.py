from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from tests.places import PROTOCOL

from . import grpc_calls
from .models import MODELS, write_repository
from .process import ServerProcess, serving

GrpcCall = Callable[..., Any]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server with every model of `models.py`, shared by all tests that do no harm."""
    folder = tmp_path_factory.mktemp("repository")
    write_repository(folder, MODELS)
    with serving(folder, tmp_path_factory.mktemp("server"), *MODELS) as server:
        yield server
        assert server.stop() == 0, server.log


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The same without the fast path: what MLServer itself does with our runtime."""
    folder = tmp_path_factory.mktemp("plain-repository")
    write_repository(folder, MODELS)
    work = tmp_path_factory.mktemp("plain-server")
    with serving(folder, work, *MODELS, env={"MLSERVER_PYFUNC_FASTPATH": "0"}) as server:
        yield server
        assert server.stop() == 0, server.log


@pytest.fixture(params=["fast path", "plain path"])
def either_server(request: pytest.FixtureRequest) -> ServerProcess:
    """Each of the two: they must answer alike."""
    names = {"fast path": "server", "plain path": "plain_server"}
    server: ServerProcess = request.getfixturevalue(names[request.param])
    return server


@pytest.fixture(scope="session")
def grpc_call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcCall]:
    """Calls a function of `grpc_calls` in processes that have the protocol's stubs.

    They are made of the protocol's own proto. If that is not there, Triton's stubs take its place.
    """
    proto = PROTOCOL / "open_inference_grpc.proto"
    stubs = tmp_path_factory.mktemp("stubs")
    if proto.is_file():
        subprocess.run(
            [
                sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}",
                f"--python_out={stubs}", f"--grpc_python_out={stubs}", proto.name,
            ],
            check=True,
        )  # fmt: skip
    with _pool(2, grpc_calls.use_stubs, str(stubs)) as pool:
        yield lambda function, *args, **kwargs: pool.submit(function, *args, **kwargs).result(120)


@pytest.fixture(scope="session")
def triton_call() -> Iterator[GrpcCall]:
    """Calls a function of `triton_calls` in a process of its own."""
    with _pool(1) as pool:
        yield lambda function, *args: pool.submit(function, *args).result(120)


@pytest.fixture(scope="session")
def kserve_call() -> Iterator[GrpcCall]:
    """Calls a function of `kserve_calls`: its stubs clash with Triton's too."""
    with _pool(1) as pool:
        yield lambda function, *args: pool.submit(function, *args).result(120)


def _pool(workers: int, initializer: Any = None, *arguments: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=initializer,
        initargs=arguments,
    )
