from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mlserver_pyfunc.errors import OverloadedError, TimeLimitError
from mlserver_pyfunc.serving.executor import Executor, Job
from mlserver_pyfunc.serving.relay import AHEAD, AHEAD_SECONDS
from mlserver_pyfunc.serving.workers.wire.durations import BRIEF_SECONDS

# Mutation testing sets less: a mutant waits in vain.
WAIT = float(os.environ.get("MLSERVER_PYFUNC_TESTS_WAIT", "60"))


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Executor]]:
    """Makes executors; when the test ends their threads must end too."""
    executors = []

    def executor(concurrency: int = 1, max_queue: int = 8, timeout: float = 60) -> Executor:
        executors.append(Executor("iris", concurrency, max_queue, timeout))
        return executors[-1]

    yield executor
    for each in executors:
        each.close()
    await _until(lambda: not _threads(), "threads are left")


def _threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("pyfunc-iris")]


async def _until(condition: Callable[[], Any], message: str, seconds: float = WAIT) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message
        await asyncio.sleep(0.01)


def _raise(error: BaseException) -> Any:
    raise error


async def _raise_async(error: BaseException) -> Any:
    await asyncio.sleep(0)
    raise error


def _recurse() -> Any:
    return _recurse()


ERRORS: list[BaseException] = [
    ValueError("no"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    BaseException("base"),
    StopIteration(1),
    StopAsyncIteration(),
]


async def test_a_call_runs_on_a_thread_of_its_own_never_on_the_event_loops(make: Any) -> None:
    outcome = await make().run(threading.current_thread)
    assert outcome.get() is not threading.current_thread()
    assert outcome.get().name == "pyfunc-iris-0"
    assert outcome.get().daemon, "a call that never ends would keep the server from exiting"


async def test_with_one_slot_every_call_is_on_the_same_thread(make: Any) -> None:
    executor = make()
    idents = {(await executor.run(threading.get_ident)).get() for _ in range(20)}
    assert len(idents) == 1


async def test_context_variables_reach_the_call(make: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("value")
    assert (await make().run(variable.get)).get() == "value"


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
async def test_whatever_a_call_raises_is_a_value(error: BaseException, make: Any) -> None:
    executor = make()
    assert (await executor.run(lambda: _raise(error))).error is error
    assert (await executor.run(lambda: 1)).get() == 1


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
async def test_whatever_a_coroutine_raises_is_a_value(error: BaseException, make: Any) -> None:
    executor = make()
    outcome = await executor.run_async(lambda: _raise_async(error))
    if isinstance(error, StopIteration):
        assert isinstance(outcome.error, RuntimeError), "as Python itself makes of it"
    else:
        assert outcome.error is error
    assert (await executor.run_async(lambda: asyncio.sleep(0, 1))).get() == 1


async def test_endless_recursion_is_a_value(make: Any) -> None:
    assert isinstance((await make().run(_recurse)).error, RecursionError)


async def test_a_coroutine_that_cancels_itself_does_not_cancel_its_caller(make: Any) -> None:
    outcome = await make().run_async(lambda: _raise_async(asyncio.CancelledError()))
    assert isinstance(outcome.error, asyncio.CancelledError)


@pytest.mark.parametrize("concurrency", [1, 2, 4])
async def test_as_many_calls_run_at_a_time_as_there_are_slots(concurrency: int, make: Any) -> None:
    executor = make(concurrency, max_queue=20)
    running, most, lock = 0, 0, threading.Lock()

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    outcomes = await asyncio.gather(*[executor.run(call) for _ in range(12)])
    assert most == concurrency
    assert [outcome.error for outcome in outcomes] == [None] * 12


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_as_many_coroutines_run_at_a_time_as_there_are_slots(
    concurrency: int, make: Any
) -> None:
    executor = make(concurrency, max_queue=20)
    running, most = 0, 0

    async def call() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    outcomes = await asyncio.gather(*[executor.run_async(call) for _ in range(9)])
    assert most == concurrency
    assert [outcome.error for outcome in outcomes] == [None] * 9


async def test_the_event_loop_goes_on_while_a_call_blocks(make: Any) -> None:
    executor = make()
    for _ in range(20):  # short calls first: the executor may have learnt to expect them
        await executor.run(lambda: None)
    go = threading.Event()
    task = asyncio.ensure_future(executor.run(lambda: go.wait(WAIT)))
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert not task.done()
    go.set()
    assert (await task).get(), "the event loop waited for the call"


async def test_beyond_the_queue_calls_are_refused_at_once(make: Any) -> None:
    executor, go = make(2, max_queue=1), threading.Event()
    calls = [asyncio.ensure_future(executor.run(go.wait)) for _ in range(3)]
    await asyncio.sleep(0.02)
    with pytest.raises(OverloadedError) as caught:
        await executor.run(lambda: None)
    assert str(caught.value) == (
        'model "iris" is at its limit: 2 calls at a time (serving.concurrency) '
        "and 1 waiting (serving.max_queue)"
    )
    assert caught.value.retry_after == 1
    go.set()
    assert all(outcome.get() for outcome in await asyncio.gather(*calls))
    assert (await executor.run(lambda: 1)).get() == 1


async def test_beyond_the_queue_coroutines_are_refused_at_once(make: Any) -> None:
    executor, go = make(1, max_queue=1), asyncio.Event()
    calls = [asyncio.ensure_future(executor.run_async(go.wait)) for _ in range(2)]
    await asyncio.sleep(0.02)
    with pytest.raises(OverloadedError):
        await executor.run_async(go.wait)
    go.set()
    await asyncio.gather(*calls)
    assert (await executor.run_async(lambda: asyncio.sleep(0, 1))).get() == 1


async def test_a_queue_of_none_refuses_what_cannot_run_at_once(make: Any) -> None:
    executor, go = make(1, max_queue=0), threading.Event()
    call = asyncio.ensure_future(executor.run(go.wait))
    await asyncio.sleep(0.02)
    with pytest.raises(OverloadedError):
        await executor.run(lambda: None)
    go.set()
    await call


async def test_waiting_calls_run_in_the_order_they_came(make: Any) -> None:
    executor, order = make(max_queue=20), []
    await asyncio.gather(*[executor.run(lambda i=i: order.append(i)) for i in range(10)])
    assert order == list(range(10))


async def test_a_call_past_its_limit_is_answered_and_keeps_its_slot_until_it_ends(
    make: Any,
) -> None:
    executor = make(timeout=0.1)
    for _ in range(2):
        go = threading.Event()
        with pytest.raises(TimeLimitError) as caught:
            await executor.run(lambda go=go: go.wait(WAIT))
        assert str(caught.value) == (
            'call of model "iris" passed its time limit of 0.1 s (serving.timeout)'
        )
        await _until(lambda: not executor.has_slot, "the call does not hold its slot")
        go.set()
        await _until(lambda: executor.has_slot, "the slot is not free again")
        assert (await executor.run(lambda: 1)).get() == 1


async def test_a_call_is_overdue_when_it_has_run_for_its_limit(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, now, later = make(timeout=60), [1000.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("mlserver_pyfunc.serving.executor.time", clock)
    loop: Any = SimpleNamespace(call_later=lambda *args: later.append(args))
    job = Job(lambda: 1, loop=loop)
    executor.active.add()
    executor._note_overdue(job)
    assert executor.has_slot, "it has not begun"
    assert later == []
    job.began = 940.5
    executor._note_overdue(job)
    assert executor.has_slot
    assert later == [(0.5, executor._note_overdue, job)]
    now[0] = 1000.5
    executor._note_overdue(job)
    assert not executor.has_slot
    executor._end(job)
    assert executor.has_slot
    executor._note_overdue(job)
    assert executor.has_slot, "it has ended"
    assert len(later) == 1


async def test_a_call_that_ends_while_its_wakeup_is_requested_is_counted_off_once(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, finished, requested = Executor._finish, asyncio.Event(), threading.Event()

    def wait_briefly(job: Job, seconds: float) -> bool:
        job.request_wakeup()
        requested.set()
        return job.done.acquire(timeout=WAIT)

    def note_finish(self: Executor, job: Job) -> None:
        finish(self, job)
        finished.set()

    executor = make()
    monkeypatch.setattr(Job, "wait_briefly", wait_briefly)
    monkeypatch.setattr(Executor, "_finish", note_finish)
    assert (await executor.run(lambda: requested.wait(WAIT))).get()
    await asyncio.wait_for(finished.wait(), WAIT)
    assert executor.active.count == 0


async def test_a_model_has_a_slot_while_one_of_two_is_held(make: Any) -> None:
    executor, go = make(2, timeout=0.1), threading.Event()
    with pytest.raises(TimeLimitError):
        await executor.run(lambda: go.wait(WAIT))
    assert executor.has_slot
    assert (await executor.run(lambda: 1)).get() == 1
    go.set()


async def test_a_call_that_waited_past_its_limit_never_runs(make: Any) -> None:
    executor, go, ran = make(timeout=0.1), threading.Event(), []
    with pytest.raises(TimeLimitError):
        await asyncio.gather(
            executor.run(lambda: go.wait(WAIT)), executor.run(lambda: ran.append(1))
        )
    await asyncio.sleep(0.2)
    go.set()
    await _until(lambda: executor.has_slot, "the slot is not free again")
    await executor.run(lambda: None)
    assert ran == []


async def test_a_call_without_a_limit_is_held_to_none(make: Any) -> None:
    executor = make(timeout=0.05)
    assert (await executor.run(lambda: time.sleep(0.15) or 1, limited=False)).get() == 1


async def test_a_coroutine_past_its_limit_is_cancelled(make: Any) -> None:
    executor, ended = make(timeout=0.1), []

    async def call() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("cancelled")

    with pytest.raises(TimeLimitError):
        await executor.run_async(call)
    await _until(lambda: ended, "it was not cancelled")
    await _until(lambda: executor.has_slot, "the slot is not free again")
    assert (await executor.run_async(lambda: asyncio.sleep(0, 1))).get() == 1


async def test_a_coroutine_that_will_not_be_cancelled_keeps_its_slot(make: Any) -> None:
    executor = make(timeout=0.05)

    async def stubborn(go: asyncio.Event) -> None:
        while not go.is_set():
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue

    for _ in range(2):
        go = asyncio.Event()
        with pytest.raises(TimeLimitError):
            await executor.run_async(lambda go=go: stubborn(go))
        await asyncio.sleep(0.02)
        assert not executor.has_slot
        go.set()
        await _until(lambda: executor.has_slot, "the slot is not free again")


async def test_a_cancelled_coroutine_call_cancels_the_coroutine(make: Any) -> None:
    executor, ended = make(), asyncio.Event()

    async def call() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    task = asyncio.ensure_future(executor.run_async(call))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ended.wait(), WAIT)
    assert await executor.active.drain(WAIT)


async def test_a_cancelled_call_that_waits_never_runs_and_leaves_the_queue(make: Any) -> None:
    executor, go, ran = make(max_queue=1), threading.Event(), []
    first = asyncio.ensure_future(executor.run(go.wait))
    second = asyncio.ensure_future(executor.run(lambda: ran.append(1)))
    await asyncio.sleep(0.02)
    second.cancel()
    await asyncio.sleep(0)
    third = asyncio.ensure_future(executor.run(lambda: ran.append(3)))
    await asyncio.sleep(0.02)
    go.set()
    await asyncio.gather(first, third)
    assert ran == [3]


async def test_cancelled_calls_that_wait_are_freed_at_once(make: Any) -> None:
    executor, go = make(max_queue=1000), threading.Event()
    running = asyncio.ensure_future(executor.run(go.wait))
    await asyncio.sleep(0.02)
    payloads = [threading.Event() for _ in range(1000)]
    left = [weakref.ref(payload) for payload in payloads]
    calls = [asyncio.ensure_future(executor.run(payload.wait)) for payload in payloads]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    del payloads, calls, call
    await _until(lambda: gc.collect() + 1 and not any(p() for p in left), "calls are held")
    assert executor.active.count == 1
    last = asyncio.ensure_future(executor.run(lambda: 1))
    go.set()
    assert (await running).get()
    assert (await last).get() == 1


async def test_an_idle_thread_sleeps(make: Any) -> None:
    looks = []

    class Jobs(deque[Any]):
        def popleft(self) -> Any:
            looks.append(1)
            return super().popleft()

    executor = make()
    executor._jobs = Jobs()
    await executor.run(lambda: 1)
    await asyncio.sleep(0.05)
    assert len(looks) == 1


async def test_a_thread_keeps_nothing_of_a_call_that_was_dropped_before_it(make: Any) -> None:
    executor, payload = make(), threading.Event()
    await executor.run(lambda: None)
    left = weakref.ref(payload)
    job = Job(payload.wait)
    assert job.claim()
    executor._jobs.append(job)
    executor._wakeup.release()
    del job, payload
    await _until(lambda: left() is None, "the call is still held")
    assert (await executor.run(lambda: 1)).get() == 1


async def test_an_idle_thread_keeps_nothing_of_its_last_call(make: Any) -> None:
    executor, payload = make(), threading.Event()
    left = weakref.ref(payload)
    payload.set()
    await executor.run(payload.wait)
    del payload
    await _until(lambda: left() is None, "the call is still held")


async def test_drain_waits_for_calls_in_flight(make: Any) -> None:
    executor, go = make(), threading.Event()
    call = asyncio.ensure_future(executor.run(go.wait))
    await asyncio.sleep(0.02)
    assert not await executor.active.drain(0.05)
    asyncio.get_running_loop().call_later(0.05, go.set)
    assert await executor.active.drain(2)
    await call


async def test_drain_of_an_idle_executor_is_immediate(make: Any) -> None:
    assert await make().active.drain(0.01)


async def test_close_ends_the_threads_after_what_is_queued(make: Any) -> None:
    executor, done = make(2, max_queue=10), []
    calls = [
        asyncio.ensure_future(executor.run(lambda i=i: (time.sleep(0.02), done.append(i))))
        for i in range(6)
    ]
    await asyncio.sleep(0)
    executor.close()
    await asyncio.gather(*calls)
    assert sorted(done) == list(range(6))
    await _until(lambda: not _threads(), "threads are left")


def _numbers(count: int, made: list[int], closed: list[str]) -> Iterator[int]:
    try:
        for number in range(count):
            made.append(number)
            yield number
    finally:
        closed.append("closed")


async def _numbers_async(count: int, made: list[int], closed: list[str]) -> AsyncIterator[int]:
    try:
        for number in range(count):
            made.append(number)
            yield number
            await asyncio.sleep(0)
    finally:
        closed.append("closed")


def _stream(executor: Executor, kind: str, count: int, made: Any, closed: Any) -> Any:
    if kind == "sync":
        return executor.stream(lambda: _numbers(count, made, closed))
    return executor.stream_async(lambda: _numbers_async(count, made, closed))


KINDS = ["sync", "async"]


@pytest.mark.parametrize("count", [0, 1, 100])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_gives_every_item_in_order(kind: str, count: int, make: Any) -> None:
    closed: list[str] = []
    items = [o.get() async for o in _stream(make(), kind, count, [], closed)]
    assert items == list(range(count))
    assert closed == ["closed"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_generator_is_ahead_of_its_reader_by_few_items(kind: str, make: Any) -> None:
    made: list[int] = []
    stream = _stream(make(), kind, 1000, made, [])
    for expected in range(3):
        assert (await stream.__anext__()).get() == expected
        await asyncio.sleep(0.02)
        # One more for each time that the reader found none: it has waited by then.
        assert len(made) <= (expected + 1) * (AHEAD + 1), "it does not wait for its reader"
    await stream.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_generator_of_slow_items_is_ahead_by_two(kind: str, make: Any) -> None:
    made: list[int] = []

    def slow() -> Iterator[int]:
        for number in range(100):
            time.sleep(5 * AHEAD_SECONDS)
            made.append(number)
            yield number

    async def slow_async() -> AsyncIterator[int]:
        for number in range(100):
            await asyncio.sleep(5 * AHEAD_SECONDS)
            made.append(number)
            yield number

    executor = make()
    stream = executor.stream(slow) if kind == "sync" else executor.stream_async(slow_async)
    assert (await stream.__anext__()).get() == 0
    await asyncio.sleep(0.3)
    assert len(made) <= 3, "one that is read, one that waits, and one behind it"
    await stream.aclose()


async def test_the_limit_of_an_item_begins_with_it_not_with_its_reader(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        go.wait(WAIT)
        yield 1

    stream = make(timeout=1).stream(items)
    assert (await stream.__anext__()).get() == 0
    await asyncio.sleep(0.5)
    loop, delays = asyncio.get_running_loop(), []
    later = loop.call_later

    def call_later(delay: float, *arguments: Any) -> Any:
        delays.append(delay)
        return later(delay, *arguments)

    monkeypatch.setattr(loop, "call_later", call_later)
    with pytest.raises(TimeLimitError):
        await stream.__anext__()
    assert delays[0] <= 0.5, "it would get a whole limit when its reader comes"
    go.set()


async def test_a_client_that_leaves_while_it_waits_for_an_item_leaves_no_task(make: Any) -> None:
    go_on = threading.Event()

    def wait() -> Iterator[int]:
        go_on.wait()
        yield 1

    before = asyncio.all_tasks()
    stream = make().stream(wait)
    reader = asyncio.ensure_future(stream.__anext__())
    await asyncio.sleep(0.05)
    reader.cancel()
    await asyncio.wait({reader})
    try:
        await _until(lambda: asyncio.all_tasks() == before, "a task waits for ever", 5)
    finally:
        go_on.set()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_is_left_is_closed_and_frees_its_slot(kind: str, make: Any) -> None:
    executor, closed = make(max_queue=0), []
    stream = _stream(executor, kind, 100, [], closed)
    await stream.__anext__()
    await stream.aclose()
    await _until(lambda: closed, "the generator was not closed", 1)
    assert await executor.active.drain(WAIT)
    assert [o.get() async for o in _stream(executor, kind, 2, [], [])] == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_whose_reader_is_cancelled_is_closed(kind: str, make: Any) -> None:
    executor, closed = make(), []

    async def read() -> None:
        async for _ in _stream(executor, kind, 10**6, [], closed):
            await asyncio.sleep(0.005)

    reader = asyncio.ensure_future(read())
    await asyncio.sleep(0.05)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await _until(lambda: closed, "the generator was not closed", 2)
    assert await executor.active.drain(WAIT)


@pytest.mark.parametrize("error", ERRORS[:5], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_is_the_last_item_of_a_stream(
    kind: str, error: BaseException, make: Any
) -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise error

    async def fail_async() -> AsyncIterator[int]:
        yield 1
        raise error

    executor = make()
    stream = executor.stream(fail) if kind == "sync" else executor.stream_async(fail_async)
    outcomes = [outcome async for outcome in stream]
    assert [outcome.value for outcome in outcomes] == [1, None]
    assert outcomes[-1].error is error
    assert (await executor.run(lambda: 1)).get() == 1


@pytest.mark.parametrize("when", ["item", "close"])
async def test_an_async_stream_that_cancels_itself_does_not_cancel_its_reader(
    when: str, make: Any
) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            if when == "item":
                raise asyncio.CancelledError
            yield 2
        finally:
            if when == "close":
                raise asyncio.CancelledError

    executor = make()
    stream = executor.stream_async(items)
    assert (await stream.__anext__()).get() == 1
    if when == "item":
        assert isinstance((await stream.__anext__()).error, asyncio.CancelledError)
    await stream.aclose()
    assert await executor.active.drain(WAIT)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_item_past_the_limit_ends_a_stream(kind: str, make: Any) -> None:
    go = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        go.wait(WAIT)
        yield 2

    async def slow_async() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(3600)
        yield 2

    executor = make(timeout=1)
    stream = executor.stream(slow) if kind == "sync" else executor.stream_async(slow_async)
    assert (await stream.__anext__()).get() == 1
    with pytest.raises(TimeLimitError):
        await stream.__anext__()
    if kind == "sync":
        assert not executor.has_slot
    go.set()
    await _until(lambda: executor.has_slot, "the slot is not free again")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_limit_that_passes_as_a_stream_ends_changes_nothing(
    kind: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, timers = asyncio.get_running_loop(), []
    later = loop.call_later

    def call_later(delay: float, callback: Any, *arguments: Any) -> Any:
        timers.append(lambda: callback(*arguments))
        return later(delay, callback, *arguments)

    monkeypatch.setattr(loop, "call_later", call_later)
    executor = make()
    assert [o.get() async for o in _stream(executor, kind, 3, [], [])] == [0, 1, 2]
    assert timers
    for passes in timers:
        passes()
    assert executor.has_slot


@pytest.mark.parametrize("kind", KINDS)
async def test_the_limit_is_of_each_item_not_of_the_stream(kind: str, make: Any) -> None:
    def slow() -> Iterator[int]:
        for number in range(5):
            time.sleep(0.4)
            yield number

    async def slow_async() -> AsyncIterator[int]:
        for number in range(5):
            await asyncio.sleep(0.4)
            yield number

    executor = make(timeout=1.5)
    stream = executor.stream(slow) if kind == "sync" else executor.stream_async(slow_async)
    assert [outcome.get() async for outcome in stream] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_takes_a_slot_and_beyond_the_queue_is_refused(kind: str, make: Any) -> None:
    executor = make(max_queue=0)
    stream = _stream(executor, kind, 100, [], [])
    await stream.__anext__()
    with pytest.raises(OverloadedError):
        await _stream(executor, kind, 100, [], []).__anext__()
    await stream.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_is_never_read_takes_nothing(kind: str, make: Any) -> None:
    executor = make(max_queue=0)
    stream = _stream(executor, kind, 100, [], [])
    await stream.aclose()
    assert [o.get() async for o in _stream(executor, kind, 1, [], [])] == [0]


async def test_an_async_stream_that_waits_for_a_slot_is_held_to_the_limit(make: Any) -> None:
    executor = make(max_queue=1, timeout=1)
    first = executor.stream_async(lambda: _numbers_async(1000, [], []))
    await first.__anext__()
    second = executor.stream_async(lambda: _numbers_async(10, [], []))
    with pytest.raises(TimeLimitError):
        await asyncio.wait_for(second.__anext__(), WAIT)
    await first.aclose()


async def test_a_sync_stream_that_waits_for_a_slot_is_held_to_the_limit(make: Any) -> None:
    executor = make(max_queue=1, timeout=1)
    first = executor.stream(lambda: _numbers(1000, [], []))
    await first.__anext__()
    second = executor.stream(lambda: _numbers(10, [], []))
    with pytest.raises(TimeLimitError):
        await asyncio.wait_for(second.__anext__(), WAIT)
    await first.aclose()
    await second.aclose()


async def test_the_thread_of_a_call_does_not_free_its_result(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job, go = Executor._run_job, threading.Event()

    def run_and_hold(self: Executor, job: Any) -> None:
        run_job(self, job)
        go.wait(WAIT)

    monkeypatch.setattr(Executor, "_run_job", run_and_hold)
    outcome = await make().run(threading.Event)
    result = weakref.ref(outcome.get())
    del outcome
    held = result() is not None
    go.set()
    assert not held


async def test_the_thread_of_a_call_past_its_limit_does_not_free_its_result(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job, go, free = Executor._run_job, threading.Event(), threading.Event()
    left: list[Any] = []

    def run_and_hold(self: Executor, job: Any) -> None:
        run_job(self, job)
        free.wait(WAIT)

    def answer_late() -> Any:
        go.wait(WAIT)
        result = threading.Event()
        left.append(weakref.ref(result))
        return result

    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    monkeypatch.setattr(Executor, "_run_job", run_and_hold)
    with pytest.raises(TimeLimitError):
        await make(timeout=0.1).run(answer_late)
    go.set()
    try:
        await _until(lambda: left and left[0]() is None, "the result is held")
    finally:
        free.set()
    assert failures == []


async def test_idle_threads_have_ended_when_the_executor_is_closed(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Executor._work

    def end_slowly(self: Executor) -> None:
        work(self)
        time.sleep(0.2)

    failures: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    monkeypatch.setattr(Executor, "_work", end_slowly)
    executor = make(concurrency=3)
    await asyncio.gather(*[executor.run(lambda: time.sleep(0.01)) for _ in range(6)])
    assert len(_threads()) == 3
    executor.close()
    assert not _threads()
    assert failures == []


async def test_a_call_after_the_executor_is_closed_finds_threads(make: Any) -> None:
    executor = make()
    await executor.run(lambda: 1)
    executor.close()
    assert (await asyncio.wait_for(executor.run(lambda: 2), WAIT)).get() == 2


async def test_a_stream_that_is_left_while_it_waits_leaves_the_queue_and_never_runs(
    make: Any,
) -> None:
    executor, go, made = make(max_queue=1), threading.Event(), []
    running = asyncio.ensure_future(executor.run(lambda: go.wait(WAIT)))
    await asyncio.sleep(0)

    def items() -> Iterator[int]:
        made.append(1)
        return iter([1])

    stream = executor.stream(items)
    reader = asyncio.ensure_future(stream.__anext__())
    await asyncio.sleep(0)
    assert executor.active.count == 2
    reader.cancel()
    await asyncio.wait({reader})
    assert executor.active.count == 1
    go.set()
    await running
    await executor.run(lambda: None)
    assert made == []


async def test_to_close_does_not_wait_for_a_call_that_runs(make: Any) -> None:
    executor, go = make(timeout=0.1), threading.Event()
    with pytest.raises(TimeLimitError):
        await executor.run(lambda: go.wait(WAIT))
    executor.close()
    assert _threads()
    go.set()


def _fix_average(executor: Executor, seconds: float) -> None:
    executor._limit.typical = SimpleNamespace(seconds=seconds, add=lambda _: None)  # type: ignore[assignment]


async def test_only_a_call_that_has_waited_may_be_too_late_to_begin(make: Any) -> None:
    executor, go = make(concurrency=2, timeout=60), threading.Event()
    _fix_average(executor, 1000)
    first = [asyncio.ensure_future(executor.run(lambda: go.wait(WAIT))) for _ in range(2)]
    await asyncio.sleep(0)
    assert executor.is_full
    waited = asyncio.ensure_future(executor.run(lambda: 1))
    await asyncio.sleep(0)
    go.set()
    assert [outcome.get() for outcome in await asyncio.gather(*first)] == [True, True]
    assert isinstance((await waited).error, TimeLimitError)
    assert not executor.is_full
    assert (await executor.run(lambda: 2)).get() == 2


async def test_only_a_coroutine_that_has_waited_may_be_too_late_to_begin(make: Any) -> None:
    executor, go = make(concurrency=2, timeout=60), asyncio.Event()
    _fix_average(executor, 1000)
    first = [asyncio.ensure_future(executor.run_async(go.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    waited = asyncio.ensure_future(executor.run_async(lambda: asyncio.sleep(0, 1)))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*first)
    assert isinstance((await waited).error, TimeLimitError)
    assert (await executor.run_async(lambda: asyncio.sleep(0, 2))).get() == 2


async def test_a_coroutine_that_has_waited_is_begun_in_time(make: Any) -> None:
    executor, go = make(), asyncio.Event()
    first = asyncio.ensure_future(executor.run_async(go.wait))
    await asyncio.sleep(0.02)
    second = asyncio.ensure_future(executor.run_async(lambda: asyncio.sleep(0, 2)))
    await asyncio.sleep(0.02)
    go.set()
    assert (await first).get() is True
    assert (await second).get() == 2


async def test_the_loop_waits_for_a_call_only_if_it_is_brief_and_alone(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    wait = Job.wait_briefly

    def wait_briefly(job: Job, seconds: float) -> bool:
        waits.append(seconds)
        return wait(job, seconds)

    monkeypatch.setattr(Job, "wait_briefly", wait_briefly)
    executor, go = make(concurrency=2), threading.Event()
    for share in (0.49, 0.5):
        _fix_average(executor, BRIEF_SECONDS * share)
        await executor.run(lambda: 1)
    _fix_average(executor, 0)
    other = asyncio.ensure_future(executor.run(lambda: go.wait(WAIT)))
    await asyncio.sleep(0)
    await executor.run(lambda: 1)
    go.set()
    await other
    assert waits == [BRIEF_SECONDS, 0, BRIEF_SECONDS, 0]


async def test_the_average_is_that_of_calls_not_of_loads(make: Any) -> None:
    executor = make()
    await executor.run(lambda: time.sleep(0.05), limited=False)
    assert executor._limit.typical.seconds == BRIEF_SECONDS
    await executor.run(lambda: time.sleep(0.05))
    assert 0.05 <= executor._limit.typical.seconds < 60
    executor = make()
    await executor.run_async(lambda: asyncio.sleep(0.05))
    assert 0.04 <= executor._limit.typical.seconds < 60
