"""The README's first command."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

pytestmark = pytest.mark.server


def test_demo_prints_the_answers_of_both_routes_and_ends_well() -> None:
    before = set(os.listdir(ROOT))
    demo = run_demo()
    assert demo.returncode == 0, demo.stderr
    lines = demo.stdout.splitlines()
    assert lines[0].endswith("mlserver start examples/iris")
    assert [line.split()[:2] for line in lines[2:]] == [
        ["REST", "setosa"],
        ["REST", "virginica"],
        ["gRPC", "setosa"],
        ["gRPC", "virginica"],
    ]
    assert "localhost" not in demo.stdout
    assert set(os.listdir(ROOT)) == before, "the demo left something in the clone"


def test_demo_asks_no_proxy_for_its_own_address() -> None:
    nobody = "http://127.0.0.1:9"
    demo = run_demo(http_proxy=nobody, https_proxy=nobody, no_proxy="", NO_PROXY="")
    assert demo.returncode == 0, demo.stderr


def test_demo_says_that_a_port_is_taken() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        demo = run_demo("--http", port)
    assert demo.returncode == 1
    assert demo.stderr == f"demo: port {port} is taken: give another, or none for a free one\n"


def test_demo_says_that_the_server_ended(tmp_path: Path) -> None:
    copy = copy_with_model("import no_such_module\n", tmp_path)
    demo = run_demo(folder=copy)
    assert demo.returncode == 1
    lines = demo.stderr.splitlines()
    ended = "demo: the server ended before the model was ready. The server's log says:"
    # A slow machine is told before that the demo still waits.
    log = lines[lines.index(ended) + 1 :]
    assert any("no_such_module" in line for line in log)


@pytest.mark.heavy
def test_demo_says_what_it_waits_for(tmp_path: Path) -> None:
    copy = copy_with_model("import time\ntime.sleep(600)\n", tmp_path)
    command = [sys.executable, "examples/demo.py"]
    with subprocess.Popen(command, cwd=copy, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        line = demo.stderr.readline()
        demo.send_signal(signal.SIGINT)
    assert line.startswith("demo: not ready yet, still waiting: ")


def copy_with_model(code: str, folder: Path) -> Path:
    """Copies the examples; the iris example runs `code` as it is imported."""
    shutil.copytree(ROOT / "examples", folder / "clone" / "examples")
    model = folder / "clone" / "examples" / "iris" / "model.py"
    model.write_text(code + model.read_text())
    return folder / "clone"


def run_demo(*arguments: str, folder: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "examples/demo.py", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
