"""A minute of chaos, clients that leave, and planted defects that both must find."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tests.places import ROOT

from .plants import PLANTS

# What is said about each planted defect.
FOUND = {
    "wrong": "wrong: call",
    "lost": "lost: call",
    "undocumented": "undocumented: call",
    "twice": "twice: call",
    "process": "left: expected 11 workers, got",
    "slot": "calm: call",
    "descriptor": "left: descriptors: ",
    "thread": "left: threads: ",
    "memory": "left: server_mb has grown by ",
}


# What is said about each planted defect of clients that leave.
FOUND_BY_LEAVERS = {
    "deaf": "ms after its client had left",
    "lost": "stays: expected ",
    "task": "left over: tasks: ",
}


def run(*arguments: str, module: str = "tests.chaos") -> tuple[int, str]:
    # In a process of its own: the stubs of its client and MLServer cannot share one.
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(1800)
def test_a_minute_of_chaos_leaves_nothing_wrong() -> None:
    seed = random.SystemRandom().randrange(10**6)
    code, output = run("--seconds", "60", "--seed", str(seed))
    assert code == 0, output


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_defect_is_found(plant: str) -> None:
    code, output = run("--seconds", "10", "--seed", "1", "--plant", plant)
    assert code == 1, output
    assert FOUND[plant] in output, output
    assert "repeat it by: python -m tests.chaos --seconds 10 --seed 1" in output


@pytest.mark.timeout(1800)
def test_clients_that_leave_cost_those_who_stay_nothing() -> None:
    seed = str(random.SystemRandom().randrange(10**6))
    # A handler looks after 20 ms, but a busy machine may take long.
    arguments = ("--clients", "100", "--seed", seed, "--bound", "10")
    code, output = run(*arguments, module="tests.chaos.leavers")
    assert code == 0, output


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("plant", FOUND_BY_LEAVERS)
def test_a_defect_of_clients_that_leave_is_found(plant: str) -> None:
    arguments = ("--clients", "100", "--seed", "1", "--plant", plant)
    code, output = run(*arguments, module="tests.chaos.leavers")
    assert code == 1, output
    assert FOUND_BY_LEAVERS[plant] in output, output
