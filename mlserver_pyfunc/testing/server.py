"""A real MLServer in a process of its own, on free ports, for the length of a test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from mlserver_pyfunc.client import CallError
from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.definition.folder import environment_model

START_SECONDS = 120.0
STOP_SECONDS = 15.0
_LOG_LINES = 25


class ServerError(Exception):
    """The server did not start, or left. Holds the end of its log."""


class Server:
    """Serves a folder by `mlserver start` while the `with` block runs.

    Args:
        folder: Of one function, with or without model-settings.json, or of many.
        env: Further environment variables, `MLSERVER_...` settings for one.

    Attributes:
        url: Of REST, `http://127.0.0.1:PORT`.
        grpc_target: `127.0.0.1:PORT`.
        models: Names of the models that are ready.
    """

    def __init__(self, folder: str | Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = Path(folder)
        self.models: list[str] = []
        self._env = env or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Server:
        http_port, grpc_port, metrics_port = free_ports(3)
        self.url = f"http://127.0.0.1:{http_port}"
        self.grpc_target = f"127.0.0.1:{grpc_port}"
        # MLServer makes folders where it runs: let that be a place of its own.
        scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pyfunc-"))
        self._log = Path(scratch, "server.log")
        env = {
            **os.environ,
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": str(http_port),
            "MLSERVER_GRPC_PORT": str(grpc_port),
            "MLSERVER_METRICS_PORT": str(metrics_port),
            "MLSERVER_PARALLEL_WORKERS": "0",
            **environment_model(self.folder),
            **self._env,
        }
        start = "from mlserver.cli import main; main()"
        command = [sys.executable, "-c", start, "start", str(self.folder.resolve())]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=scratch, env=env, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return self._log.read_text(errors="replace")

    def stop(self) -> int | None:
        """Ends the server as Kubernetes would, by SIGTERM and then SIGKILL.

        Returns:
            Its exit code.
        """
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._stack.close()
        return process.returncode

    def _wait_until_ready(self) -> None:
        client = RestClient(self.url, timeout=5)
        deadline = time.monotonic() + START_SECONDS
        try:
            while time.monotonic() < deadline:
                assert self._process is not None
                if self._process.poll() is not None:
                    raise ServerError(f"the server left while it started:\n{self._last_lines()}")
                models = self._index(client)
                if models and all(model["state"] == "READY" for model in models):
                    self.models = sorted({model["name"] for model in models})
                    return
                time.sleep(0.05)
        finally:
            client.close()
        raise ServerError(
            f"the server was not ready after {START_SECONDS:g} s:\n{self._last_lines()}"
        )

    def _index(self, client: RestClient) -> list[dict[str, Any]]:
        try:
            return client.models()
        except CallError:
            return []

    def _last_lines(self) -> str:
        lines = self.log.splitlines()
        # Said once before much about the shutdown: the end alone may no longer hold it.
        causes = [line for line in lines[:-_LOG_LINES] if "failed to load: " in line]
        return "\n".join(causes[:1] + lines[-_LOG_LINES:])


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
