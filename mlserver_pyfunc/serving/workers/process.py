"""A worker's operating system process: its start and its end."""

from __future__ import annotations

import asyncio
import codecs
import os
import secrets
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlserver_pyfunc import settings
from mlserver_pyfunc.handler.context import DEVICE

from .connection import Connection
from .wire.messages import Kind, Message

_BOOTSTRAP = Path(__file__).parent / "child" / "bootstrap.py"
_MARK = "MLSERVER_PYFUNC_WORKER"
"""Environment variable that marks a worker and all processes that it starts."""

_SERVER_ONLY = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")

# NVIDIA's, AMD's and Intel's. ROCR_VISIBLE_DEVICES would renumber what HIP's variable counts.
_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")

_MALLOC = {
    # glibc keeps freed blocks up to these sizes, so that the next result needs no new pages.
    "MALLOC_MMAP_THRESHOLD_": str(settings.MALLOC_MMAP_THRESHOLD),
    "MALLOC_TRIM_THRESHOLD_": str(settings.MALLOC_TRIM_THRESHOLD),
}

LINE_CHARS = 8000
"""Longest line, in characters. A longer line is split."""

KEPT_LINES = 100
"""Number of last lines that are kept, to explain why a worker died."""

_CHUNK = 64 * 1024
_LAST_CHUNKS = 64
_PAUSE = 0.01
"""Pause in seconds after a full chunk. A flood of output blocks the worker, not the server."""


@dataclass(frozen=True)
class Exit:
    """How a process ended. The text ends a sentence about it, such as `was killed by SIGSEGV`."""

    reason: str
    text: str


class WorkerProcess:
    """One worker process. All methods are for the event loop's thread.

    `pid` is that of its guardian, which ends as the process does. Nobody else has this id while
    the process is `alive`: until its exit is reported, once, after its last message.
    """

    def __init__(
        self,
        python: Path,
        on_message: Mapping[Kind, Callable[[Message], None]],
        on_exit: Callable[[Exit], None],
        on_line: Callable[[str], None],
        devices: Sequence[int] = (),
    ) -> None:
        self._devices = devices
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self._killed_for: Exit | None = None
        self._mark = secrets.token_hex(16)
        self.connection = Connection(
            on_message, lambda error: self.kill("protocol", f"was stopped: {error}")
        )
        try:
            self.pid = self._start(python, on_line)
        except BaseException:
            self.connection.abandon()
            raise
        self.alive = True
        self.connection.start()
        threading.Thread(target=self._wait, name=f"pyfunc-wait-{self.pid}", daemon=True).start()

    def kill(self, reason: str, text: str) -> None:
        if self.alive:
            self._killed_for = self._killed_for or Exit(reason, text)
            # Its guardian kills them.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def _start(self, python: Path, on_line: Callable[[str], None]) -> int:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(
                [python, "-I", _BOOTSTRAP, *map(str, self.connection.passed), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                pass_fds=self.connection.passed,
                env=self._environment(python),
                # A session of its own gets no Ctrl-C.
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
        self.output = OutputReader(reading, on_line)
        return process.pid

    def _environment(self, python: Path) -> dict[str, str]:
        environment = {k: v for k, v in os.environ.items() if k not in _SERVER_ONLY}
        environment[_MARK] = self._mark
        environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
        if not settings.chosen_malloc(environment):
            environment |= _MALLOC
        if self._devices:
            # The numbers count what the server itself sees.
            environment |= {name: _chosen(name, self._devices) for name in _DEVICES}
            environment[DEVICE] = ",".join(map(str, self._devices))
        return environment

    def _wait(self) -> None:
        """Waits for the exit on a thread of its own: docs/design/worker-protocol.md says why."""
        # It does not reap, so that the process id is of no other process before `_exited`.
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            assert ended is not None
            exit_ = _exit(ended.si_code, ended.si_status)
        except ChildProcessError:
            exit_ = Exit("exit", "exited (another part of the server took its exit status)")
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._exited, exit_)
        _kill_marked(self._mark)

    def _exited(self, exit_: Exit) -> None:
        if not self.alive:
            return
        self.connection.close()
        self.alive = False
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        self.output.close()
        self._on_exit(self._killed_for or exit_)


class OutputReader:
    """Reads the pipe that a worker's stdout and stderr go to, and closes the descriptor."""

    def __init__(self, descriptor: int, log: Callable[[str], None]) -> None:
        os.set_blocking(descriptor, False)
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._descriptor = descriptor
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._partial = ""
        self._resume: asyncio.TimerHandle | None = None
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(_LAST_CHUNKS):
                if not self._read_chunk():
                    break
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        if self._partial:
            self._line(self._partial)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            size = self._read_chunk()
            if size in (0, _CHUNK):
                self._loop.remove_reader(self._descriptor)
            if size == _CHUNK:
                self._resume = self._loop.call_later(
                    _PAUSE, self._loop.add_reader, self._descriptor, self._read
                )

    def _read_chunk(self) -> int:
        """Logs the next lines. Returns how many bytes were read, 0 at the end."""
        chunk = os.read(self._descriptor, _CHUNK)
        lines = (self._partial + self._decoder.decode(chunk)).split("\n")
        self._partial = lines.pop()
        for line in lines:
            self._line(line)
        while len(self._partial) > LINE_CHARS:
            self._line(self._partial[:LINE_CHARS])
            self._partial = self._partial[LINE_CHARS:]
        return len(chunk)

    def _line(self, line: str) -> None:
        line = line.rstrip("\r")[:LINE_CHARS]
        self.last_lines.append(line)
        self._log(line)


def _chosen(variable: str, devices: Sequence[int]) -> str:
    seen = [each for each in os.environ.get(variable, "").split(",") if each.strip()]
    return ",".join(seen[each] if each < len(seen) else str(each) for each in devices)


def _exit(code: int, status: int) -> Exit:
    if code == os.CLD_EXITED:
        return Exit("exit", f"exited with code {status}")
    try:
        name = signal.Signals(status).name
    except ValueError:
        name = f"signal {status}"
    note = " (the kernel sends it when memory runs out)" if name == "SIGKILL" else ""
    return Exit("signal", f"was killed by {name}{note}")


def _kill_marked(mark: str) -> None:
    """Kills processes of a worker whose guardian was killed itself: they have the worker's mark."""
    needle = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
