"""Prefetch: brief calls are queued in a worker while it is busy."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from mlserver_pyfunc.errors import OverloadedError, TimeLimitError, WorkerError
from mlserver_pyfunc.serving.function import Function
from mlserver_pyfunc.serving.workers import dispatcher as dispatching
from mlserver_pyfunc.serving.workers.connection import Connection

from .functions import call, loaded, request, until, until_ready

# x[0]: 1 ends the worker, 2 waits for `go`, 3 takes for ever, 4 raises, 5 takes 0.3 seconds; each
# call is noted.
CODE = """
import os, time

def note(context, text):
    with open(context.init_parameters["notes"], "a") as notes:
        notes.write(text + "\\n")

def handler(x, context):
    note(context, f"{x[1]:g}")
    if x[0] == 1:
        os._exit(1)
    while x[0] == 2 and not os.path.exists(context.init_parameters["notes"] + "-go"):
        time.sleep(0.01)
    if x[0] == 3:
        time.sleep(3600)
    if x[0] == 5:
        time.sleep(0.3)
    if x[0] == 4:
        raise ValueError("four")
    return x * 2
"""


@pytest.fixture(autouse=True)
def all_calls_are_brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's load; a worker holds its results all the same only if they are."""
    monkeypatch.setattr(dispatching, "BRIEF_SECONDS", 3600)


def subject(tmp_path: Path, **serving: Any) -> Any:
    notes = {"notes": str(tmp_path / "notes")}
    return loaded(CODE, init_parameters=notes, **{"max_queue": 1000, **serving})


def go(tmp_path: Path) -> None:
    """Ends the calls that wait."""
    (tmp_path / "notes-go").touch()


def notes(tmp_path: Path) -> list[int]:
    """Which calls have begun, in order."""
    return [int(line) for line in (tmp_path / "notes").read_text().split()]


async def warm_up(function: Function) -> None:
    for number in range(50):
        await call(function, 0, 1000 + number)


def on_workers(function: Function) -> int:
    """How many calls the workers have, in all."""
    dispatcher = function.runner._dispatcher  # type: ignore[union-attr]
    return sum(len(worker.calls) for worker in dispatcher.workers)


def start(function: Function, deeds: list[int]) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(call(function, deed, n)) for n, deed in enumerate(deeds)]


async def test_answers_go_to_their_calls_in_order(tmp_path: Path) -> None:
    async with subject(tmp_path) as function:
        await warm_up(function)
        tasks = start(function, [0] * 200)
        await asyncio.sleep(0)
        assert on_workers(function) == dispatching.MAX_CALLS
        answers = await asyncio.gather(*tasks)
        assert [answer.tolist() for answer in answers] == [[0, 2 * n] for n in range(200)]
        assert notes(tmp_path)[50:] == list(range(200))


async def test_a_death_fails_the_call_that_ran_alone(tmp_path: Path) -> None:
    async with subject(tmp_path) as function:
        await warm_up(function)
        deeds = [1 if n in (5, 20) else 0 for n in range(60)]
        answers = await asyncio.gather(*start(function, deeds), return_exceptions=True)
        for number, answer in enumerate(answers):
            if deeds[number]:
                assert isinstance(answer, WorkerError)
            else:
                assert answer.tolist() == [0, 2 * number]
        assert sorted(notes(tmp_path)[50:]) == list(range(60)), "one did not run once"


async def test_results_of_a_worker_that_died_with_calls_unread_are_taken(tmp_path: Path) -> None:
    async with subject(tmp_path) as function:
        await warm_up(function)
        tasks = start(function, [5, 0, 0, 1])
        await asyncio.sleep(0.05)
        tasks += [asyncio.ensure_future(call(function, 0, n)) for n in range(4, 10)]
        await asyncio.sleep(0.05)
        # The server looks only when the worker is gone.
        time.sleep(1)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers.pop(3), WorkerError)
        assert [answer[1] for answer in answers] == [2 * n for n in range(10) if n != 3]
        assert notes(tmp_path)[50:] == list(range(10))


