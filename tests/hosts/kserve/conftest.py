from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from tests.hosts.mlserver.conftest import grpc_call, kserve_call, triton_call
from tests.hosts.mlserver.models import MODELS, write_repository
from tests.needs import require

from .models import MORE
from .process import KServeProcess, serving

PYTHON = os.environ.get("KSERVE_PYTHON", sys.executable)
"""Whose kserve it is: CI sets that of an environment without MLServer, too."""

BOUND = {"MLSERVER_PYFUNC_MAX_BODY": "1 MiB"}

__all__ = ["grpc_call", "kserve_call", "triton_call"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KServeProcess]:
    """One server with every model of MLServer's tests, shared by all tests that do no harm."""
    require("kserve")
    folder = tmp_path_factory.mktemp("functions")
    write_repository(folder, {**MODELS, **MORE})
    work = tmp_path_factory.mktemp("kserve")
    with serving(folder, work, *MODELS, *MORE, python=PYTHON, env=BOUND) as server:
        yield server
        assert server.stop() == 0, server.log


@pytest.fixture
def either_server(server: KServeProcess) -> KServeProcess:
    """There is one path: tests of MLServer's two run once."""
    return server
