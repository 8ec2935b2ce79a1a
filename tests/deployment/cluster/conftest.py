"""A fake cluster for each test, and the command line against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlserver_pyfunc.cli import main
from mlserver_pyfunc.deployment.cluster import waiting
from tests.needs import require
from tests.places import IRIS

from .fake_api import FakeCluster
from .fake_server import Served, kubeconfig

PROGRAM = str(Path(sys.executable).with_name("mlserver-pyfunc"))
IMAGE = "registry.example.com/iris:1"


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def served(cluster: FakeCluster) -> Iterator[Served]:
    require("CRD schemas")
    with Served(cluster) as found:
        yield found


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Cli:
    """`mlserver-pyfunc deploy`, for the example `iris`.

    Attributes:
        kubeconfig: Leads to the fake cluster.
    """

    kubeconfig: Path

    def run(self, platform: str, *args: object, folder: Path = IRIS) -> Said:
        """In a process of its own, as a user runs it."""
        command = [PROGRAM, *self._words(platform, folder, args)]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def call(self, platform: str, *args: object, folder: Path = IRIS) -> Said:
        """In this process, which is quicker."""
        done = CliRunner().invoke(
            main,
            self._words(platform, folder, args),
            env={"KUBECONFIG": str(self.kubeconfig)},
            prog_name="mlserver-pyfunc",
        )
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    def _words(self, platform: str, folder: Path, args: tuple[object, ...]) -> list[str]:
        return ["deploy", platform, str(folder), "--image", IMAGE, *map(str, args)]


@pytest.fixture
def cli(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig(served.url)))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(waiting, "SETTLE_SECONDS", 0.6)
    return Cli(path)