async def test_an_idempotent_call_that_ends_the_worker_is_repeated_once(tmp_path: Path) -> None:
    async with subject(tmp_path, idempotent=True) as function:
        await warm_up(function)
        answers = await asyncio.gather(*start(function, [0, 1, 0]), return_exceptions=True)
        assert [type(answer) for answer in answers].count(WorkerError) == 1
        assert sorted(notes(tmp_path)[50:]) == [0, 1, 1, 2]


async def test_results_do_not_wait_for_a_call_that_takes_long(tmp_path: Path) -> None:
    async with subject(tmp_path) as function:
        await warm_up(function)
        tasks = start(function, [0] * 10 + [2] + [0] * 5)
        await asyncio.gather(*tasks[:10])
        assert not any(task.done() for task in tasks[10:])
        go(tmp_path)
        await asyncio.gather(*tasks)


async def test_a_call_past_its_limit_fails_alone(tmp_path: Path) -> None:
    async with subject(tmp_path, timeout=6) as function:
        await warm_up(function)
        stuck = start(function, [3])[0]
        # The time that a new worker has to answer the later calls within their limit.
        await asyncio.sleep(5)
        later = start(function, [0] * 10)
        with pytest.raises(TimeLimitError):
            await stuck
        answers = await asyncio.gather(*later)
        assert [answer.tolist() for answer in answers] == [[0, 2 * n] for n in range(10)]


async def test_prefetched_calls_that_wait_too_long_are_over_their_limit(tmp_path: Path) -> None:
    async with subject(tmp_path, timeout=1) as function:
        await warm_up(function)
        failed = await asyncio.gather(*start(function, [3] + [0] * 5), return_exceptions=True)
        assert all(isinstance(error, TimeLimitError) for error in failed)
        await until_ready(function)
        assert (await call(function, 0, 1)).tolist() == [0, 2]
        assert notes(tmp_path)[50:] == [0, 1], "only the first had begun"


async def test_prefetched_calls_count_as_waiting(tmp_path: Path) -> None:
    async with subject(tmp_path, max_queue=4) as function:
        await warm_up(function)
        answers = await asyncio.gather(*start(function, [0] * 20), return_exceptions=True)
        refused = [isinstance(answer, OverloadedError) for answer in answers]
        assert refused == [False] * 5 + [True] * 15


async def test_the_metrics_count_them_as_waiting(tmp_path: Path) -> None:
    def depth() -> float | None:
        labels = {"model": "subject", "version": "1"}
        return REGISTRY.get_sample_value("pyfunc_queue_depth", labels)

    async with subject(tmp_path) as function:
        await warm_up(function)
        tasks = start(function, [2] + [0] * 50)
        await until(lambda: depth() == 50)
        go(tmp_path)
        await asyncio.gather(*tasks)
        await until(lambda: depth() == 0)


async def test_a_call_that_nobody_waits_for_disturbs_no_other(tmp_path: Path) -> None:
    async with subject(tmp_path) as function:
        await warm_up(function)
        tasks = start(function, [2] + [0] * 10)
        await asyncio.sleep(0.2)
        for task in tasks[:5]:
            task.cancel()
        go(tmp_path)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [answer.tolist() for answer in answers[5:]] == [[0, 2 * n] for n in range(5, 11)]


async def test_an_error_is_its_calls_alone(tmp_path: Path) -> None:
    async with subject(tmp_path) as function:
        await warm_up(function)
        answers = await asyncio.gather(
            *start(function, [4 if n % 3 else 0 for n in range(30)]), return_exceptions=True
        )
        for number, answer in enumerate(answers):
            if number % 3:
                assert "ValueError: four" in str(answer)
            else:
                assert answer.tolist() == [0, 2 * number]


async def test_big_tensors_are_prefetched_up_to_a_size() -> None:
    async with loaded("def handler(x):\n    return x[:1]\n", max_queue=1000) as function:
        for _ in range(50):
            await call(function, 1)
        big = np.ones(2**20, dtype=np.float32)
        tasks = [asyncio.ensure_future(function.infer(request(x=big * n))) for n in range(20)]
        await asyncio.sleep(0)
        assert on_workers(function) == dispatching.MAX_BYTES // big.nbytes
        answers = await asyncio.gather(*tasks)
        assert [answer.arrays[0].array[0] for answer in answers] == list(range(20))


