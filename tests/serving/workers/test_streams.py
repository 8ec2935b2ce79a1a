"""Generators and async handlers across the border of the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlserver_pyfunc.errors import HandlerError, InferenceError, TimeLimitError, WorkerError
from mlserver_pyfunc.serving.function import Function
from mlserver_pyfunc.serving.relay import AHEAD
from mlserver_pyfunc.serving.runner import Answer

from .functions import call, children, loaded, request, until, until_ready

SYNC = """
import os, pathlib, time
from mlserver_pyfunc import InferenceError

def handler(x, context):
    folder = pathlib.Path(context.init_parameters["folder"])
    try:
        for n in range(int(x[0])):
            if len(x) > 1 and n == 2:
                if x[1] == 1: raise InferenceError("no more", 409)
                if x[1] == 2: os._exit(5)
                if x[1] == 3: time.sleep(60)
                if x[1] == 4: 1 / 0
                if x[1] == 5: n = "text"
            (folder / "made").write_text(str(n + 1) if n != "text" else "")
            yield n
    finally:
        (folder / "closed").touch()
"""

ASYNC = SYNC.replace("def handler", "import asyncio\nasync def handler").replace(
    "time.sleep", "await asyncio.sleep"
)

KINDS = {
    "sync": (SYNC, {}),
    "sync threads": (SYNC, {"concurrency": 2}),
    "async": (ASYNC, {"concurrency": 2}),
    "async alone": (ASYNC, {}),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    code, more = KINDS[request.param]
    return {"code": code, "init_parameters": {"folder": str(tmp_path)}, **more}


async def rest_of(stream: AsyncIterator[Answer]) -> list[float]:
    return [answer.arrays[0].array.item() async for answer in stream]


async def items(function: Function, *values: float) -> list[float]:
    return await rest_of(function.stream(request(*values)))


async def test_items_arrive_in_order_and_the_generator_is_closed(
    kind: dict[str, object], tmp_path: Path
) -> None:
    async with loaded(**kind) as function:
        assert await items(function, 50) == list(range(50))
        assert (tmp_path / "closed").exists()
        assert await items(function, 0) == []


async def test_a_generator_is_ahead_of_its_reader_by_few_items(
    kind: dict[str, object], tmp_path: Path
) -> None:
    async with loaded(**kind) as function:
        stream = function.stream(request(1000))
        for _ in range(3):
            await anext(stream)
        await asyncio.sleep(0.2)
        made = int((tmp_path / "made").read_text())
        assert made <= 3 * (AHEAD + 1), "it does not wait for its reader"
        await stream.aclose()


async def test_a_client_that_leaves_closes_the_generator_and_frees_its_place(
    kind: dict[str, object], tmp_path: Path
) -> None:
    async with loaded(**kind) as function:
        stream = function.stream(request(1000))
        await anext(stream)
        await stream.aclose()
        await until((tmp_path / "closed").exists)
        assert await items(function, 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        (1, InferenceError, "no more"),
        (2, WorkerError, "which exited with code 5"),
        (3, TimeLimitError, "passed its time limit"),
        (4, HandlerError, "ZeroDivisionError"),
        (5, Exception, "expected"),
    ],
)
async def test_an_error_comes_after_the_items_before_it(
    kind: dict[str, object], how: int, error: type[Exception], message: str
) -> None:
    async with loaded(**kind, timeout=2 if error is TimeLimitError else 30) as function:
        stream = function.stream(request(9, how))
        for n in range(2):
            assert (await anext(stream)).arrays[0].array.item() == n
        with pytest.raises(error, match=message):
            await anext(stream)
        # A time limit counts the wait for another worker too.
        await until_ready(function)
        assert await items(function, 3) == [0, 1, 2]


@pytest.mark.parametrize("isolation", ["none", "process"])
async def test_an_async_stream_that_cancels_itself_is_the_handlers_error(isolation: str) -> None:
    code = """
import asyncio

async def handler(x):
    yield x
    raise asyncio.CancelledError
