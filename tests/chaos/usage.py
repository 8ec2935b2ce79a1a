"""What a server and its workers hold."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

MARK = "MLSERVER_PYFUNC_CHAOS"
"""Environment variable of the server, which its processes inherit."""

_MEMFD = "memfd:mlserver-pyfunc"


@dataclass(frozen=True)
class Usage:
    """What the server and its workers hold when nothing is asked of them.

    Attributes:
        workers: Number of workers.
        others: Number of processes besides the server, the workers and their guardians, and
            those that calls have started.
        threads: Number of threads of the server.
        descriptors: Number of file descriptors of the server.
        mappings: Number of shared memories that the server maps.
        server_mb: Private memory of the server in MB, after what nobody holds was freed.
        shared_mb: Shared memory of it in MB: a worker's part keeps up to 64 MB in each direction.
        workers_mb: Private memory of all workers in MB.
        shm: Number of files in /dev/shm that the server or a worker maps.
        files: Number of files in the server's folder for temporary files.
    """

    workers: int
    others: int
    threads: int
    descriptors: int
    mappings: int
    server_mb: float
    shared_mb: float
    workers_mb: float
    shm: int
    files: int

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name):.0f}" for field in fields(self))


def measure(pid: int, temporary: Path, sleep: str) -> Usage:
    """Measures what the server with this process id holds."""
    server = psutil.Process(pid)
    workers, _, others = _sorted_processes(server, sleep)
    return Usage(
        workers=len(workers),
        others=len(others),
        threads=server.num_threads(),
        descriptors=server.num_fds(),
        mappings=_maps(server).count(_MEMFD),
        server_mb=(server.memory_info().rss - server.memory_info().shared) / 2**20,
        shared_mb=server.memory_info().shared / 2**20,
        workers_mb=sum(map(_private, workers)) / 2**20,
        shm=sum(_maps(each).count("/dev/shm/") for each in (server, *workers)),
        files=sum(len(names) for _, _, names in os.walk(temporary)),
    )


def workers_of(pid: int) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Finds the workers of a server, and their guardians."""
    workers, guardians, _ = _sorted_processes(psutil.Process(pid), "")
    return workers, guardians


def marked(mark: str, sleep: str) -> list[str]:
    """Finds the processes that a server of this mark has started, however they hide."""
    found = []
    for process in psutil.process_iter():
        try:
            if _is_asleep(process, sleep) or process.environ().get(MARK) == mark:
                found.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


def none_left(mark: str, sleep: str, seconds: float) -> list[str]:
    """Waits until no process of a server is left; returns those that still are."""
    deadline = time.monotonic() + seconds
    while (left := marked(mark, sleep)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _sorted_processes(
    server: psutil.Process, sleep: str
) -> tuple[list[psutil.Process], list[psutil.Process], list[psutil.Process]]:
    """Returns workers, guardians and others. A worker is the child of its guardian."""
    workers, guardians, others = [], [], []
    for process, parent in _descendants(server):
        try:
            if _is_asleep(process, sleep):
                continue
            if "bootstrap.py" not in " ".join(process.cmdline()):
                others.append(process)
            elif parent == server.pid:
                guardians.append(process)
            else:
                workers.append(process)
        except psutil.Error:
            continue
    return workers, guardians, others


def _descendants(server: psutil.Process) -> Iterator[tuple[psutil.Process, int]]:
    for process in server.children(recursive=True):
        try:
            yield process, process.ppid()
        except psutil.Error:
            continue


def _is_asleep(process: psutil.Process, sleep: str) -> bool:
    return bool(sleep) and process.cmdline() == ["/bin/sleep", sleep]


def _maps(process: psutil.Process) -> str:
    try:
        return Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
    except OSError:
        return ""


def _private(process: psutil.Process) -> int:
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    private: int = memory.rss - memory.shared
    return private


def log_defects(log: str) -> list[str]:
    """Finds what asyncio and Python report about the server's own code, each kind once."""
    signs = re.compile(
        r"never retrieved|never awaited|Exception in callback|Exception ignored in|"
        r"Task was destroyed|Unhandled|ASGI callable returned without|Fatal error on|"
        r"Exception in ASGI application"
    )
    lines = log.splitlines()
    places = [place for place, line in enumerate(lines) if signs.search(line)]
    # Without addresses and numbers, those of one kind are alike.
    kinds = {
        re.sub(r"0x[0-9a-f]+|\d+", "", "".join(lines[place : place + 6])): place for place in places
    }
    found = [f"{len(places)} reports, of {len(kinds)} kinds"] if places else []
    return [*found, *("\n    ".join(lines[place : place + 40]) for place in kinds.values())]
