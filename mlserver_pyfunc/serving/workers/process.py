"""A worker process as the server sees it: start, messages, death."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .connection import Connection
from .log_reader import OutputReader
from .wire.messages import Message, WireError

_BOOTSTRAP = Path(__file__).parent / "child" / "bootstrap.py"
_MARK = "MLSERVER_PYFUNC_WORKER"
"""Environment variable by which processes that a worker left behind are found."""

_SERVER_ONLY = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")

_MALLOC = {
    # Freed blocks of this size stay with the worker: its next result needs no new pages.
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
}


@dataclass(frozen=True)
class Exit:
    """Why a process ended.

    Attributes:
        reason: One word, for metrics.
        text: What it did, for messages: `was killed by SIGSEGV`.
    """

    reason: str
    text: str


class WorkerProcess:
    """One process. All methods are for the event loop's thread.

    Attributes:
        pid: Its number.
        alive: Its exit has not been told yet.
        connection: To it.

    Args:
        python: The interpreter to start.
        on_message: Takes each message that comes.
        on_exit: Takes the cause, once, after the last message.
        on_line: Takes each line that the process prints.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(
        self,
        python: Path,
        on_message: Callable[[Message], None],
        on_exit: Callable[[Exit], None],
        on_line: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self._killed_for: Exit | None = None
        self._mark = secrets.token_hex(16)
        self.connection = Connection(on_message, self._on_protocol_error)
        try:
            self.pid = self._start(python, on_line)
        except BaseException:
            self.connection.abandon()
            raise
        self.alive = True
        self.connection.start()
        threading.Thread(target=self._wait, name=f"pyfunc-wait-{self.pid}", daemon=True).start()

    @property
    def last_lines(self) -> Sequence[str]:
        """The last that the process printed."""
        return self._output.last_lines

    def kill(self, reason: str, text: str) -> None:
        """Ends the process and what it started, now. `on_exit` gets the reason."""
        if self.alive:
            self._killed_for = self._killed_for or Exit(reason, text)
            _kill_group(self.pid)

    def _start(self, python: Path, on_line: Callable[[str], None]) -> int:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(
                [str(python), "-I", str(_BOOTSTRAP), *map(str, self.connection.passed)],
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                pass_fds=self.connection.passed,
                env=self._environment(python),
                # A group of its own, which is killed whole and gets no Ctrl-C of the terminal's.
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        # Waiting is done by a thread; Popen must not warn about it.
        process.returncode = 0
        self._output = OutputReader(reading, on_line)
        return process.pid

    def _environment(self, python: Path) -> dict[str, str]:
        environment = {k: v for k, v in os.environ.items() if k not in _SERVER_ONLY}
        environment[_MARK] = self._mark
        environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
        for name, value in _MALLOC.items():
            environment.setdefault(name, value)
        return environment

    def _wait(self) -> None:
        """Waits for the exit: on a thread, since SIGCHLD is the host's, and as the first to
        wait, since the host may take the status of any child."""
        try:
            _, status = os.waitpid(self.pid, 0)
            exit_ = _exit(status)
        except ChildProcessError:
            exit_ = Exit("exit", "exited (its status was taken by another part of the server)")
        _kill_group(self.pid)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._exited, exit_)
        _kill_marked(self._mark)

    def _exited(self, exit_: Exit) -> None:
        if not self.alive:
            return
        self.connection.close()
        self.alive = False
        self._output.close()
        self._on_exit(self._killed_for or exit_)

    def _on_protocol_error(self, error: WireError) -> None:
        self.kill("protocol", f"was stopped: {error}")


def _exit(status: int) -> Exit:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return Exit("exit", f"exited with code {code}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    note = " (the kernel sends it when memory runs out)" if name == "SIGKILL" else ""
    return Exit("signal", f"was killed by {name}{note}")


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _kill_marked(mark: str) -> None:
    """Ends processes that left the worker's group: they still carry its mark."""
    needle = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
