"""Every death at every moment, under load: errors for calls on the dead worker alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlserver_pyfunc.errors import HandlerError, RequestError, WorkerError
from mlserver_pyfunc.serving.function import Function
from mlserver_pyfunc.serving.workers import dispatcher as dispatching
from tests.serving.workers.functions import X, Y, call, children, loaded, request

from .load import Load, Tally

WORKERS = 3
RECOVERY_SECONDS = 60
"""Bounds how long a new process takes to start, also on a busy machine."""

# x[0] says what to do, x[1] when: 0 at once, else so many milliseconds after the answer is made.
CODE = """
import ctypes, os, pathlib, signal, sys, threading, time
import numpy as np


class Stop(BaseException):
    pass


def fork_and_die():
    for _ in range(5):
        if os.fork() == 0:
            while True:
                time.sleep(60)
    os._exit(1)


def exhaust():
    np.ones(2**40, dtype="u1")


DEEDS = {
    1: lambda: ctypes.string_at(0),
    2: lambda: os._exit(0),
    3: lambda: os._exit(1),
    4: lambda: os.kill(os.getpid(), signal.SIGKILL),
    5: lambda: os.abort(),
    6: fork_and_die,
    7: lambda: os.kill(os.getpid(), signal.SIGTERM),
    11: lambda: sys.exit(3),
    12: exhaust,
}


def raise_stop():
    raise Stop


DEEDS[13] = raise_stop


def setup(context):
    plan = pathlib.Path(context.init_parameters["plan"])
    if plan.exists():
        deed = int(plan.read_text())
        plan.unlink()
        DEEDS[deed]()


def handler(x):
    deed = int(x[0])
    if deed and x[1]:
        timer = threading.Timer(float(x[1]) / 1000, DEEDS[deed])
        timer.start()
        return np.ones(2**24, dtype="f4")
    if deed:
        DEEDS[deed]()
    return x * 2


def stream(x):
    for n in range(3):
        if n == 2 and x[0]:
            DEEDS[int(x[0])]()
        yield x * 2 + n
"""

DEADLY = {
    "segfault": 1,
    "exit-0": 2,
    "exit-1": 3,
    "sigkill": 4,
    "abort": 5,
    "forks-left": 6,
    "sigterm": 7,
}
CONTAINED = {"sys-exit": 11, "out-of-memory": 12, "base-exception": 13}
DEEDS = {**DEADLY, **CONTAINED}
EVERYDAY = ("segfault", "exit-0", "forks-left")

every_death = pytest.mark.parametrize(
    "death", [n if n in EVERYDAY else pytest.param(n, marks=pytest.mark.heavy) for n in DEADLY]
)


@pytest.fixture(params=[WORKERS, 1], ids=["pool", "alone"])
def up(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Number of workers. Only a single worker gets prefetched calls."""
    monkeypatch.setattr(dispatching, "BRIEF_SECONDS", 1)
    count: int = request.param
    return count


@contextlib.asynccontextmanager
async def loaded_subject(
    plan: Path, handler: str = "handler", *, up: int = WORKERS
) -> AsyncIterator[Function]:
    async with loaded(
        CODE,
        handler,
        workers=up,
        max_queue=256,
        timeout=60,
        init_function="setup",
        init_parameters={"plan": str(plan)},
        inputs=X,
        outputs=Y,
    ) as function:
        yield function


def workers() -> list[psutil.Process]:
    found = []
    for child in children():
        with contextlib.suppress(psutil.Error):
            if any("bootstrap.py" in part for part in child.cmdline()):
                found.append(child)
    # A worker is the child of its guardian, which is ours.
    return [one for one in found if psutil.Process(one.ppid()).ppid() == os.getpid()]


def settle(load: Load, total: Tally, faults: int, dead_workers: int) -> None:
    """Holds the load's tally to what so many deaths may cost, and adds it to the total."""
    load.tally.faults = faults
    total.add(load.tally)
    failed = load.tally.failed
    assert set(failed) <= {"on a dead worker"}, load.tally
    assert failed["on a dead worker"] <= dead_workers, load.tally
    assert load.tally.slowest_recovery < RECOVERY_SECONDS, load.tally


@every_death
async def test_mid_call(death: str, total: Tally, tmp_path: Path, up: int) -> None:
    async with loaded_subject(tmp_path / "plan", up=up) as function, Load(function) as load:
        for _ in range(3):
            with pytest.raises(WorkerError):
                await call(function, DEEDS[death], 0)
            await load.full_service(up, time.monotonic())
            await load.calls(50)
    settle(load, total, 3, 0)


@pytest.mark.parametrize("deed", CONTAINED)
async def test_what_is_contained_costs_no_other_call(
    deed: str, total: Tally, tmp_path: Path, up: int
) -> None:
    async with loaded_subject(tmp_path / "plan", up=up) as function, Load(function) as load:
        before = {worker.pid for worker in workers()}
        for _ in range(3):
            with pytest.raises(HandlerError):
                await call(function, DEEDS[deed], 0)
            await load.calls(20)
        assert {worker.pid for worker in workers()} == before
    settle(load, total, 3, 0)


