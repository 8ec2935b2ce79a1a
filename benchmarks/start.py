"""Measures what each system takes to start: CPU time and seconds until it is ready, idle memory.

    python -m benchmarks.start --systems pyfunc-serve,pyfunc,numpy-lean --repeats 5

`pyfunc-serve` is `mlserver-pyfunc serve`, with the settings of `pyfunc`, which is `mlserver start`.
The systems start in turns. CPU time depends less than seconds on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from . import environments

DEFAULT = "pyfunc-serve,pyfunc,numpy-lean,constant,bare-grpc,bare-rest"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--systems", default=DEFAULT)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    driver = environments.python("driver")
    if Path(sys.prefix) != driver.parent.parent:
        os.execv(driver, [str(driver), "-m", "benchmarks.start", *sys.argv[1:]])
    from .systems import SYSTEMS, Ports, Server, System

    def serve(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
        *_, models = SYSTEMS["pyfunc"].command(interpreter, folder, ports)
        command = [str(interpreter.parent / "mlserver-pyfunc"), "serve", models]
        command += ["--port", str(ports.http), "--grpc-port", str(ports.grpc)]
        return [*command, "--metrics-port", str(ports.metrics)]

    systems: dict[str, System] = {
        **SYSTEMS,
        "pyfunc-serve": replace(SYSTEMS["pyfunc"], name="pyfunc-serve", command=serve),
    }
    names = arguments.systems.split(",")
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        for number in range(arguments.repeats):
            for name in names:
                server = Server(systems[name], Path(folder, f"{name}-{number}"))
                cpu = server.cpu_seconds()
                time.sleep(0.5)  # What a start leaves to do later is in the memory, too.
                found[name].append((cpu, server.seconds_to_ready, server.memory("VmRSS") / 1e6))
                server.stop()
    print("| | CPU to ready, s | ready, s | idle, MB |\n|---|---|---|---|")
    for name, runs in found.items():
        cpu, seconds, megabytes = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {name} | {cpu:.2f} | {seconds:.2f} | {megabytes:.0f} |")


if __name__ == "__main__":
    main()
