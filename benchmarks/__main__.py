"""Runs the suite: each system, workload, route and number of clients, in turns.

    python -m benchmarks            everything, about 40 minutes
    python -m benchmarks --quick    a short run that tests the suite itself, under 3 minutes

Writes results.json, results.md and results.png to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import environments

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few systems, one short run of each")
    parser.add_argument("--systems", help="comma-separated, all by default")
    parser.add_argument("--workloads", default="w1,w2,w3,w4")
    parser.add_argument("--routes", default="json,binary,typed,raw")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each timed run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    driver = environments.python("driver")
    if Path(sys.prefix) != driver.parent.parent:
        os.execv(driver, [str(driver), "-m", "benchmarks", *sys.argv[1:]])
    from .suite import run

    run(arguments)


if __name__ == "__main__":
    main()
