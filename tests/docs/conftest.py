"""A real server for each model repository that the documentation and the examples show."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running `mlserver start`, in a process of its own."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait_until_ready(self, *models: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        for model in models:
            while not self._is_ready(model):
                assert self.process.poll() is None, f"the server has ended:\n{self.log}"
                assert time.monotonic() < deadline, f'"{model}" is not ready:\n{self.log}'
                time.sleep(0.1)

    def _is_ready(self, model: str) -> bool:
        try:
            urllib.request.urlopen(f"http://{self.http}/v2/models/{model}/ready", timeout=5)
        except (OSError, http.client.HTTPException):
            return False
        return True


@contextlib.contextmanager
def running_server(
    folder: Path,
    work: Path,
    *models: str,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Iterator[Server]:
    """Starts `mlserver start FOLDER` on free ports; stops it at the end.

    Args:
        folder: The model repository.
        work: For the server's log and the folders it makes.
        models: To wait for.
        environment: Variables besides this process's own.
        python: Whose `mlserver` it is.
    """
    rest, grpc, metrics = free_ports(3)
    log_file = work / "server.log"
    variables = {
        **os.environ,
        "MLSERVER_HTTP_PORT": str(rest),
        "MLSERVER_GRPC_PORT": str(grpc),
        "MLSERVER_METRICS_PORT": str(metrics),
        "MLSERVER_ENVIRONMENTS_DIR": str(work / "envs"),
        "MLSERVER_METRICS_DIR": str(work / "metrics"),
        **(environment or {}),
    }
    command = [str(Path(python).with_name("mlserver")), "start", str(folder)]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, cwd=work, env=variables, stdout=log, stderr=log)
    server = Server(process, f"localhost:{rest}", f"localhost:{grpc}", log_file)
    try:
        server.wait_until_ready(*models)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers as `running_server` does; stops them after the test."""
    with contextlib.ExitStack() as stack:

        def start(folder: Path, *models: str, **options: object) -> Server:
            work = tmp_path / "work"
            work.mkdir(exist_ok=True)
            return stack.enter_context(running_server(folder, work, *models, **options))  # type: ignore[arg-type]

        yield start
