"""Waits for programs that a benchmark has started."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait_until_up(
    process: subprocess.Popen[Any], is_up: Callable[[], bool], log: Path, seconds: float = 60
) -> None:
    """Waits until a program is up. Raises a RuntimeError with the end of its log if it is not."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if is_up():
            return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args} did not start:\n{log.read_text()[-3000:]}")
