"""Runs a function's calls: some at a time, some waiting, each within its time limit.

A handler that is not async runs on a thread of the function's own, never on the event
loop, so health and metadata answer while it works. With `concurrency: 1` that is one and
the same thread from init to unload.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from mlserver_pyfunc.errors import OverloadedError, TimeLimitError

from .job import GeneratorBridge, Job, Outcome
from .wakeup import WakeupSemaphore

T = TypeVar("T")

BRIEF_SECONDS = 100e-6
"""For how long the event loop may wait for a call that tends to be shorter. Handing the
result back through the loop would cost more CPU than such a call itself."""


class Executor:
    """Runs calls on the event loop's behalf. All methods are for the event loop's thread.

    Args:
        model_name: Named in errors and in thread names.
        concurrency: Calls at a time.
        max_queue: Calls that may wait.
        timeout: Seconds a call may take, waiting included; for a stream, each item.
    """

    def __init__(self, model_name: str, concurrency: int, max_queue: int, timeout: float) -> None:
        self._model_name = model_name
        self._concurrency = concurrency
        self._max_queue = max_queue
        self._timeout = timeout
        self._admitted = 0
        self._overdue = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._slots = asyncio.Semaphore(concurrency)
        self._jobs: deque[Job | None] = deque()
        self._wakeup = WakeupSemaphore()
        self._threads: list[threading.Thread] = []
        self._typical_seconds = BRIEF_SECONDS

    @property
    def _is_brief(self) -> bool:
        """Whether calls tend to end in less time than waking the event loop takes."""
        return self._typical_seconds < BRIEF_SECONDS / 2

    @property
    def is_full(self) -> bool:
        """Whether the next call has to wait."""
        return self._admitted >= self._concurrency

    @property
    def has_slot(self) -> bool:
        """Whether a call could run: not every slot is held by a call past its limit."""
        return self._overdue < self._concurrency

    async def run(self, function: Callable[[], T], *, limited: bool = True) -> Outcome[T]:
        """Calls a function on a thread.

        Args:
            function: Takes nothing.
            limited: Hold it to the time limit.

        Raises:
            OverloadedError: Too many calls wait.
            TimeLimitError: The limit passed. The call, if it has begun, keeps its slot
                until it ends.
        """
        alone = not self._admitted
        job = Job(function)
        self._submit(job)
        if job.wait_briefly(BRIEF_SECONDS if alone and self._is_brief else 0):
            self._end(job)
            return job.outcome
        timer = job.loop.call_later(self._timeout, self._expire, job) if limited else None
        try:
            outcome: Outcome[T] = await job.future
            return outcome
        except (TimeLimitError, asyncio.CancelledError):
            self._abandon(job)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def run_async(self, function: Callable[[], Awaitable[T]]) -> Outcome[T]:
        """Awaits a coroutine on the event loop; cancels it at the time limit.

        Raises:
            OverloadedError: Too many calls wait.
            TimeLimitError: The limit passed.
        """
        self._admit()
        task = asyncio.ensure_future(self._in_slot(function))
        task.add_done_callback(lambda _: self._release())
        try:
            done, _ = await asyncio.wait({task}, timeout=self._timeout)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            self._overdue += 1
            task.add_done_callback(self._end_overdue)
            raise self._time_limit()
        if task.cancelled():
            return Outcome(error=asyncio.CancelledError())
        return task.result()

    async def stream(self, function: Callable[[], Iterator[T]]) -> AsyncGenerator[Outcome[T], None]:
        """Iterates a generator on a thread, an item each time one is asked for.

        Yields:
            Its items; last, where it raises, its error.

        Raises:
            OverloadedError: Too many calls wait.
            TimeLimitError: An item took too long.
        """
        pump = GeneratorBridge(function, asyncio.get_running_loop())
        job = Job(pump.run)
        job.expect()
        self._submit(job)
        try:
            while True:
                item = asyncio.ensure_future(pump.next())
                waited: set[asyncio.Future[Any]] = {item, job.future}
                await asyncio.wait(
                    waited, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED
                )
                if item.done():
                    yield Outcome(item.result())
                    continue
                item.cancel()
                if not job.future.done():
                    self._expire(job)
                outcome = job.future.result()
                if outcome.error is not None:
                    yield Outcome(error=outcome.error)
                return
        finally:
            pump.stop()
            self._abandon(job)

    async def stream_async(
        self, function: Callable[[], AsyncIterator[T]]
    ) -> AsyncGenerator[Outcome[T], None]:
        """Iterates an async generator on the event loop, in a slot; else as `stream`."""
        self._admit()
        try:
            async with self._slot():
                items = function()
                try:
                    while True:
                        task = asyncio.ensure_future(_next(items))
                        try:
                            done, _ = await asyncio.wait({task}, timeout=self._timeout)
                        finally:
                            task.cancel()
                        if not done:
                            raise self._time_limit()
                        outcome = task.result()
                        if isinstance(outcome.error, StopAsyncIteration):
                            return
                        yield outcome
                        if outcome.error is not None:
                            return
                finally:
                    await _close(items)
        finally:
            self._release()

    async def drain(self, seconds: float) -> bool:
        """Waits for calls to end; False where some still run after that time."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Ends the threads, once they have done what is queued."""
        for _ in self._threads:
            self._jobs.append(None)
            self._wakeup.release()
        self._threads = []

    def _admit(self) -> None:
        if self._admitted >= self._concurrency + self._max_queue:
            raise OverloadedError(
                f'model "{self._model_name}" is at its limit: {self._concurrency} calls at a '
                f"time (serving.concurrency) and {self._max_queue} waiting (serving.max_queue)"
            )
        self._admitted += 1
        self._idle.clear()

    def _release(self) -> None:
        self._admitted -= 1
        if not self._admitted:
            self._idle.set()

    def _time_limit(self) -> TimeLimitError:
        return TimeLimitError(
            f'call of model "{self._model_name}" passed its time limit of '
            f"{self._timeout:g} s (serving.timeout)"
        )

    def _submit(self, job: Job) -> None:
        self._admit()
        if not self._threads:
            self._start_threads()
        self._jobs.append(job)
        self._wakeup.release()

    def _expire(self, job: Job) -> None:
        if job.future.done():
            return
        job.future.set_exception(self._time_limit())
        job.overdue = True
        self._overdue += 1

    def _abandon(self, job: Job) -> None:
        """Takes a job that has not begun out of the queue; one that has keeps its slot."""
        if job.ended or not job.claim():
            return
        self._end(job)

    def _end(self, job: Job) -> None:
        job.ended = True
        self._release()
        if job.overdue:
            self._overdue -= 1

    def _end_overdue(self, _: asyncio.Future[Any]) -> None:
        self._overdue -= 1

    async def _in_slot(self, function: Callable[[], Awaitable[T]]) -> Outcome[T]:
        async with self._slots:
            try:
                return Outcome(await function())
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                return Outcome(error=error)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Waits for a slot, no longer than a call may take."""
        try:
            await asyncio.wait_for(self._slots.acquire(), self._timeout)
        except asyncio.TimeoutError:
            raise self._time_limit() from None
        try:
            yield
        finally:
            self._slots.release()

    def _start_threads(self) -> None:
        for number in range(self._concurrency):
            name = f"pyfunc-{self._model_name}-{number}"
            # Daemons, so that a call that never ends cannot keep the server from exiting.
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            if not job.claim():
                continue
            started = time.perf_counter()
            try:
                job.outcome = Outcome(job.context.run(job.function))
            except BaseException as error:
                job.outcome = Outcome(error=error)
            self._typical_seconds += (time.perf_counter() - started - self._typical_seconds) / 8
            job.done.release()
            if not job.awaited:
                continue
            try:
                job.loop.call_soon_threadsafe(self._finish, job)
            except RuntimeError:  # the loop is closed
                return

    def _next_job(self) -> Job | None:
        """For the threads: waits for the next job; None where there is none to come."""
        self._wakeup.acquire()
        return self._jobs.popleft()

    def _finish(self, job: Job) -> None:
        if job.ended:
            return
        self._end(job)
        if not job.future.done():
            job.future.set_result(job.outcome)


async def _next(items: AsyncIterator[T]) -> Outcome[T]:
    try:
        return Outcome(await items.__anext__())
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return Outcome(error=error)


async def _close(items: Any) -> None:
    close = getattr(items, "aclose", None)
    if close is None:
        return
    try:
        await close()
    except asyncio.CancelledError:
        raise
    except BaseException:
        return
