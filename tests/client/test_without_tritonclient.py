"""Calls by gRPC without tritonclient: one line says how to install it."""

import os
import subprocess
import sys

import pytest

HOW = "pip install 'mlserver-pyfunc[client]'"


@pytest.fixture(autouse=True)
def without_tritonclient(tmp_path, monkeypatch):
    """Each process that this one starts fails to import tritonclient."""
    (tmp_path / "tritonclient.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'tritonclient'\", name='tritonclient')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    # multiprocessing gives its processes this one's path, whatever the environment says.
    monkeypatch.syspath_prepend(tmp_path)


def test_infer_says_how_to_install_it():
    program = "from mlserver_pyfunc.cli import main; main()"
    arguments = ["infer", "127.0.0.1:1", "--grpc", "-m", "m"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert HOW in done.stderr
