"""A real server for each model repository that the documentation and the examples show."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlserver_pyfunc.environments.uv import find_uv
from tests.client.playground.conftest import browser as browser
from tests.hosts.mlserver.process import ServerProcess, serving
from tests.places import ROOT

Serve = Callable[..., ServerProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers as `serving` does; stops them after the test."""
    with contextlib.ExitStack() as stack:

        def start(folder: Path, *models: str, **options: Any) -> ServerProcess:
            work = tmp_path / "work"
            work.mkdir(exist_ok=True)
            return stack.enter_context(serving(folder, work, *models, **options))

        yield start


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is released."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [find_uv(), "build", "--wheel", "--quiet", "--out-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    (path,) = folder.glob("*.whl")
    return path
