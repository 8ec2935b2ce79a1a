"""Runs a real MLServer in a process of its own, on free ports, which ends with this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any

from mlserver_pyfunc.client.connection import Model, connect
from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.definition.locate import environment_model
from mlserver_pyfunc.deployment.server_settings import LEAN_VARIABLES, Ports, free_ports
from mlserver_pyfunc.errors import PyFuncError

START_SECONDS = 120.0
STOP_SECONDS = 15.0
_LOG_LINES = 25

_START = """
from mlserver_pyfunc.deployment.server_process import end_with
end_with({owner})
from mlserver_pyfunc.hosts.mlserver.light_import import import_mlserver
import_mlserver("mlserver.cli")
from mlserver.cli import main
main()
"""


class ServerError(PyFuncError):
    """The server did not start, or ended. The message holds the end of its log."""


class Server:
    """Serves a folder by `mlserver start`: from `start` to `stop`, or while a `with` block runs.

    Args:
        folder: Folder of one function, with or without model-settings.json, or a folder of many
            such folders.
        env: More environment variables of the server, for example `MLSERVER_...` settings.

    Attributes:
        url: URL of REST, `http://127.0.0.1:PORT`.
        grpc_target: Address of gRPC, `127.0.0.1:PORT`.
        models: Names of the models that are ready.

    Raises:
        ServerError: On entering the `with` block, or by `start`: the server did not start.
    """

    def __init__(self, folder: str | Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = Path(folder)
        self.models: list[str] = []
        self._env = env or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    def start(self) -> Server:
        """Starts the server, and waits until its models are ready."""
        ports = Ports(*free_ports(3))
        self.url = f"http://127.0.0.1:{ports.http}"
        self.grpc_target = f"127.0.0.1:{ports.grpc}"
        # MLServer makes folders in its working directory.
        scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pyfunc-"))
        self._log = Path(scratch, "server.log")
        env = {
            **LEAN_VARIABLES,
            **os.environ,
            "MLSERVER_HOST": "127.0.0.1",
            **ports.variables(),
            "MLSERVER_PARALLEL_WORKERS": "0",
            **environment_model(self.folder),
            **self._env,
        }
        start = _START.format(owner=os.getpid())
        command = [sys.executable, "-c", start, "start", str(self.folder.resolve())]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=scratch,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Jupyter interrupts a cell by a signal to the group of its kernel.
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @cached_property
    def model(self) -> Model:
        """The model that is served, by REST; the first one if there are several."""
        return self._stack.enter_context(connect(self.url, self.models[0]))

    def infer(self, inputs: Any = None, /, **named: Any) -> Any:
        """Calls the model: see `Model.infer`."""
        return self.model.infer(inputs, **named)

    def logs(self) -> str:
        """Returns what the server has written to its output so far."""
        return self._log.read_text(errors="replace")

    def stop(self) -> int | None:
        """Ends the server by SIGTERM, or SIGKILL after 15 s. Returns its exit code, or None."""
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

    def __enter__(self) -> Server:
        return self if self._process else self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        if self._process is None:
            return "Server(stopped)"
        return f"Server({', '.join(self.models)} at {self.url} and {self.grpc_target})"

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with closing(RestClient(self.url, timeout=5)) as client:
            while time.monotonic() < deadline:
                assert self._process is not None
                if self._process.poll() is not None:
                    raise ServerError(f"the server ended while it started:\n{self._last_lines()}")
                self.models = client.ready_models()
                if self.models:
                    return
                time.sleep(0.05)
        raise ServerError(
            f"the server was not ready after {START_SECONDS:g} s:\n{self._last_lines()}"
        )

    def _last_lines(self) -> str:
        lines = self.logs().splitlines()
        # The cause is logged once, before the many lines of the shutdown.
        causes = [line for line in lines[:-_LOG_LINES] if "failed to load: " in line]
        return "\n".join(causes[:1] + lines[-_LOG_LINES:])


def end_with(owner: int) -> None:
    """Ends this process soon after its parent. docs/architecture.md says what does not work."""

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