"""
    async with loaded(code, isolation=isolation) as function:
        stream = function.stream(request(1))
        await stream.__anext__()
        with pytest.raises(HandlerError, match="raised CancelledError"):
            await stream.__anext__()


async def test_a_death_is_told_after_the_items_that_were_made(tmp_path: Path) -> None:
    async with loaded(SYNC, init_parameters={"folder": str(tmp_path)}) as function:
        stream = function.stream(request(1000))
        await anext(stream)
        (worker,) = children()
        worker.kill()
        await asyncio.sleep(0.3)
        with pytest.raises(WorkerError, match="SIGKILL"):
            await rest_of(stream)
        assert await items(function, 2) == [0, 1]


async def test_a_slow_reader_is_not_over_the_time_limit(
    kind: dict[str, object],
) -> None:
    async with loaded(**kind, timeout=1) as function:
        seen = []
        async for answer in function.stream(request(2)):
            seen.append(answer.arrays[0].array.item())
            await asyncio.sleep(1.2)
        assert seen == [0, 1]


async def test_streams_run_beside_each_other() -> None:
    code = """
import time

def handler(x):
    for n in range(5):
        time.sleep(0.05)
        yield x + n
"""
    async with loaded(code, concurrency=2, workers=2) as function:
        both = await asyncio.gather(*(items(function, 100 * n) for n in range(4)))
        assert both == [[100 * n + k for k in range(5)] for n in range(4)]


ASYNC_PLAIN = """
import asyncio, pathlib, time
running = most = 0
loops = set()

async def setup(context):
    loops.add(id(asyncio.get_running_loop()))

async def handler(x, context):
    global running, most
    loops.add(id(asyncio.get_running_loop()))
    running += 1
    most = max(most, running)
    try:
        if x[0] > 9:
            pathlib.Path(context.init_parameters["mark"] + "-begun").touch()
        if x[0] < 0:
            time.sleep(60)
        await asyncio.sleep(float(x[0]))
    except asyncio.CancelledError:
        pathlib.Path(context.init_parameters["mark"]).touch()
        raise
    finally:
        running -= 1
    return [most, len(loops)]
"""


async def test_async_handlers_run_together_on_the_loop_of_init(tmp_path: Path) -> None:
    more = {"init_parameters": {"mark": str(tmp_path / "m")}, "init_function": "setup"}
    async with loaded(ASYNC_PLAIN, concurrency=8, **more) as function:
        answers = await asyncio.gather(*(call(function, 1) for _ in range(8)))
        assert max(answer[0] for answer in answers) == 8
        assert answers[0][1] == 1


async def test_an_async_handler_past_its_limit_is_cancelled_and_its_worker_lives(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "cancelled"
    more = {"init_parameters": {"mark": str(mark)}}
    async with loaded(ASYNC_PLAIN, concurrency=2, timeout=1.5, **more) as function:
        other = asyncio.ensure_future(call(function, 0.3))
        with pytest.raises(TimeLimitError):
            await call(function, 30)
        await other
        await until(mark.exists)
        assert "last_exit" not in function.metadata
        # One that does not let itself be cancelled is stopped with its worker.
        with pytest.raises(TimeLimitError):
            await call(function, -1)
        await until(lambda: "passed its limit" in function.metadata.get("last_exit", ""))
        await until_ready(function)
        await call(function, 0)


async def test_a_client_that_leaves_cancels_an_async_handler(tmp_path: Path) -> None:
    mark = tmp_path / "cancelled"
    async with loaded(ASYNC_PLAIN, init_parameters={"mark": str(mark)}) as function:
        waiting = asyncio.ensure_future(call(function, 30))
        await until(mark.with_name("cancelled-begun").exists)
        waiting.cancel()
        await until(mark.exists)
        await call(function, 0)


async def test_a_client_that_leaves_frees_a_sync_handler_when_it_ends() -> None:
    code = "import time\ndef handler(x):\n    time.sleep(float(x[0]))\n    return x\n"
    async with loaded(code) as function:
        waiting = asyncio.ensure_future(call(function, 0.3))
        queued = asyncio.ensure_future(call(function, 0.1))
        await asyncio.sleep(0.1)
        waiting.cancel()
        queued.cancel()
        assert (await call(function, 0)).tolist() == [0]


async def test_a_sync_handler_may_return_an_awaitable() -> None:
    code = """
import asyncio

async def later(x):
    await asyncio.sleep(0.01)
    return x * 2

def handler(x):
    return later(x)
"""
    async with loaded(code) as function:
        assert (await call(function, 4)).tolist() == [8]
