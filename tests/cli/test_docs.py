"""What the documents show is what happens."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlserver_pyfunc.client import CallError
from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.deployment.server_settings import free_ports
from tests.places import DOCS

sys.path.insert(0, str(DOCS))
from reference import reference


def test_the_reference_is_the_commands_own():
    written = (DOCS / "cli.md").read_text()
    assert written == reference(), "out of date: run `make docs` and commit the file"


def steps(document):
    """Each command of the console blocks, with what is to be seen of it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", document, re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            found.append((command, shown.strip("\n")))
    return found


def on_a_terminal(command, cwd, env):
    """Runs a command with a terminal for output, 120 columns wide, and gives what it shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["sh", "-c", command], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=theirs,
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


def looks_like(shown, pattern):
    lines = [" ".join(line.split()) for line in shown.strip().splitlines()]
    wanted = [" ".join(line.split()) for line in pattern.splitlines()]
    expressions = [".+".join(map(re.escape, line.split("..."))) for line in wanted]
    return len(lines) == len(wanted) and all(
        re.fullmatch(expression, line) for expression, line in zip(expressions, lines, strict=True)
    )


@pytest.mark.server
@pytest.mark.needs("curl")
def test_the_quick_start_replays(tmp_path):
    rest, grpc, metrics = free_ports(3)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "COLUMNS": "120", "TERM": "xterm", "NO_COLOR": "1"}
    servers = []
    try:
        for command, expected in steps((DOCS / "quickstart.md").read_text()):
            command = command.replace(":8080", f":{rest}").replace(":8081", f":{grpc}")
            if command.endswith("&"):
                ports = f"--port {rest} --grpc-port {grpc} --metrics-port {metrics}"
                argv = f"exec {command[:-1]} {ports}"
                servers.append(subprocess.Popen(["sh", "-c", argv], cwd=tmp_path, env=env))
                wait_for(f"http://127.0.0.1:{rest}")
                continue
            shown = on_a_terminal(command, tmp_path, env)
            assert looks_like(shown, expected), f"$ {command}\n{shown}\nis not\n{expected}"
    finally:
        for server in servers:
            server.terminate()
            server.wait(60)
    assert len(servers) == 1
    assert servers[0].returncode == 0
    for file in ("hello/function.lock", "openapi.json", "hello_client.py"):
        assert (tmp_path / file).is_file()


def wait_for(url):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if any(model["state"] == "READY" for model in RestClient(url).models()):
                return
        except CallError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server did not become ready")


@pytest.mark.server
def test_the_examples_of_testing_md_pass(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "testing.md").read_text(), re.S)
    # A setting of the whole module stands first, as in any other.
    (tmp_path / "test_hello.py").write_text("import pytest\n" + "\n".join(blocks))
    program = Path(sys.executable).with_name("mlserver-pyfunc")
    subprocess.run([program, "init", "hello"], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", ".", "-c", "/dev/null"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout
