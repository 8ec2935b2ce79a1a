"""The parent of a worker, which ends all that the worker has started.

docs/design/worker-protocol.md says how, and what does not work.
"""

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Iterator, Sequence

PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def fork_worker(server: int, descriptors: Sequence[int]) -> None:
    """Forks the worker and returns in it only. The process that called guards the worker.

    It closes the descriptors, which are the worker's alone. `server` is a process id.
    """
    libc = ctypes.CDLL(None)
    old = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    worker = os.fork()
    if worker == 0:
        # A group of its own: what the worker does to its group leaves the guardian alone.
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        return
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    for descriptor in descriptors:
        os.close(descriptor)
    status = _guard(worker, server)
    _end_all()
    _die_by(status)


def _guard(worker: int, server: int) -> int:
    """Waits until the worker has ended, and returns its status. Kills it if the server is gone."""
    while True:
        # The server may have been gone before the kernel was asked to tell.
        if os.getppid() != server:
            os.kill(worker, signal.SIGKILL)
            return os.waitpid(worker, 0)[1]
        if signal.sigwait(_SIGNALS) == signal.SIGTERM:
            os.kill(worker, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == worker:
                    return ended[1]


def _end_all() -> None:
    """Kills all descendants: those of a killed process become children of this one."""
    with contextlib.suppress(ChildProcessError, PermissionError):
        while True:
            for child in _children():
                os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat", "rb") as file:
                # The name of a program, in brackets, may hold spaces and brackets.
                parent = file.read().rpartition(b")")[2].split()[1]
            if int(parent) == os.getpid():
                yield int(name)


def _die_by(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 1)
