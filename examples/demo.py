"""Serves examples/iris, calls it over REST and gRPC, prints the answers, and stops.

    python examples/demo.py [--http PORT] [--grpc PORT]

Takes free ports unless ports are given.
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
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
# A name such as localhost may not resolve, or may resolve to an address nobody listens on.
HOST = "127.0.0.1"
EXPLAIN_SECONDS = 20
READY_SECONDS = 120
ANSWER_SECONDS = 60


class DemoError(Exception):
    """The demo cannot go on; says why."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Serves examples/iris and calls it once.")
    parser.add_argument("--http", type=int, default=0, metavar="PORT", help="default: a free one")
    parser.add_argument("--grpc", type=int, default=0, metavar="PORT", help="default: a free one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "w+") as log:
        try:
            ports = bindable_ports(arguments.http, arguments.grpc, 0)
            # The server writes `.envs` and `.metrics` there, not into the clone.
            server = start_server(ports, Path(folder), log)
            try:
                wait_until_ready(server, ports[0], Path(log.name))
                return call(ports[0], ports[1])
            finally:
                stop(server)
        except DemoError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130


def bindable_ports(*wanted: int) -> list[int]:
    """Finds a free port for each 0, and checks that the others are free.

    Raises:
        DemoError: A port is taken.
    """
    with contextlib.ExitStack() as stack:
        return [bindable_port(port, stack) for port in wanted]


def bindable_port(port: int, stack: contextlib.ExitStack) -> int:
    listener = stack.enter_context(socket.socket())
    try:
        listener.bind((HOST, port))
    except OverflowError:
        raise DemoError(f"expected a port up to 65535, got {port}") from None
    except PermissionError:
        raise DemoError(f"port {port} is not for this user: give one above 1023") from None
    except OSError:
        raise DemoError(f"port {port} is taken: give another, or none for a free one") from None
    chosen: int = listener.getsockname()[1]
    return chosen


def start_server(numbers: list[int], folder: Path, log: IO[str]) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("mlserver")), "start", "examples/iris"]
    names = ("MLSERVER_HTTP_PORT", "MLSERVER_GRPC_PORT", "MLSERVER_METRICS_PORT")
    addresses = {"MLSERVER_HOST": HOST, **dict(zip(names, map(str, numbers), strict=True))}
    show(["mlserver", "start", "examples/iris"], addresses)
    folders = {
        "MLSERVER_ENVIRONMENTS_DIR": str(folder / "envs"),
        "MLSERVER_METRICS_DIR": str(folder / "metrics"),
    }
    environment = {**os.environ, **addresses, **folders}
    try:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    except OSError as error:
        raise DemoError(f"cannot start {command[0]}: {error.strerror}; try make setup") from None


def wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Waits for the model. Says after 20 s what it waits for, and after 120 s gives up.

    Raises:
        DemoError: The server ended, or the model is still not ready.
    """
    started = time.monotonic()
    explained = False
    while (state := state_of_model(port)) is not None:
        waited = time.monotonic() - started
        if server.poll() is not None:
            raise DemoError(f"the server ended before the model was ready. {say(log)}")
        if waited > READY_SECONDS:
            raise DemoError(f"not ready after {READY_SECONDS} s: {state}. {say(log)}")
        if waited > EXPLAIN_SECONDS and not explained:
            explained = True
            print(f"demo: not ready yet, still waiting: {state}. {say(log)}", file=sys.stderr)
        time.sleep(0.1)


def state_of_model(port: int) -> str | None:
    """Returns why the model cannot be called; None if it can."""
    url = f"http://{HOST}:{port}/v2/models/iris/ready"
    # Not by urllib, which would ask a proxy of the environment for this address.
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/v2/models/iris/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {url}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == 200 else f"{url} answers {status}"


def say(log: Path) -> str:
    """Returns the errors in the server's log, or its end if there are none."""
    lines = log.read_text(errors="replace").splitlines()
    found = [line for line in lines if " ERROR " in line] or lines[-20:]
    return "\n".join(["The server's log says:", *found]) if found else "The server's log is empty."


def call(rest: int, grpc: int) -> int:
    client = ["examples/iris/client.py", "--http", f"{HOST}:{rest}", "--grpc", f"{HOST}:{grpc}"]
    show(["python", *client], {})
    command = [sys.executable, *client]
    environment = {**os.environ, "no_proxy": HOST, "NO_PROXY": HOST}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        raise DemoError(f"the client got no answer in {ANSWER_SECONDS} s") from None
    return done.returncode


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
