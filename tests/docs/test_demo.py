"""The README's first command."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.places import ROOT

pytestmark = pytest.mark.server


def test_demo_prints_the_answers_of_both_routes_and_ends_well() -> None:
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


def test_demo_says_that_a_port_is_taken() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        demo = run_demo("--http", port)
    assert demo.returncode == 1
    assert demo.stderr == f"demo: port {port} is taken: give another, or none for a free one\n"


def test_demo_leaves_the_clone_as_it_was() -> None:
    before = set(os.listdir(ROOT))
    run_demo()
    assert set(os.listdir(ROOT)) == before


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "examples/demo.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=320, check=False
    )