@every_death
async def test_mid_stream(death: str, total: Tally, tmp_path: Path) -> None:
    subject = loaded_subject(tmp_path / "plan", "stream")
    async with subject as function, Load(function, streams=True) as load:
        for _ in range(3):
            items = function.stream(request(DEEDS[death], 0))
            assert (await anext(items)).arrays[0].array[1] == 0
            await anext(items)
            with pytest.raises(WorkerError):
                await anext(items)
            await load.full_service(WORKERS, time.monotonic())
            await load.calls(30)
    settle(load, total, 3, 0)


@every_death
async def test_mid_reply_of_64_mib(death: str, total: Tally, tmp_path: Path, up: int) -> None:
    delays = (1, 5, 10, 20, 40)
    async with loaded_subject(tmp_path / "plan", up=up) as function, Load(function) as load:
        for delay in delays:
            try:
                big = await call(function, DEEDS[death], delay)
                assert big.shape == (2**24,)
                assert (big == 1).all(), "half an answer"
            except WorkerError:
                load.tally.failed["in the reply, as meant"] += 1
            await asyncio.sleep(0.1)
            await load.full_service(up, time.monotonic())
            await load.calls(30)
    del load.tally.failed["in the reply, as meant"]
    # The worker may die in the next call.
    settle(load, total, len(delays), len(delays))


@every_death
async def test_during_init(death: str, total: Tally, tmp_path: Path, up: int) -> None:
    plan = tmp_path / "plan"
    async with loaded_subject(plan, up=up) as function, Load(function) as load:
        plan.write_text(str(DEEDS[death]))
        started = time.monotonic()
        workers()[0].kill()
        while plan.exists():
            await asyncio.sleep(0.005)
        await load.full_service(up, started)
        await load.calls(50)
    settle(load, total, 2, 1)


@pytest.mark.parametrize("count", [1, 2, WORKERS], ids=["one", "two", "all"])
@pytest.mark.parametrize(
    "sent",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGSEGV, marks=pytest.mark.heavy),
        pytest.param(signal.SIGTERM, marks=pytest.mark.heavy),
    ],
    ids=str,
)
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
async def test_killed_from_outside(
    busy: bool, sent: signal.Signals, count: int, total: Tally, tmp_path: Path
) -> None:
    async with loaded_subject(tmp_path / "plan") as function, Load(function) as load:
        if not busy:
            await load.pause()
        for _ in range(2):
            started = time.monotonic()
            for worker in workers()[:count]:
                worker.send_signal(sent)
            await asyncio.sleep(0.1)
            load.resume()
            await load.full_service(WORKERS, started)
            await load.calls(50)
            if not busy:
                await load.pause()
        load.resume()
    settle(load, total, 2 * count, 2 * count if busy else 0)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
async def test_a_lone_worker_killed_from_outside(
    busy: bool, sent: signal.Signals, total: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "BRIEF_SECONDS", 1)
    async with loaded_subject(tmp_path / "plan", up=1) as function, Load(function) as load:
        for _ in range(3):
            if not busy:
                await load.pause()
            started = time.monotonic()
            workers()[0].send_signal(sent)
            await asyncio.sleep(0.1)
            load.resume()
            await load.full_service(1, started)
            await load.calls(50)
    # Of the calls that it has, one runs: the others are not on it yet.
    settle(load, total, 3, 3 if busy else 0)


async def test_the_whole_pool_by_its_own_calls(total: Tally, tmp_path: Path) -> None:
    async with loaded_subject(tmp_path / "plan") as function, Load(function) as load:
        started = time.monotonic()
        deaths: list[Any] = await asyncio.gather(
            *(call(function, deed, 0) for deed in list(DEADLY.values())[:WORKERS]),
            return_exceptions=True,
        )
        assert [type(death) for death in deaths] == [WorkerError] * WORKERS
        await load.full_service(WORKERS, started)
        await load.calls(50)
    settle(load, total, WORKERS, 0)


async def test_a_repeated_call_is_answered_where_the_handler_allows_it(total: Tally) -> None:
    code = "def handler(x):\n    return x * 2\n"
    subject = loaded(code, workers=2, idempotent=True, max_queue=256)
    async with subject as function, Load(function) as load:
        for _ in range(3):
            workers()[0].kill()
            await asyncio.sleep(0.1)
            await load.full_service(2, time.monotonic())
            await load.calls(50)
    settle(load, total, 3, 0)


async def test_errors_say_what_happened(tmp_path: Path) -> None:
    async with loaded_subject(tmp_path / "plan") as function:
        for deed, said in {1: "SIGSEGV", 2: "code 0", 3: "code 1", 4: "SIGKILL"}.items():
            with pytest.raises(RequestError, match=f"the call was on worker . .*{said}"):
                await call(function, deed, 0)
