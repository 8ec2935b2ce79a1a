"""Each extra installs beside the others and by itself, on each Python that MLServer supports.

All pairs take long: `MLSERVER_PYFUNC_TESTS_INSTALLS=all` tests them, and by default each extra is
tested on the serving Python, and nothing and everything on the others of this machine.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import httpx
import pytest

from mlserver_pyfunc.cli import main as cli
from mlserver_pyfunc.environments.uv import find_python, find_uv
from tests import needs

EXTRAS = [
    name
    for name in metadata("mlserver-pyfunc").get_all("Provides-Extra") or ()
    if name not in ("dev", "docs")
]
CHOICES = {"nothing": [], **{name: [name] for name in EXTRAS}, "everything": EXTRAS}
OTHERS = [v for v in ("3.10", "3.11", "3.12") if v != needs.HERE and needs.has_python(v)]
ALL = os.environ.get("MLSERVER_PYFUNC_TESTS_INSTALLS") == "all"
PAIRS = [(needs.HERE, choice) for choice in CHOICES] + [
    (version, choice)
    for version in OTHERS
    for choice in (CHOICES if ALL else ("nothing", "everything"))
]
MODEL = "def double(x):\n    return x * 2\n"
DEFINITION = """model_name: double
source: {source: ., handler: model:double}
inputs: [{name: x, datatype: FP32, shape: [-1]}]
outputs: [{name: y, datatype: FP32, shape: [-1]}]
"""


@pytest.mark.heavy
@pytest.mark.server
@pytest.mark.parametrize(("version", "choice"), PAIRS)
def test_an_installation_is_whole(version: str, choice: str, wheel: Path, tmp_path: Path) -> None:
    programs = _installed(version, f"{wheel}[{','.join(CHOICES[choice])}]", tmp_path / "venv")
    _run(programs / "python", "-c", "import tritonclient.grpc, tritonclient.http")
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "function.yaml").write_text(DEFINITION)
    tool = programs / "mlserver-pyfunc"
    for command in cli.commands:
        assert f"mlserver-pyfunc {command}" in _run(tool, command, "--help")
    _run(tool, "validate", ".", cwd=tmp_path)
    assert "2  4" in _run(tool, "run", ".", "-i", "x=[1, 2]", cwd=tmp_path)
    json.loads(_run(tool, "openapi", ".", cwd=tmp_path))
    image = "registry.example/runtime:1"
    assert image in _run(tool, "manifest", "kubernetes", ".", "--image", image, cwd=tmp_path)
    _serve(tool, tmp_path)


def _installed(version: str, requirement: str, folder: Path) -> Path:
    python = sys.executable if version == needs.HERE else find_python(version)
    programs = folder / "bin"
    _run(find_uv(), "venv", "--quiet", "--python", python, folder)
    into = ("--python", programs / "python")
    _run(find_uv(), "pip", "install", "--quiet", "--compile-bytecode", *into, requirement)
    _run(find_uv(), "pip", "check", *into)
    return programs


def _run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def _serve(tool: Path, folder: Path) -> None:
    ports = [f"--{kind}port=0" for kind in ("", "grpc-", "metrics-")]
    process = subprocess.Popen(
        [tool, "serve", ".", *ports], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        log = ""
        while not (url := re.search(r"^ *REST +(\S+)$", log, re.M)):
            line = process.stdout.readline()
            assert line, f"the server has ended: {log}"
            log += line
        sent = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.5]}
        answer = httpx.post(url[1], json={"inputs": [sent]}, timeout=60)
        assert answer.json()["outputs"][0]["data"] == [3.0], answer.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
