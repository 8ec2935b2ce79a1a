"""A real server for each model repository that the documentation and the examples show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.mlserver.process import ServerProcess, serving

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
