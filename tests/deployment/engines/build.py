"""`mlserver-pyfunc build`, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .engines import Engine
from .functions import Case

PROGRAM = Path(sys.executable).with_name("mlserver-pyfunc")


@dataclass(frozen=True)
class Built:
    """An image, of which function, and how long it took to build."""

    case: Case
    folder: Path
    tag: str
    seconds: float
    said: str


def build(engine: Engine, case: Case, folder: Path, *options: str, name: str = "") -> Built:
    """Builds a case's function. Options are the command's."""
    for version in case.bases:
        engine.base(version)
    tag = f"localhost/pyfunc-tests/{name or case.name}:{engine.name}"
    started = time.monotonic()
    done = run(engine, folder, "--tag", tag, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return Built(case, folder, tag, time.monotonic() - started, done.stdout + done.stderr)


def build_fails(engine: Engine, folder: Path, *options: str) -> str:
    """Builds what cannot be built; returns what was said."""
    done = run(engine, folder, "--tag", "localhost/pyfunc-tests/none:1", *options)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def run(engine: Engine, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "build", folder, "--engine", engine.name, *options],
        env=engine.env,
        capture_output=True,
        text=True,
        check=False,
    )
