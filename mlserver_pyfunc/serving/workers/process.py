"""A worker's operating system process: its start and its end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .connection import Connection
from .log_reader import OutputReader
from .wire.messages import Kind, Message, WireError

_BOOTSTRAP = Path(__file__).parent / "child" / "bootstrap.py"
_MARK = "MLSERVER_PYFUNC_WORKER"
"""Environment variable that marks a worker and all processes that it starts."""

_SERVER_ONLY = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")

_MALLOC = {
    # glibc keeps freed blocks up to these sizes, so that the next result needs no new pages.
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
}


@dataclass(frozen=True)
class Exit:
    """How a process ended.

    Attributes:
        reason: Reason in one word, for the metrics.
        text: Rest of a sentence about the process, such as `was killed by SIGSEGV`.
    """

    reason: str
    text: str


class WorkerProcess:
    """One worker process. All methods are for the event loop's thread.

    Attributes:
        pid: Process id.
        alive: Whether the exit has not been reported yet.
        connection: Connection to the process.

    Args:
        python: Interpreter to start.
        on_message: Called with each message that arrives, by the message's kind.
        on_exit: Called once, after the last message, with how the process ended.
        on_line: Called with each line that the process prints.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(
        self,
        python: Path,
        on_message: Mapping[Kind, Callable[[Message], None]],
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
        """The last lines that the process printed."""
        return self._output.last_lines

    def kill(self, reason: str, text: str) -> None:
        """Kills the process and its process group at once.

        Args:
            reason: Reason for `Exit.reason`.
            text: Text for `Exit.text`.
        """
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
                # A process group of its own can be killed as a whole, and gets no Ctrl-C.
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        # The thread in `_wait` waits for the exit. With a return code set, Popen does not warn
        # that the process still runs.
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
        """Waits for the exit on a thread of its own.

        The problem: the server must know soon that a worker died, and how. asyncio's child
        watchers do not work: they need SIGCHLD, which belongs to the host. MLServer's handler
        of it waits for any child, so it takes the exit status of our workers too (`waitpid(-1)`
        in `mlserver/parallel/registry.py`). Polling does not work: the status may be gone.

        The solution: a thread blocks in `os.waitpid(pid)` from the start, so that it is usually
        the first to get the status. If the host was faster, the exit is reported without it.
        """
        try:
            _, status = os.waitpid(self.pid, 0)
            exit_ = _exit(status)
        except ChildProcessError:
            exit_ = Exit("exit", "exited (another part of the server took its exit status)")
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
    """Kills processes of a worker that left its process group: they still have its mark."""
    needle = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
