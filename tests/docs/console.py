"""Types the commands of a document's ```` ```console ```` blocks, and looks at what they print.

A command stands after `$ `; what it prints stands below, with `...` for anything in a line. A
command that ends with `&` is a server: it gets free ports, and the next command waits until its
models are ready. `kill %1` stops it.
"""

from __future__ import annotations

import contextlib
import math
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mlserver_pyfunc.client import CallError
from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.deployment.server_settings import free_ports

PORTS = (":8080", ":8081", ":8082", ":9080", ":9081")
"""Ports that documents name: REST, gRPC, metrics, and those of a proxy."""
READY_SECONDS = 300


def steps(document: str) -> list[tuple[str, str]]:
    """Each command of the console blocks, with what is to be seen of it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", document, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            count = next(i for i, line in enumerate(lines, 1) if not line.endswith("\\"))
            found.append(("\n".join(lines[:count]), "\n".join(lines[count:]).strip("\n")))
    return found


class Session:
    """A terminal in a folder, 120 columns wide, with at most one server behind it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        terminal = {"PATH": path, "COLUMNS": "120", "TERM": "xterm", "NO_COLOR": "1"}
        self.env = {**os.environ, **terminal, **variables}
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.server: subprocess.Popen[bytes] | None = None

    def type(self, command: str) -> str:
        """Runs a command, and returns what it shows."""
        if command == "kill %1":
            self.stop()
            return ""
        command = self._with_free_ports(command)
        if command.endswith("&"):
            self.serve(command[:-1])
            return ""
        return on_a_terminal(command, self.folder, self.env)

    def write(self, name: str, text: str) -> None:
        """Writes a file of the document."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._with_free_ports(text))

    def _with_free_ports(self, text: str) -> str:
        for port, free in self.ports.items():
            text = text.replace(port, f":{free}")
        return text

    def serve(self, command: str) -> None:
        self.stop()
        options = ("--port", "--grpc-port", "--metrics-port")
        ports = " ".join(f"{o} {p}" for o, p in zip(options, self.ports.values(), strict=False))
        command = ["sh", "-c", f"exec env {command} {ports}"]
        self.server = subprocess.Popen(command, cwd=self.folder, env=self.env)
        wait_until_ready(f"http://127.0.0.1:{self.ports[':8080']}", self.server)

    def stop(self) -> None:
        """Ends the server, which must end well."""
        if self.server is None:
            return
        server, self.server = self.server, None
        server.terminate()
        assert server.wait(60) == 0

    def replay(self, document: str) -> None:
        """Types all commands of a document, and compares what they show."""
        for command, expected in steps(document):
            shown = self.type(command)
            assert looks_like(shown, expected), f"$ {command}\n{shown}\nis not\n{expected}"


@contextlib.contextmanager
def session(folder: Path, **variables: str) -> Iterator[Session]:
    """A session whose server is gone at the end, whatever happened."""
    opened = Session(folder, **variables)
    try:
        yield opened
        opened.stop()
    finally:
        if opened.server is not None:
            opened.server.kill()
            opened.server.wait()


def on_a_terminal(command: str, folder: Path, env: dict[str, str]) -> str:
    """Runs a command with a terminal for output, and returns what it shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["sh", "-c", command], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=theirs,
        stderr=theirs, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    process.wait(60)
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")


def looks_like(shown: str, pattern: str) -> bool:
    """Compares line by line, whatever the spaces; `...` stands for anything."""
    lines, wanted = shown.strip().splitlines(), pattern.splitlines()
    return len(lines) == len(wanted) and all(map(_same, lines, wanted))


def _same(line: str, wanted: str) -> bool:
    expression = ".+".join(map(re.escape, " ".join(wanted.split()).split("...")))
    if re.fullmatch(expression, " ".join(line.split())):
        return True
    words, others = line.split(), wanted.split()
    return len(words) == len(others) and all(map(_near, words, others))


def _near(word: str, other: str) -> bool:
    """Two words are equal, or two fractions that differ as processors and libraries do."""
    both_are_fractions = all(re.fullmatch(r"-?\d+\.\d+", each) for each in (word, other))
    return word == other or (
        both_are_fractions and math.isclose(float(word), float(other), rel_tol=1e-3, abs_tol=1e-3)
    )


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, f"the server ended with {server.returncode}"
        with contextlib.suppress(CallError):
            states = [model["state"] for model in RestClient(url).models()]
            if states and set(states) == {"READY"}:
                return
        time.sleep(0.1)
    raise AssertionError("the server did not become ready")
