"""The formulas of the autoscalers that the benchmark plays, and a small run of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import hpa
from tests.places import ROOT


@pytest.mark.parametrize(
    ("total", "replicas", "wanted"),
    [
        (0.0, 1, 0),
        (0.7, 1, 1),
        (0.75, 1, 1),  # within the tolerance
        (0.8, 1, 2),
        (2.5, 1, 4),
        (2.5, 4, 4),
        (2.0, 4, 3),
        (17.0, 4, 25),
    ],
)
def test_a_metric_of_the_service_is_divided_by_the_target_of_each_pod(
    total: float, replicas: int, wanted: int
) -> None:
    assert hpa.by_external(total, 0.7, replicas) == wanted


@pytest.mark.parametrize(
    ("values", "replicas", "wanted"),
    [
        ([160.0], 1, 2),
        ([85.0, 85.0], 2, 2),  # within the tolerance
        ([20.0, 20.0, 20.0, 20.0], 4, 1),
        ([200.0], 2, 3),  # the one that starts counts as idle
        ([100.0], 2, 2),  # so much that there would be fewer, for which it does not count
        ([20.0], 2, 1),
        ([], 1, 1),
    ],
)
def test_a_metric_of_pods_is_averaged(values: list[float], replicas: int, wanted: int) -> None:
    assert hpa.by_pods(values, 80, replicas) == wanted


def test_pods_are_added_at_once_and_at_most_four_or_as_many_as_there_are() -> None:
    behavior = hpa.Behavior(1, 20)
    assert behavior.limit(0, 1, 25) == 5
    assert behavior.limit(15, 5, 25) == 10
    assert behavior.limit(30, 10, 25) == 20
    assert behavior.limit(45, 20, 25) == 20


def test_pods_are_added_no_faster_by_a_shorter_period() -> None:
    behavior = hpa.Behavior(1, 20)
    assert behavior.limit(0, 1, 25) == 5
    assert behavior.limit(5, 5, 25) == 5


def test_pods_end_when_none_of_the_last_five_minutes_wanted_them() -> None:
    behavior = hpa.Behavior(1, 20)
    assert behavior.limit(0, 4, 6) == 6
    wanted = {15 * sync: 3 if sync == 5 else 0 for sync in range(1, 30)}
    replicas = {now: behavior.limit(now, 6, number) for now, number in wanted.items()}
    assert {now for now, number in replicas.items() if number == 6} == set(range(15, 300, 15))
    assert {now for now, number in replicas.items() if number == 3} == set(range(300, 375, 15))
    assert replicas[375] == 1


@pytest.mark.heavy
@pytest.mark.server
@pytest.mark.timeout(900)
@pytest.mark.needs("haproxy", "prometheus")
def test_the_printed_autoscaler_adds_a_pod_that_gets_work() -> None:
    options = ["--functions", "waiting", "--autoscalers", "KEDA", "--quick"]
    command = [sys.executable, "-m", "benchmarks.autoscaling", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| waiting | KEDA |" in done.stdout
    assert "over REST and gRPC" in done.stdout
