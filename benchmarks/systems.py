"""The systems that are measured: how each is started, and its routes and models."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import psutil

from . import environments
from .processes import wait_until_up

SERVERS = Path(__file__).resolve().parent / "servers"
SERVER_CORE = "0"
LIMIT = str(256 << 20)
LEAN = {"debug": False, "gzip_enabled": False, "parallel_workers": 0, "metrics_endpoint": None}
ALL = ("w1", "w2", "w3", "w4")


@dataclass(frozen=True)
class System:
    """A system that is measured.

    Attributes:
        name: Name in the results.
        environment: Key of `environments.REQUIREMENTS`.
        command: Builds the command from the interpreter, the working folder and the ports.
        routes: Routes that it has.
        models: Workloads that it serves.
        variables: Environment variables besides the usual ones.
    """

    name: str
    environment: str
    command: Callable[[Path, Path, Ports], list[str]]
    routes: tuple[str, ...] = ("json", "binary", "typed", "raw")
    models: tuple[str, ...] = ALL
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ports:
    http: int
    grpc: int
    metrics: int


class Server:
    """A running system, in its own session on its own core. Paused while others are measured."""

    def __init__(self, system: System, folder: Path) -> None:
        self.system = system
        self.ports = Ports(*_free_ports())
        folder.mkdir(parents=True)
        interpreter = environments.python(system.environment)
        self._log = (folder / "log").open("wb")
        started = time.perf_counter()
        self.process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, *system.command(interpreter, folder, self.ports)],
            cwd=folder,
            env={
                **os.environ,
                **system.variables,
                "PATH": f"{interpreter.parent}:{os.environ['PATH']}",
                "MLSERVER_HTTP_PORT": str(self.ports.http),
                "MLSERVER_GRPC_PORT": str(self.ports.grpc),
                "MLSERVER_METRICS_PORT": str(self.ports.metrics),
                "MLSERVER_GRPC_MAX_MESSAGE_LENGTH": LIMIT,
            },
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_until_up(self.process, self._is_ready, folder / "log", 120)
        self.idle_mb = 0.0
        self.seconds_to_ready = time.perf_counter() - started

    def pause(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self.resume()
        os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for process in self.processes():
            process.kill()
        self._log.close()

    def processes(self) -> list[psutil.Process]:
        try:
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self) -> float:
        """Returns the CPU seconds that all its processes have used."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def memory(self, line: str) -> int:
        """Returns the bytes of all its processes by a line of /proc/PID/status, such as VmRSS."""
        total = 0
        for process in self.processes():
            status = Path(f"/proc/{process.pid}/status").read_text()
            total += next(int(row.split()[1]) for row in status.splitlines() if line in row)
        return total * 1024

    def _is_ready(self) -> bool:
        if "json" not in self.system.routes:
            channel = grpc.insecure_channel(f"127.0.0.1:{self.ports.grpc}")
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            try:
                call(b"", timeout=1)
            except grpc.RpcError:
                return False
            return True
        paths = [f"/v2/models/{name}/ready" for name in self.system.models]
        if self.system.environment in ("litserve", "bentoml"):
            paths = ["/health" if self.system.environment == "litserve" else "/readyz"]
        elif self.system.name == "bare-rest":
            paths = ["/"]
        return all(self._get(path) for path in paths)

    def _get(self, path: str) -> bool:
        url = f"http://127.0.0.1:{self.ports.http}{path}"
        try:
            with urllib.request.urlopen(url, timeout=1) as response:
                return bool(response.status == 200)
        except OSError:
            return False


def _free_ports() -> list[int]:
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _tensor(name: str, model: str) -> dict[str, object]:
    shapes = {"w1": [-1, 4], "w2": [-1, 150528 if name == "x" else 1000], "w3": [-1, 131072]}
    datatype = "BYTES" if model == "w4" else "FP32"
    tensor = {"name": name, "datatype": datatype, "shape": shapes.get(model, [-1])}
    return {**tensor, "content_type": "str"} if model == "w4" else tensor


HANDLERS = {"w1": "double", "w2": "head", "w3": "double", "w4": "upper"}


def _ours(model: str, handlers: Mapping[str, str] = HANDLERS) -> dict[str, object]:
    function = {
        "source": {
            "source": str(SERVERS / "functions.py"),
            "handler": handlers[model],
        },
        "inputs": [_tensor("x", model)],
        "outputs": [_tensor("y", model)],
        "serving": {"max_queue": 256},
    }
    return {
        "implementation": "mlserver_pyfunc.PyFuncRuntime",
        "parameters": {"extra": {"function": function}},
    }


