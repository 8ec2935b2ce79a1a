"""A worker process as the server sees it: start, messages, death."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract import TensorSpec
from ..tensors import Array
from .codec import Codec
from .memory import Reader, Writer, create_arena
from .output import OutputReader
from .wire import PACKET_BYTES, Kind, Message, WireError

_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
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
        bursts: Several messages were sent together the last time.

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
        self._on_message = on_message
        self._on_exit = on_exit
        self._killed_for: Exit | None = None
        self._mark = secrets.token_hex(16)
        self._outbox: list[bytes] = []
        self._permits_due = 0
        self.bursts = False
        self._backlog: deque[bytes] = deque()
        self._codec: Codec | None = None
        self.pid = self._start(python, on_line)
        self._loop.add_reader(self._bell, self._on_bell)
        threading.Thread(target=self._wait, name=f"pyfunc-wait-{self.pid}", daemon=True).start()

    @property
    def alive(self) -> bool:
        return self._codec is not None

    @property
    def last_lines(self) -> Sequence[str]:
        """The last that the process printed."""
        return self._output.last_lines

    @property
    def memory_used(self) -> int:
        """Bytes of shared memory that hold tensors for the process."""
        return self._codec.writer.used_bytes if self._codec is not None else 0

    def send(
        self,
        kind: Kind,
        call: int = 0,
        head: Mapping[str, Any] | None = None,
        named: Sequence[tuple[TensorSpec, Array]] = (),
        *,
        request_id: str = "",
        soon: bool = False,
        needs_permit: bool = False,
    ) -> None:
        """Sends a message. To a dead process it goes nowhere.

        Args:
            kind: What it says.
            call: Number of the call that it is about.
            head: Its values.
            named: Its tensors.
            request_id: Of the inference request, of a call.
            soon: Send it with those of other requests that have come by now.
            needs_permit: It is a call that `take_back` may take back.

        Raises:
            TypeError: The head holds what JSON has no form for.
            MemoryError: The tensors do not fit into the shared memory.
        """
        if self._codec is None:
            return
        self._outbox.append(
            self._codec.encode(
                kind, call, head or {}, named, request_id=request_id, needs_permit=needs_permit
            )
        )
        self._permits_due += needs_permit
        if not soon:
            self._flush()
        elif len(self._outbox) == 1:
            self._loop.call_soon(self._flush)

    def take_back(self) -> int:
        """Takes back calls that need a permit and have not begun: how many, of the last sent.

        The process tells of each that it has dropped, when it comes to it.
        """
        self._flush()
        taken = 0
        with suppress(BlockingIOError):
            while self.alive:
                os.read(self._permits, 8)
                taken += 1
        return taken

    def receive(self, most: int | None = None) -> None:
        """Takes messages that have come, also those for which the bell is not rung yet.

        Args:
            most: How many; None for all.
        """
        try:
            while most != 0 and self._receive():
                most = None if most is None else most - 1
        except WireError as error:
            self.kill("protocol", f"was stopped: {error}")

    def kill(self, reason: str, text: str) -> None:
        """Ends the process and what it started, now. `on_exit` gets the reason."""
        if self.alive:
            self._killed_for = self._killed_for or Exit(reason, text)
            _kill_group(self.pid)

    def _start(self, python: Path, on_line: Callable[[str], None]) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        permits = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        opened = [theirs.detach(), writing]
        try:
            inbound, outbound = create_arena(), create_arena()
            opened += [inbound, outbound]
            self._connection, self._bell, self._permits = ours, bell, permits
            self._codec = Codec(Writer(inbound), Reader(outbound))
            passed = (opened[0], bell, permits, inbound, outbound)
            process = subprocess.Popen(
                [str(python), "-I", str(_BOOTSTRAP), *map(str, passed)],
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                pass_fds=passed,
                env=self._environment(python),
                # A group of its own, which is killed whole and gets no Ctrl-C of the terminal's.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(bell)
            os.close(permits)
            os.close(reading)
            raise
        finally:
            for descriptor in opened:
                os.close(descriptor)
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

    def _on_bell(self) -> None:
        with suppress(BlockingIOError):
            self.receive(int.from_bytes(os.read(self._bell, 8), sys.byteorder))

    def _receive(self) -> bool:
        """Takes one packet; False where there is none."""
        if self._codec is None:
            return False
        try:
            try:
                packet = self._connection.recv(PACKET_BYTES)
            except ConnectionResetError:
                # It died before it read all. Said once; then comes what it had sent.
                packet = self._connection.recv(PACKET_BYTES)
        except (BlockingIOError, ConnectionError):
            return False
        for message in self._codec.decode(packet):
            self._on_message(message)
        return bool(packet)

    def _flush(self) -> None:
        """Sends what is in the outbox, in as few packets as it takes."""
        outbox, self._outbox = self._outbox, []
        if self._codec is None or not outbox:
            return
        self.bursts = len(outbox) > 1
        packets = _joined(outbox) if self.bursts else outbox
        if self._permits_due:
            os.write(self._permits, self._permits_due.to_bytes(8, sys.byteorder))
            self._permits_due = 0
        if self._backlog:
            self._backlog.extend(packets)
            return
        for number, packet in enumerate(packets):
            try:
                self._connection.send(packet)
            except BlockingIOError:
                self._backlog.extend(packets[number:])
                self._loop.add_writer(self._connection, self._send_backlog)
                return
            except OSError:
                # It is gone: its exit is reported in a moment.
                return

    def _send_backlog(self) -> None:
        with suppress(BlockingIOError):
            while self._backlog:
                with suppress(BrokenPipeError, ConnectionError):
                    self._connection.send(self._backlog[0])
                self._backlog.popleft()
            self._loop.remove_writer(self._connection)

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
        if self._codec is None:
            return
        self._loop.remove_reader(self._bell)
        with suppress(WireError):
            while self._receive():
                pass
        self._codec = None
        self._loop.remove_writer(self._connection)
        self._connection.close()
        os.close(self._bell)
        os.close(self._permits)
        self._output.close()
        self._on_exit(self._killed_for or exit_)


def _joined(messages: Sequence[bytes]) -> list[bytes]:
    """Packs messages into packets, in order."""
    packets: list[list[bytes]] = [[]]
    size = 0
    for message in messages:
        size += len(message)
        if size > PACKET_BYTES and packets[-1]:
            packets.append([])
            size = len(message)
        packets[-1].append(message)
    return [b"".join(packet) for packet in packets]


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
