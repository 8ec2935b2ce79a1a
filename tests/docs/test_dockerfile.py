"""The stock image's recipe, without building it: its rules, and the commands it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlserver_pyfunc.deployment.server_settings import free_ports
from tests.deployment.image.dockerfile import parse
from tests.places import ROOT

DOCKERFILE = ROOT / "Dockerfile"
MODELSERVER = ROOT / "examples" / "kubernetes" / "modelserver" / "Dockerfile"
BOTH = pytest.mark.parametrize("file", [DOCKERFILE, MODELSERVER], ids=["stock", "modelserver"])
TEXT = DOCKERFILE.read_text()
IMAGE = parse(TEXT)
BIN = Path(sys.executable).parent


@BOTH
def test_keeps_the_rules_of_hadolint(file: Path) -> None:
    lint = subprocess.run([BIN / "hadolint", file], capture_output=True, text=True, check=False)
    assert lint.returncode == 0, lint.stdout + lint.stderr


@BOTH
def test_builds_without_a_front_end_from_a_registry_and_on_old_engines(file: Path) -> None:
    assert "# syntax" not in file.read_text()
    assert "<<" not in file.read_text()


def test_runs_as_a_user_that_is_not_root() -> None:
    assert IMAGE.user == "1000:0"


def test_writes_to_tmp_only() -> None:
    variables = IMAGE.env
    folders = ["HOME", "MLSERVER_ENVIRONMENTS_DIR", "MLSERVER_METRICS_DIR", "MLSERVER_PYFUNC_CACHE"]
    assert all(variables[name].startswith("/tmp") for name in folders)


def test_copies_nothing_that_is_ignored() -> None:
    texts = TEXT + MODELSERVER.read_text()
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", texts, re.MULTILINE)
    admitted = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert {*" ".join(copied).split()} == {*admitted}
    assert all((ROOT / name).exists() for name in admitted)


@pytest.mark.server
def test_its_commands_serve_the_models_folder_and_tell_its_health(tmp_path: Path) -> None:
    """The image's variables, command and health check, run here with this Python."""
    rest, grpc, metrics = map(str, free_ports(3))
    variables = {
        **IMAGE.env,
        "PATH": f"{BIN}{os.pathsep}{IMAGE.env['PATH']}",
        "HOME": str(tmp_path),
        "MLSERVER_MODELS_DIR": str(ROOT / "examples" / "many"),
        "MLSERVER_HTTP_PORT": rest,
        "MLSERVER_GRPC_PORT": grpc,
        "MLSERVER_METRICS_PORT": metrics,
    }
    check, command = IMAGE.healthcheck, IMAGE.command
    healthy = [subprocess.run(check, env=variables, capture_output=True, check=False).returncode]
    with subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=-3, stderr=-3) as server:
        deadline = time.monotonic() + 120
        while healthy[-1] and time.monotonic() < deadline:
            time.sleep(0.5)
            done = subprocess.run(check, env=variables, capture_output=True, check=False)
            healthy.append(done.returncode)
        server.terminate()
        # The shell gives its place to the server: the signal reaches it.
        assert server.wait(timeout=60) == 0
    assert healthy[0] == 1
    assert healthy[-1] == 0
