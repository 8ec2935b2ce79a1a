"""What fetches share: limits, attempts after failures, and progress on a terminal or in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import SourceError

if TYPE_CHECKING:
    import tenacity

ATTEMPTS = 4

# MLServer configures only loggers below its own name.
logger = logging.getLogger("mlserver.pyfunc")

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 5.0


class TransientError(SourceError):
    """The network failed in a way that is likely to pass."""


def retrying(deadline: float) -> tenacity.Retrying:
    """Returns a caller that tries again after a `TransientError`, with growing pauses.

    No attempt starts after `deadline` (monotonic clock). The error of the last one is raised.
    """
    # Imported here: a server seldom fetches.
    import tenacity

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(ATTEMPTS)
        | tenacity.stop_after_delay(max(0.0, deadline - time.monotonic())),
        wait=tenacity.wait_random_exponential(multiplier=0.25, max=8),
        reraise=True,
    )


class Progress(AbstractContextManager["Progress"]):
    """Shows how far a fetch is, and stops it at its limits; a short fetch shows nothing."""

    def __init__(self, what: str, unit: str = "bytes") -> None:
        self.deadline = time.monotonic() + settings.fetch_timeout()
        self._limit = settings.max_source_size() if unit == "bytes" else sys.maxsize
        self._total = 0
        self._what = what
        self._unit = unit
        self._done = 0
        self._rows = Rows(logger.info)
        self._interval = _TERMINAL_SECONDS if self._rows.are_drawn else _LOG_SECONDS
        self._next = time.monotonic() + self._interval

    def __exit__(self, *error: object) -> None:
        self._rows.close()

    def expect(self, total: int) -> None:
        self._total = total
        if total > self._limit:
            raise SourceError(f"expected at most {self._limit} bytes, got {total}")

    def reach(self, done: int) -> None:
        self._done = done
        now = time.monotonic()
        if done > self._limit:
            raise SourceError(f"expected at most {self._limit} bytes, got more")
        if now > self.deadline:
            raise late()
        if now >= self._next:
            self._next = now + self._interval
            self._rows.show(self._what, self._amount())

    def _amount(self) -> str:
        if self._unit != "bytes":
            of = f" of {self._total}" if self._total else ""
            return f"{self._done}{of} {self._unit}"
        of = f" of {self._total / 2**20:.1f}" if self._total else ""
        return f"{self._done / 2**20:.1f}{of} MiB"


def late() -> SourceError:
    """Says that a fetch takes longer than it may."""
    return SourceError(f"expected to be fetched in {settings.fetch_timeout():g} s, gave up")


class Rows:
    """Shows on standard error what several tasks are doing, one row per task.

    The rows vanish when they are closed. Where there is no terminal, `tell` gets a line for each
    change.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self.are_drawn = sys.stderr.isatty()
        self._tell = tell
        self._texts: dict[str, str] = {}
        self._tasks: dict[str, Any] = {}
        self._progress: Any = None

    def show(self, name: str, text: str, *, is_done: bool = False) -> None:
        """Sets what one task is doing now; the same text again shows nothing."""
        if self._texts.get(name) == text:
            return
        self._texts[name] = text
        if not self.are_drawn:
            self._tell(f"{name}: {text}")
            return
        self._progress = self._progress or _started()
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1, text=text)
        # Rich never takes back that a task is finished, but an object of a cluster can be ready
        # and then not ready: reset does take it back.
        self._progress.reset(self._tasks[name], total=1, text=text)
        self._progress.update(self._tasks[name], completed=int(is_done))

    def close(self) -> None:
        if self._progress:
            self._progress.stop()


def _started() -> Any:
    # Imported here: a server without a terminal needs no Rich.
    from rich import progress
    from rich.console import Console

    shown = progress.Progress(
        progress.SpinnerColumn(finished_text="[green]✓"),
        progress.TextColumn("{task.description}", style="bold", markup=False),
        progress.TextColumn("{task.fields[text]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        # Rich would replace sys.stdout and sys.stderr of the whole process, in which a function
        # may be loading that keeps what it finds there.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    shown.start()
    return shown
