"""Starts the systems, checks their answers, and measures them in turns."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from . import report
from .footprint import footprint
from .load import measure, require_h2load, verify
from .systems import SYSTEMS, Server
from .workloads import ROUTES, workloads

QUICK_SYSTEMS = ("pyfunc", "numpy-lean", "bare-grpc")
LARGE = ("w2", "w3")

Case = tuple[str, str, int]


def run(arguments: argparse.Namespace) -> None:
    """Runs the suite with the arguments of the command line, and writes the results."""
    require_h2load()
    names = arguments.systems.split(",") if arguments.systems else list(SYSTEMS)
    seconds, repeats = arguments.seconds, arguments.repeats
    clients = [int(count) for count in arguments.clients.split(",")]
    if arguments.quick:
        names, seconds, repeats, clients = list(QUICK_SYSTEMS), 0.2, 1, [1, 8]
    cases = [
        (workload, route, count)
        for workload in arguments.workloads.split(",")
        for route in ROUTES
        if route in arguments.routes.split(",")
        for count in clients
        if count <= 8 or workload not in LARGE
    ]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        servers = _start(names, Path(folder))
        try:
            results = {
                "machine": _machine(),
                "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
                "seconds": seconds,
                "repeats": repeats,
                "start": {s.system.name: _start_figures(s) for s in servers},
                "cases": _time(servers, cases, seconds, repeats),
                "footprint": footprint(Path(folder), repeats),
            }
            for server in servers:
                server.resume()
                results["start"][server.system.name]["peak_mb"] = server.memory("VmHWM") / 1e6
        finally:
            for server in servers:
                server.stop()
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report.write(results, arguments.output)
    print(f"results are in {arguments.output}")


def _start(names: list[str], folder: Path) -> list[Server]:
    servers = []
    for name in names:
        server = Server(SYSTEMS[name], folder / name)
        print(f"{name}: ready after {server.seconds_to_ready:.2f} s", flush=True)
        time.sleep(0.5)
        server.idle_mb = server.memory("VmRSS") / 1e6
        server.pause()
        servers.append(server)
    return servers


def _time(
    servers: list[Server], cases: list[Case], seconds: float, repeats: int
) -> list[dict[str, Any]]:
    samples: defaultdict[tuple[str, Case], list[dict[str, float]]] = defaultdict(list)
    loads = workloads()
    for case in cases:
        workload, route, clients = case
        able = [s for s in servers if route in s.system.routes and workload in s.system.models]
        for server in list(able):
            server.resume()
            try:
                verify(server, loads[workload], route)
            except Exception as error:
                print(f"{server.system.name} {workload} {route}: left out: {error}", flush=True)
                able.remove(server)
            server.pause()
        for _ in range(repeats):
            for server in able:
                server.resume()
                sample = measure(server, loads[workload], route, clients, seconds)
                server.pause()
                samples[server.system.name, case].append(sample.as_dict())
        rates = {s.system.name: [x["rps"] for x in samples[s.system.name, case]] for s in able}
        shown = ", ".join(f"{name} {statistics.median(rps):.0f}" for name, rps in rates.items())
        print(f"{workload} {route} x{clients}, requests/s: {shown}", flush=True)
    return [
        {
            "system": system,
            "workload": workload,
            "route": route,
            "clients": clients,
            **{key: statistics.median(run[key] for run in runs) for key in runs[0]},
        }
        for (system, (workload, route, clients)), runs in samples.items()
    ]


def _start_figures(server: Server) -> dict[str, float]:
    return {"seconds_to_ready": server.seconds_to_ready, "idle_mb": server.idle_mb}


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((row.split(":")[1].strip() for row in lines if "model name" in row), "unknown")
    return {"cpu": model, "kernel": platform.release(), "python": platform.python_version()}
