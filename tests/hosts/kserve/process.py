"""A real server of KServe with functions, in a process of its own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlserver_pyfunc.deployment.server_settings import free_ports
from tests.hosts.mlserver.process import ServerProcess

# Imports of MLServer fail, as where it is not installed.
RUN = """
import runpy, sys
sys.modules["mlserver"] = None
runpy.run_module("mlserver_pyfunc.hosts.kserve", run_name="__main__", alter_sys=True)
"""


class KServeProcess(ServerProcess):
    """KServe's ModelServer on free ports, serving a folder, or those in it, without MLServer."""

    def __init__(
        self,
        folder: Path,
        work: Path,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        flags: Sequence[str] = (),
        program: Sequence[str] = ("-c", RUN),
    ) -> None:
        super().__init__(folder, work, env, python)
        http, grpc = free_ports(2)
        ports = ["--http_port", str(http), "--grpc_port", str(grpc)]
        folders = sorted(file.parent for file in folder.glob("*/function.yaml")) or [folder]
        self._command = [python, *program, *map(str, folders), *ports, *flags]
        self._address(http, grpc)


@contextlib.contextmanager
def serving(folder: Path, work: Path, *models: str, **options: object) -> Iterator[KServeProcess]:
    """A server that is ready for `models`, gone at the end whatever the test did to it."""
    server = KServeProcess(folder, work, **options)  # type: ignore[arg-type]
    server.start()
    try:
        server.wait_until_ready(*models)
        yield server
    finally:
        server.close()
