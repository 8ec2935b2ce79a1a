"""Shows which parts of a server use a request's CPU time. Needs Linux's perf.

    python -m benchmarks.profile w1 raw --clients 32 --systems pyfunc,bare-grpc

perf samples each server under load. The CPU time of a part is its share of the samples, multiplied
by the CPU time of a request.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from . import environments

PARTS = (
    ("libpython", "Python"),
    ("python3", "Python"),
    ("cygrpc", "gRPC's C core"),
    ("csimdjson", "JSON, arrays, messages, HTTP parsing"),
    ("orjson", "JSON, arrays, messages, HTTP parsing"),
    ("multiarray", "JSON, arrays, messages, HTTP parsing"),
    ("_message", "JSON, arrays, messages, HTTP parsing"),
    ("pydantic_core", "JSON, arrays, messages, HTTP parsing"),
    ("parser", "JSON, arrays, messages, HTTP parsing"),
    ("libc.so", "libc: copies, allocation"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile")
    parser.add_argument("workload", choices=["w1", "w2", "w3", "w4"])
    parser.add_argument("route", choices=["json", "binary", "typed", "raw"])
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--systems", default="pyfunc,numpy-lean")
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    if shutil.which("perf") is None:
        raise SystemExit("perf is needed: apt-get install linux-perf")
    driver = environments.python("driver")
    if Path(sys.prefix) != driver.parent.parent:
        os.execv(driver, [str(driver), "-m", "benchmarks.profile", *sys.argv[1:]])
    found = {name: _profile(name, arguments) for name in arguments.systems.split(",")}
    _print(found)


def _profile(name: str, arguments: argparse.Namespace) -> Counter[str]:
    """Returns the microseconds of CPU of a request, by part."""
    from .load import measure, verify
    from .systems import SYSTEMS, Server
    from .workloads import workloads

    workload = workloads()[arguments.workload]
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        server = Server(SYSTEMS[name], Path(folder, name))
        try:
            verify(server, workload, arguments.route)
            case = (server, workload, arguments.route, arguments.clients)
            cpu_us = measure(*case, arguments.seconds).cpu_us
            record = Path(folder, "perf.data")
            pids = ",".join(str(process.pid) for process in server.processes())
            command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-p", pids]
            command += ["-o", str(record), "--", "sleep", str(arguments.seconds)]
            sampler = subprocess.Popen(command)
            while sampler.poll() is None:
                measure(*case, 1)
        finally:
            server.stop()
        samples = _samples(record)
    return Counter({part: n / samples.total() * cpu_us for part, n in samples.items()})


def _samples(record: Path) -> Counter[str]:
    command = ["perf", "script", "-i", str(record), "-F", "comm,ip,sym,dso"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return Counter(map(_part, filter(str.strip, lines)))


def _part(line: str) -> str:
    if "[kernel" in line:
        is_grpc = line.split()[0].startswith("event_engine")
        return "kernel, on gRPC's threads" if is_grpc else "kernel: network, switches, memory"
    library = line.rpartition("(")[2].rpartition("/")[2]
    return next((part for mark, part in PARTS if mark in library), "all else")


def _print(found: dict[str, Counter[str]]) -> None:
    parts = sorted({part for counter in found.values() for part in counter})
    parts.sort(key=lambda part: -next(iter(found.values()))[part])
    print("| us of CPU a request | " + " | ".join(found) + " |")
    print("|---" * (len(found) + 1) + "|")
    for part in parts:
        print(f"| {part} | " + " | ".join(f"{c[part]:.0f}" for c in found.values()) + " |")
    print("| all | " + " | ".join(f"{c.total():.0f}" for c in found.values()) + " |")


if __name__ == "__main__":
    main()