def _on_kserve(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
    folders = [folder / name for name in ALL]
    for each in folders:
        each.mkdir()
        (each / "model-settings.json").write_text(
            json.dumps({"name": each.name, **_ours(each.name)})
        )
    given = ["--http_port", str(ports.http), "--grpc_port", str(ports.grpc)]
    return [str(interpreter), "-m", "mlserver_pyfunc.hosts.kserve", *map(str, folders), *given]


def _hand_written(model: str) -> dict[str, object]:
    name = "Upper" if model == "w4" else "Doubled"
    return {"implementation": f"numpy_runtime.{name}"}


def _mlserver(
    settings: dict[str, object], model_settings: Callable[[str], dict[str, object]]
) -> Callable[[Path, Path, Ports], list[str]]:
    def command(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
        models = folder / "models"
        for name in ALL:
            (models / name).mkdir(parents=True)
            text = json.dumps({"name": name, **model_settings(name)})
            (models / name / "model-settings.json").write_text(text)
        if settings:
            (models / "settings.json").write_text(json.dumps(settings))
        return [str(interpreter.parent / "mlserver"), "start", str(models)]

    return command


def _script(name: str, *options: str) -> Callable[[Path, Path, Ports], list[str]]:
    def command(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
        given = ["--http", str(ports.http), "--grpc", str(ports.grpc)]
        if name.startswith("kserve"):
            given = ["--http_port", str(ports.http), "--grpc_port", str(ports.grpc)]
        elif name.startswith("pytriton"):
            given += ["--metrics", str(ports.metrics)]
        elif name.startswith("bare_grpc"):
            given = given[2:]
        elif name.startswith(("litserve", "bare_rest")):
            given = given[:2]
        return [str(interpreter), str(SERVERS / name), *given, *options]

    return command


def _bento(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
    serve = [str(interpreter.parent / "bentoml"), "serve", "bento_service:Doubled"]
    return [*serve, "--working-dir", str(SERVERS), "--port", str(ports.http)]


def _constant(model: str) -> dict[str, object]:
    return {"implementation": "numpy_runtime.Constant"}


_hand_path = {"PYTHONPATH": str(SERVERS)}

SYSTEMS = {
    system.name: system
    for system in (
        System("pyfunc", "server", _mlserver(LEAN, _ours)),
        System(
            "pyfunc-async",
            "server",
            _mlserver(LEAN, partial(_ours, handlers={**HANDLERS, "w1": "double_async"})),
            models=("w1",),
        ),
        System("pyfunc-plain", "server", _mlserver({}, _ours)),
        System(
            "pyfunc-nofast",
            "server",
            _mlserver(LEAN, _ours),
            routes=("json", "typed", "raw"),
            variables={"MLSERVER_PYFUNC_FASTPATH": "0"},
        ),
        System(
            "numpy-lean",
            "server",
            _mlserver(LEAN, _hand_written),
            routes=("json", "typed", "raw"),
            variables=_hand_path,
        ),
        System(
            "numpy-w0",
            "server",
            _mlserver({"parallel_workers": 0}, _hand_written),
            routes=("json", "typed", "raw"),
            variables=_hand_path,
        ),
        System(
            "numpy-default",
            "server",
            _mlserver({}, _hand_written),
            routes=("json", "typed", "raw"),
            variables=_hand_path,
        ),
        System(
            "constant",
            "server",
            _mlserver(LEAN, _constant),
            routes=("json", "typed", "raw"),
            models=("w1",),
            variables=_hand_path,
        ),
        System(
            "pytriton",
            "pytriton",
            _script("pytriton_server.py"),
            routes=("json", "binary", "typed", "raw"),
        ),
        System("pytriton-batcher", "pytriton", _script("pytriton_server.py", "--batcher")),
        System("kserve", "kserve", _script("kserve_server.py")),
        System(
            "kserve-pyfunc",
            "kserve-pyfunc",
            _on_kserve,
            variables={"PYTHONPATH": str(environments.ROOT)},
        ),
        System(
            "litserve", "litserve", _script("litserve_server.py"), routes=("json",), models=("w1",)
        ),
        System("bentoml", "bentoml", _bento, routes=("json",), models=("w1",)),
        System("bare-rest", "server", _script("bare_rest.py"), routes=("json", "binary")),
        System("bare-grpc", "server", _script("bare_grpc.py"), routes=("typed", "raw")),
    )
}
