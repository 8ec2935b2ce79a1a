"""Measures what worker processes and batching cost, and what they gain.

    python -m benchmarks.isolation [--seconds 2] [--repeats 3] [--pytriton]

Measures in turns:

- requests of W1 and W3 in the server's process, in workers and in MLServer's own pool, with server
  and workers on one core;
- requests of W1 from 32 clients, to a handler that takes 2 ms for any number of rows, batched by us
  and, with `--pytriton`, by PyTriton;
- calls of a handler that computes in Python, with one worker and with two, calls one at a time and
  batched calls, all without a server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.serving.function import Function

from .load import measure, require_h2load, verify
from .systems import (
    LEAN,
    Ports,
    Server,
    System,
    _hand_path,
    _hand_written,
    _mlserver,
    _ours,
    _script,
)
from .workloads import workloads

CASES = (
    ("w1", "json", 1), ("w1", "raw", 1), ("w1", "json", 16), ("w1", "raw", 16), ("w3", "raw", 4),
)  # fmt: skip
BATCHING_CASES = (("w1", "json", 32), ("w1", "raw", 32))

DOUBLE = "def handler(x):\n    return x * 2\n"

BUSY = """
def handler(x):
    total = 0
    for n in range(200_000):
        total += n * n
    return [total % 7]
"""

PER_CALL = """
import time

def handler(x):
    time.sleep(0.002)
    return x * 2
"""

Command = Callable[[Path, Path, Ports], list[str]]


def _isolated(workers: int) -> Callable[[str], dict[str, Any]]:
    def settings(model: str) -> dict[str, Any]:
        settings: dict[str, Any] = _ours(model)
        serving = settings["parameters"]["extra"]["function"]["serving"]
        serving |= {"isolation": "process", "workers": workers}
        return settings

    return settings


def _systems() -> list[System]:
    routes = ("json", "typed", "raw")
    pool = {**LEAN, "parallel_workers": 2}
    return [
        System("in process", "server", _mlserver(LEAN, _ours)),
        System("isolated", "server", _mlserver(LEAN, _isolated(1))),
        System("isolated, 2 workers", "server", _mlserver(LEAN, _isolated(2))),
        System(
            "MLServer's pool, 2 workers", "server", _mlserver(pool, _hand_written), routes,
            variables=_hand_path,
        ),
    ]  # fmt: skip


def _batching_systems(*, pytriton: bool) -> list[System]:
    def ours(**serving: Any) -> Callable[[str], dict[str, Any]]:
        def settings(model: str) -> dict[str, Any]:
            settings: dict[str, Any] = _ours(model)
            if model == "w1":
                function = settings["parameters"]["extra"]["function"]
                function["source"]["handler"] = "double_in_2_ms"
                function["serving"] |= serving
            return settings

        return settings

    batch = {"max_size": 64, "max_delay_ms": 2}
    isolated = ours(batch=batch, isolation="process")
    triton = _script("pytriton_server.py", "--batcher", "--call-ms", "2")
    systems = [
        System("2 ms a call", "server", _mlserver(LEAN, ours())),
        System("2 ms a call, batched", "server", _mlserver(LEAN, ours(batch=batch))),
        System("2 ms, batched, isolated", "server", _mlserver(LEAN, isolated)),
    ]
    if pytriton:
        models = ("w1", "w2", "w3")
        systems.append(System("2 ms, PyTriton's batcher", "pytriton", triton, models=models))
    return systems


def _throughput(
    systems: list[System], cases: Sequence[tuple[str, str, int]], seconds: float, repeats: int
) -> dict[str, dict[str, float]]:
    found: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    loads = workloads()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        servers = []
        try:
            for system in systems:
                servers.append(Server(system, Path(folder, system.name)))
                servers[-1].pause()
            for _ in range(repeats):
                for name, route, clients in cases:
                    for server in servers:
                        server.resume()
                        verify(server, loads[name], route)
                        sample = measure(server, loads[name], route, clients, seconds)
                        if sample.failed:
                            raise RuntimeError(f"{server.system.name}: {sample.failed} failed")
                        found[f"{name} {route} x{clients}"][server.system.name].append(sample.rps)
                        server.pause()
        finally:
            for server in servers:
                server.stop()
    return {
        case: {name: statistics.median(values) for name, values in systems.items()}
        for case, systems in found.items()
    }


async def _calls_per_second(code: str, seconds: float, clients: int = 32, **serving: Any) -> float:
    tensors = [{"name": name, "datatype": "FP32", "shape": [-1]} for name in "xy"]
    definition = parse(
        {
            "source": {"code": code, "handler": "handler"},
            "inputs": tensors[:1],
            "outputs": tensors[1:],
            "serving": {"max_queue": 1000, **serving},
        }
    )
    function = Function(definition, Path.cwd(), "bench")
    await function.load()
    ended = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal ended
        x = np.full(1, number, dtype=np.float32)
        sent = SimpleNamespace(name="x", datatype="FP32", shape=[1], data=x, parameters=None)
        payload = SimpleNamespace(id="", parameters=None, inputs=[sent], outputs=None)
        while time.perf_counter() < end:
            await function.infer(payload)
            ended += 1

    await asyncio.gather(*(client(number) for number in range(clients)))
    await function.close()
    return ended / seconds


def _scaling(seconds: float, repeats: int) -> dict[str, float]:
    found = defaultdict(list)
    batch = {"max_size": 32, "max_delay_ms": 2}
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "one at a time, in process": (DOUBLE, {"isolation": "none", "clients": 1}),
        "one at a time, isolated": (DOUBLE, {"isolation": "process", "clients": 1}),
        "busy, 1 worker": (BUSY, {"isolation": "process", "workers": 1}),
        "busy, 2 workers": (BUSY, {"isolation": "process", "workers": 2}),
        "2 ms a call, in process": (PER_CALL, {"isolation": "none"}),
        "2 ms a call, in process, batched": (PER_CALL, {"isolation": "none", "batch": batch}),
        "2 ms a call, isolated": (PER_CALL, {"isolation": "process"}),
        "2 ms a call, isolated, batched": (PER_CALL, {"isolation": "process", "batch": batch}),
    }
    for _ in range(repeats):
        for name, (code, serving) in cases.items():
            found[name].append(asyncio.run(_calls_per_second(code, seconds, **serving)))
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pytriton", action="store_true", help="measure PyTriton's batcher too")
    parser.add_argument("--output", type=Path, help="also write the figures there, as JSON")
    arguments = parser.parse_args()
    require_h2load()
    results: dict[str, Any] = {
        "load": os.getloadavg()[0],
        "rps": _throughput(_systems(), CASES, arguments.seconds, arguments.repeats),
        "batching": _throughput(
            _batching_systems(pytriton=arguments.pytriton),
            BATCHING_CASES,
            arguments.seconds,
            arguments.repeats,
        ),
        "calls_per_second": _scaling(arguments.seconds, arguments.repeats),
    }
    for case, systems in [*results["rps"].items(), *results["batching"].items()]:
        base = next(iter(systems.values()))
        for name, rps in systems.items():
            print(f"{case:11}  {name:28} {rps:9.0f} requests/s  {rps / base:5.2f}")
    for name, rate in results["calls_per_second"].items():
        print(f"{name:38} {rate:9.0f} calls/s")
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
