"""Serves examples/iris, asks it over REST and gRPC, prints what came back, and stops.

    python examples/demo.py [--http PORT] [--grpc PORT]

Free ports are taken unless ports are given.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description="Serves examples/iris and asks it once.")
    parser.add_argument("--http", type=int, default=0, metavar="PORT", help="default: a free one")
    parser.add_argument("--grpc", type=int, default=0, metavar="PORT", help="default: a free one")
    arguments = parser.parse_args()
    try:
        ports = bindable_ports(arguments.http, arguments.grpc, 0)
    except OSError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "w+") as log:
        # The server's own folder for files: `.envs` and `.metrics` stay out of the clone.
        server = start_server(ports, Path(folder), log)
        try:
            return ask(server, ports[0], ports[1], log)
        finally:
            stop(server)


def bindable_ports(*wanted: int) -> list[int]:
    """Finds a free port for each 0, and checks that the others are free.

    Raises:
        OSError: A port is taken.
    """
    with contextlib.ExitStack() as stack:
        return [bindable_port(port, stack) for port in wanted]


def bindable_port(port: int, stack: contextlib.ExitStack) -> int:
    listener = stack.enter_context(socket.socket())
    try:
        listener.bind(("0.0.0.0", port))
    except OverflowError:
        raise OSError(f"expected a port up to 65535, got {port}") from None
    except PermissionError:
        raise OSError(f"port {port} is not for this user: give one above 1023") from None
    except OSError:
        raise OSError(f"port {port} is taken: give another, or none for a free one") from None
    chosen: int = listener.getsockname()[1]
    return chosen


def start_server(numbers: list[int], folder: Path, log: IO[str]) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("mlserver")), "start", "examples/iris"]
    names = ("MLSERVER_HTTP_PORT", "MLSERVER_GRPC_PORT", "MLSERVER_METRICS_PORT")
    ports = dict(zip(names, map(str, numbers), strict=True))
    show(["mlserver", "start", "examples/iris"], ports)
    folders = {
        "MLSERVER_ENVIRONMENTS_DIR": str(folder / "envs"),
        "MLSERVER_METRICS_DIR": str(folder / "metrics"),
    }
    environment = {**os.environ, **ports, **folders}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def ask(server: subprocess.Popen[bytes], rest: int, grpc: int, log: IO[str]) -> int:
    if not becomes_ready(server, rest):
        log.seek(0)
        late = f"the model is not ready after {READY_SECONDS} s, on a busy machine try again"
        reason = late if server.poll() is None else "the server ended before the model was ready"
        print(f"demo: {reason}:\n{log.read()}", file=sys.stderr)
        return 1
    client = ["examples/iris/client.py", "--http", f"localhost:{rest}"]
    client += ["--grpc", f"localhost:{grpc}"]
    show(["python", *client], {})
    return subprocess.run([sys.executable, *client], cwd=ROOT, check=False).returncode


def becomes_ready(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://localhost:{port}/v2/models/iris/ready", timeout=5)
            return True
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
    return False


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def show(command: list[str], environment: dict[str, str]) -> None:
    assignments = [f"{name}={value}" for name, value in environment.items()]
    print("$", *assignments, shlex.join(command), flush=True)


if __name__ == "__main__":
    sys.exit(main())
