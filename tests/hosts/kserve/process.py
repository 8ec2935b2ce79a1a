"""A real server of KServe with functions, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mlserver_pyfunc.deployment.server_settings import free_ports
from tests.hosts.mlserver.process import ServerProcess, running

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


def serving(
    folder: Path, work: Path, *models: str, **options: Any
) -> AbstractContextManager[KServeProcess]:
    """A server with options of `KServeProcess`, while it is running."""
    return running(KServeProcess(folder, work, **options), *models)
