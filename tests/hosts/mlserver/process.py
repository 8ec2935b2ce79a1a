"""A real `mlserver start` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from mlserver_pyfunc.deployment.server_settings import free_ports

START_SECONDS = 120.0
PORTS = ("MLSERVER_HTTP_PORT", "MLSERVER_GRPC_PORT", "MLSERVER_METRICS_PORT")


class ServerProcess:
    """MLServer with its defaults, on free ports, serving a folder.

    Args:
        folder: The model repository.
        work: Where it runs and writes its log.
        env: More environment variables.
        python: Whose `mlserver` it is.
        prefix: A command that runs it, with its own command as arguments.
        command: `mlserver start`, or our own `serve`.
    """

    def __init__(
        self,
        folder: Path,
        work: Path,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        prefix: Sequence[str] = (),
        command: str = "mlserver start",
    ) -> None:
        program, verb = command.split()
        self._command = [*prefix, str(Path(python).with_name(program)), verb, str(folder)]
        self._work = work
        self._log_file = work / "server.log"
        ports = free_ports(len(PORTS))
        if verb == "serve":
            for option, port in zip(
                ("--port", "--grpc-port", "--metrics-port"), ports, strict=True
            ):
                self._command += [option, str(port)]
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("MLSERVER_")},
            **{name: str(port) for name, port in zip(PORTS, ports, strict=True)},
            "MLSERVER_HOST": "127.0.0.1",
            **(env or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._address(ports[0], ports[1])
        self.metrics_port = ports[2]

    def _address(self, http: int, grpc: int) -> None:
        self.rest_address = f"127.0.0.1:{http}"
        self.url = f"http://{self.rest_address}"
        self.grpc_address = f"127.0.0.1:{grpc}"
        self.client = httpx.Client(
            base_url=self.url,
            timeout=60,
            # Less than the 5 s after which the server closes an idle connection.
            limits=httpx.Limits(keepalive_expiry=2),
        )

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._work,
                env=self._env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self, *models: str) -> None:
        """Waits for the models themselves: /v2/health/ready is true of an empty server too."""
        deadline = time.monotonic() + START_SECONDS
        waiting = list(models)
        while waiting:
            if not self.running:
                raise AssertionError(f"the server ended before it was ready:\n{self.log}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not ready after {START_SECONDS:g} s: {waiting}\n{self.log}")
            if self.is_ready(waiting[0]):
                waiting.pop(0)
            else:
                time.sleep(0.05)

    def is_ready(self, model: str) -> bool:
        try:
            return self.client.get(f"/v2/models/{model}/ready").status_code == 200
        except httpx.TransportError:
            return False

    def wait_for_log(self, text: str, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.log}"
            time.sleep(0.05)

    def wait_for_end(self, seconds: float = START_SECONDS) -> int:
        """Waits for the process to end of its own accord; returns its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:g} s:\n{self.log}") from None

    def terminate(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """Sends SIGINT, as Ctrl-C does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def stop(self, seconds: float = START_SECONDS) -> int:
        """Ends it by SIGTERM; returns its exit code."""
        self.terminate()
        return self.wait_for_end(seconds)

    def close(self) -> None:
        """Leaves nothing running, not even workers that the server lost."""
        self.client.close()
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


P = TypeVar("P", bound=ServerProcess)


@contextlib.contextmanager
def running(server: P, *models: str) -> Iterator[P]:
    """A server that is ready for `models`, gone at the end whatever the test did to it."""
    server.start()
    try:
        server.wait_until_ready(*models)
        yield server
    finally:
        server.close()


def serving(
    folder: Path, work: Path, *models: str, **options: Any
) -> contextlib.AbstractContextManager[ServerProcess]:
    """A server with options of `ServerProcess`, while it is running."""
    return running(ServerProcess(folder, work, **options), *models)