async def test_big_tensors_are_prefetched_too(tmp_path: Path) -> None:
    async with loaded("def handler(x):\n    return x * 2\n", max_queue=1000) as function:
        sizes = [1, 50_000, 3, 100_000, 5_000, 2] * 10
        answers = await asyncio.gather(*(call(function, *([n] * n)) for n in sizes))
        assert [(a.size, a[0]) for a in answers] == [(n, 2 * n) for n in sizes]


async def test_threads_take_calls_as_they_are_free(tmp_path: Path) -> None:
    async with subject(tmp_path, concurrency=2) as function:
        await warm_up(function)
        tasks = start(function, [0] * 50)
        await asyncio.sleep(0)
        assert on_workers(function) == 2
        await asyncio.gather(*tasks)


async def test_calls_behind_a_long_one_are_taken_back_for_other_workers(tmp_path: Path) -> None:
    async with subject(tmp_path, workers=2) as function:
        await warm_up(function)
        tasks = start(function, [2] + [0] * 50)
        answers = await asyncio.gather(*tasks[1:])
        assert not tasks[0].done()
        go(tmp_path)
        assert [answer.tolist() for answer in answers] == [[0, 2 * n] for n in range(1, 51)]
        await tasks[0]
        answers = await asyncio.gather(*start(function, [0] * 50))
        assert [answer.tolist() for answer in answers] == [[0, 2 * n] for n in range(50)]
        assert sorted(notes(tmp_path)[50:]) == sorted([*range(51), *range(50)]), "not once each"
        workers = function.runner._dispatcher.workers  # type: ignore[union-attr]
        await until(lambda: not any(worker.taken_back for worker in workers))


async def test_a_call_past_its_limit_takes_none_with_it(tmp_path: Path) -> None:
    async with subject(tmp_path, workers=2, timeout=3) as function:
        await warm_up(function)
        stuck, *others = start(function, [3] + [0] * 50)
        answers = await asyncio.gather(*others)
        assert [answer.tolist() for answer in answers] == [[0, 2 * n] for n in range(1, 51)]
        with pytest.raises(TimeLimitError):
            await stuck
        assert sorted(notes(tmp_path)[50:]) == list(range(51))


async def test_each_call_runs_once_whatever_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of uneven length, as many at a time as are prefetched, to three workers."""
    code = """
import os, time

def handler(x, context):
    with open(context.init_parameters["notes"], "a") as notes:
        print(f"{x[1]:g}", file=notes)
    time.sleep(float(x[0]))
    return x * 2
"""
    taken = []
    take_back = Connection.take_back
    monkeypatch.setattr(
        Connection, "take_back", lambda self: taken.append(take_back(self)) or taken[-1]
    )
    parameters = {"notes": str(tmp_path / "notes")}
    lengths = random.Random(7)
    async with loaded(code, init_parameters=parameters, workers=3, max_queue=1000) as function:

        async def client(first: int) -> None:
            for number in range(first, first + 50):
                length = lengths.choice([0] * 20 + [0.001, 0.003, 0.01, 0.05])
                answer = await call(function, length, number)
                assert answer[1] == 2 * number

        await asyncio.gather(*(client(100 * n) for n in range(60)))
        workers = function.runner._dispatcher.workers  # type: ignore[union-attr]
        assert [len(worker.calls) for worker in workers] == [0, 0, 0]
    assert sum(taken) > 10
    expected = [100 * n + k for n in range(60) for k in range(50)]
    assert sorted(notes(tmp_path)) == expected


async def test_a_function_that_prints_has_one_call_at_a_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    code = "def handler(x):\n    print('value', x[0])\n    return x\n"
    async with loaded(code, max_queue=100) as function:
        caplog.set_level(logging.INFO, "mlserver.pyfunc")
        await call(function, 1000)
        await asyncio.sleep(0.05)
        await asyncio.gather(*(call(function, n, id=f"id-{n}") for n in range(20)))
        await asyncio.sleep(0.1)
    lines = [r.getMessage() for r in caplog.records if "value" in r.getMessage()]
    assert len(lines) == 21
    for n, line in enumerate(lines[1:]):
        # A line may come after its call's answer: then it has no id, or that of the next.
        assert f"value {n}.0" in line
        assert "request" not in line or f"id-{n}]" in line or f"id-{n + 1}]" in line
