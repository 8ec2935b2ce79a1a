"""A smoke test of the benchmarks: each can be imported; the suite verifies, times and reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_every_benchmark_can_be_imported(module: str) -> None:
    # In a process of its own: the messages of tritonclient and of MLServer exclude each other.
    command = [sys.executable, "-c", f"import benchmarks.{module}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.heavy
@pytest.mark.server
@pytest.mark.timeout(900)
@pytest.mark.needs("h2load")
def test_the_suite_times_every_workload_over_every_route(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out" not in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    timed = {
        (case["workload"], case["route"]) for case in results["cases"] if case["system"] == "pyfunc"
    }
    routes = ("json", "binary", "typed", "raw")
    assert timed == {(workload, route) for workload in ("w1", "w2", "w3", "w4") for route in routes}
    assert all(case["failed"] == 0 for case in results["cases"])
    assert (tmp_path / "results.md").read_text().startswith("Measured on")
    assert (tmp_path / "results.png").stat().st_size > 10_000
