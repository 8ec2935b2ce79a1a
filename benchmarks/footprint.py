"""Measures what a server costs besides its requests: imports, time to ready, memory."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from . import environments
from .load import measure, verify
from .systems import SYSTEMS, Server
from .workloads import request, workloads

COMPARED = ("pyfunc", "numpy-lean")
FLOOR = "bare-grpc"
_HOST = "import mlserver.cli.main, mlserver.server, mlserver.rest.app, mlserver.grpc.server"


def footprint(folder: Path, repeats: int) -> dict[str, Any]:
    """Compares our server with the hand-written runtime, and its peak memory with bare gRPC too.

    Args:
        folder: Folder for the servers' files.
        repeats: Number of timed runs; results are medians.

    Returns:
        For each system, the seconds to ready and the resident MB when idle; the seconds that our
        import and `--help` take; for each system and route, the peak of W3 above idle and the
        size of the body, in MB.
    """
    return {
        "start": {name: _start(name, folder, repeats) for name in COMPARED},
        "import_seconds": _import_seconds(repeats),
        "help_seconds": _seconds(["mlserver-pyfunc", "--help"], repeats),
        "w3_memory": {name: _w3_memory(name, folder) for name in (*COMPARED, FLOOR)},
    }


def _start(name: str, folder: Path, repeats: int) -> dict[str, float]:
    seconds, megabytes = [], []
    for number in range(repeats):
        server = Server(SYSTEMS[name], folder / f"start-{name}-{number}")
        time.sleep(0.5)
        seconds.append(server.seconds_to_ready)
        megabytes.append(server.memory("VmRSS") / 1e6)
        server.stop()
    return {
        "seconds_to_ready": statistics.median(seconds),
        "idle_mb": statistics.median(megabytes),
    }


def _w3_memory(name: str, folder: Path) -> dict[str, dict[str, float]]:
    workload = workloads()["w3"]
    found = {}
    for route in SYSTEMS[name].routes:
        server = Server(SYSTEMS[name], folder / f"memory-{name}-{route}")
        time.sleep(0.5)
        idle = server.memory("VmRSS")
        verify(server, workload, route)
        measure(server, workload, route, 1, 0.5)
        peak = server.memory("VmHWM")
        server.stop()
        size = len(request(workload, route).body)
        found[route] = {"above_idle_mb": (peak - idle) / 1e6, "body_mb": size / 1e6}
    return found


def _import_seconds(repeats: int) -> float:
    """Measures what our runtime adds to the time of MLServer's own imports, in seconds."""
    ours, host = (
        _seconds(["python", "-c", code], repeats)
        for code in (f"{_HOST}, mlserver_pyfunc.hosts.mlserver.runtime", _HOST)
    )
    return ours - host


def _seconds(command: list[str], repeats: int) -> float:
    """Measures a command's wall time in the servers' environment, after one run to warm up."""
    program = str(environments.python("server").with_name(command[0]))
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run([program, *command[1:]], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
