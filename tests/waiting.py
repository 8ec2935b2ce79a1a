"""Waits for what a test has started, as long as a slow machine may take."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object], what: object = "it did not come", seconds: float = 60
) -> None:
    """Waits for a condition. If it does not come in time, shows `what`, or what that returns."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.02)
