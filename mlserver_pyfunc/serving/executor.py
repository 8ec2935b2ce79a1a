"""Runs a function's calls in the server's process, with limits on concurrency, queue and time.

docs/design/calls.md says on which threads, and how calls and results pass between them.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mlserver_pyfunc.errors import TimeLimitError
from mlserver_pyfunc.handler.outcome import Outcome, outcome_of, outcome_of_task

from . import limits
from .relay import Relay
from .workers.wire.durations import BRIEF_SECONDS

T = TypeVar("T")

_JOIN_SECONDS = 5
_ONE = (1).to_bytes(8, sys.byteorder)


@dataclass(slots=True, eq=False)
class Job:
    """One call that a thread is to run, unless the event loop drops it: see `claim`."""

    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    outcome: Outcome[Any] = field(default_factory=Outcome)
    done: threading.Lock = field(default_factory=threading.Lock)  # released at the end of the call
    wants_wakeup: bool = False  # whether the thread must wake the event loop then
    future: asyncio.Future[None] = field(init=False)  # until then, if the wakeup is requested
    ended: bool = False  # whether the job no longer counts as active
    deadline: float | None = None  # of the time limit, if the call waits, by time.monotonic()
    began: float = 0.0  # by time.monotonic(); 0 before
    counts: bool = False  # whether its duration is one of those that calls typically have
    _claim: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.done.acquire()

    def take_outcome(self) -> Outcome[Any]:
        """Takes the outcome of a call that has ended, so that its thread cannot free the result."""
        outcome, self.outcome = self.outcome, Outcome()
        return outcome

    def claim(self) -> bool:
        """Takes the job, to run it or to drop it. Returns False if it is already taken."""
        return self._claim.acquire(blocking=False)

    def request_wakeup(self) -> None:
        self.future = self.loop.create_future()
        self.wants_wakeup = True

    def wait_briefly(self, seconds: float) -> bool:
        """Waits until the call has ended, and returns whether it has: see docs/design/calls.md."""
        if self.done.acquire(blocking=False):
            return True
        if seconds and self.done.acquire(timeout=seconds):
            return True
        self.request_wakeup()
        # The thread reads `wants_wakeup` after it releases `done`: at least one side notices.
        return self.done.acquire(blocking=False)


class WakeupSemaphore:
    """A counting semaphore that hands work to threads, by an eventfd: see docs/design/calls.md."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False

    def release(self) -> None:
        os.write(self._fd, _ONE)

    def acquire(self) -> None:
        os.read(self._fd, len(_ONE))


def new_semaphore() -> WakeupSemaphore | threading.Semaphore:
    """Makes a semaphore that wakes threads. Systems without eventfd have Python's own."""
    return WakeupSemaphore() if hasattr(os, "eventfd") else threading.Semaphore(0)


class Executor:
    """Runs calls on threads or on the event loop. All methods are for the event loop's thread."""

    def __init__(self, model_name: str, concurrency: int, max_queue: int, timeout: float) -> None:
        self.active = limits.ActiveCalls()
        self._model_name = model_name
        self._concurrency = concurrency
        self._max_queue = max_queue
        self._limit = limits.TimeLimit(model_name, timeout)
        self._overdue: set[Job | asyncio.Task[Any]] = set()  # past their time limit, still running
        self._slots = asyncio.Semaphore(concurrency)
        self._jobs: deque[Job | None] = deque()
        self._wakeup = new_semaphore()
        self._threads: list[threading.Thread] = []

    @property
    def is_full(self) -> bool:
        return self.active.count >= self._concurrency

    @property
    def has_slot(self) -> bool:
        """Whether a call could run: some slot is free of calls that passed their time limit."""
        return len(self._overdue) < self._concurrency

    async def run(self, function: Callable[[], T], *, limited: bool = True) -> Outcome[T]:
        """Calls a function on a thread.

        Raises an OverloadedError if the queue is full, and a TimeLimitError if the time limit
        passed, or the call has waited and can no longer end within it. A call that has begun
        keeps its slot until it ends.
        """
        # A wait blocks the event loop, so it must be short, and no other call may need the loop.
        waits = not self.active.count and self._limit.typical.seconds < BRIEF_SECONDS / 2
        job = Job(function)
        job.counts = limited
        if limited and self.is_full:
            job.deadline = time.monotonic() + self._limit.seconds
        self._submit(job)
        if job.wait_briefly(BRIEF_SECONDS if waits else 0):
            self._end(job)
            return job.take_outcome()
        timer = job.loop.call_later(self._limit.seconds, self._expire, job) if limited else None
        try:
            await job.future
            return job.take_outcome()
        except (TimeLimitError, asyncio.CancelledError):
            self._abandon(job)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def run_async(self, function: Callable[[], Awaitable[T]]) -> Outcome[T]:
        """Awaits a coroutine on the event loop; otherwise like `run`. The time limit cancels it."""
        self._admit()
        deadline = time.monotonic() + self._limit.seconds if self._slots.locked() else None
        task = asyncio.ensure_future(self._in_slot(function, deadline))
        task.add_done_callback(lambda _: self.active.remove())
        try:
            done, _ = await asyncio.wait({task}, timeout=self._limit.seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            return outcome_of_task(task)
        raise self._past_limit(task)

    async def stream(
        self, function: Callable[[], Generator[T, None, None]]
    ) -> AsyncGenerator[Outcome[T], None]:
        """Iterates a generator on a thread, at most `relay.AHEAD` items before its reader."""
        relay: Relay[T] = Relay(threading.Event())
        job = Job(lambda: relay.run(function()))
        job.request_wakeup()
        job.future.add_done_callback(relay.wake)
        self._submit(job)
        try:
            while await relay.ready(job.future, self._limit.seconds, lambda: self._expire(job)):
                while relay.items:
                    yield Outcome(relay.items.popleft())
            job.future.result()
            outcome: Outcome[T] = job.take_outcome()
            if outcome.error is not None:
                yield outcome
        finally:
            relay.leave()
            self._abandon(job)

    async def stream_async(
        self, function: Callable[[], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[Outcome[T], None]:
        """Iterates an async generator in a task; otherwise like `stream`."""
        self._admit()
        relay: Relay[T] = Relay(asyncio.Event())
        end = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._in_slot(lambda: relay.run_async(function()), None))

        def ended(_: object) -> None:
            self.active.remove()
            if not end.done():
                end.set_result(None)
            relay.wake()

        def expire() -> None:
            if not end.done():
                end.set_exception(self._past_limit(task))
                relay.wake()

        task.add_done_callback(ended)
        try:
            while await relay.ready(end, self._limit.seconds, expire):
                while relay.items:
                    yield Outcome(relay.items.popleft())
            end.result()
            if (error := outcome_of_task(task).error) is not None:
                yield Outcome(error=error)
        finally:
            task.cancel()

    def close(self) -> None:
        """Ends the threads after their jobs, and waits for idle ones: see docs/design/calls.md."""
        for _ in self._threads:
            self._jobs.append(None)
            self._wakeup.release()
        if not self.active.count:
            for thread in self._threads:
                thread.join(_JOIN_SECONDS)
        self._threads = []

    def _admit(self) -> None:
        if self.active.count >= self._concurrency + self._max_queue:
            running = f"{self._concurrency} calls at a time (serving.concurrency)"
            raise limits.queue_full(self._model_name, running, f"{self._max_queue}")
        self.active.add()

    def _submit(self, job: Job) -> None:
        self._admit()
        if not self._threads:
            names = [f"pyfunc-{self._model_name}-{n}" for n in range(self._concurrency)]
            # Daemon threads: a call that never ends must not keep the server from exiting.
            self._threads = [
                threading.Thread(target=self._work, name=name, daemon=True) for name in names
            ]
            for thread in self._threads:
                thread.start()
        self._jobs.append(job)
        self._wakeup.release()

    def _expire(self, job: Job) -> None:
        if job.future.done():
            return
        job.future.set_exception(self._limit.passed())
        self._note_overdue(job)

    def _note_overdue(self, job: Job) -> None:
        """Counts a job as overdue, as soon as it has run for its time limit."""
        if job.ended or not job.began:
            return
        remaining = job.began + self._limit.seconds - time.monotonic()
        if remaining > 0:
            job.loop.call_later(remaining, self._note_overdue, job)
            return
        self._overdue.add(job)

    def _abandon(self, job: Job) -> None:
        """Drops a job that has not begun. A job that has begun keeps its slot until it ends."""
        if job.ended or not job.claim():
            return
        with suppress(ValueError):  # a thread has it, and finds that it cannot claim it
            self._jobs.remove(job)
        self._end(job)

    def _end(self, job: Job) -> None:
        job.ended = True
        self.active.remove()
        self._overdue.discard(job)

    def _past_limit(self, task: asyncio.Task[Any]) -> TimeLimitError:
        """Cancels a task, which is overdue until it ends, and returns the error for its caller."""
        task.cancel()
        self._overdue.add(task)
        task.add_done_callback(self._overdue.discard)
        return self._limit.passed()

    async def _in_slot(
        self, function: Callable[[], Awaitable[T]], deadline: float | None
    ) -> Outcome[T]:
        async with self._slots:
            began = time.monotonic()
            if deadline is not None and (error := self._limit.too_late(deadline - began)):
                return Outcome(error=error)
            outcome = await outcome_of(function)
            self._limit.typical.add(time.monotonic() - began)
            return outcome

    def _work(self) -> None:
        """Runs jobs until there is a None in the queue. Runs on a thread."""
        while True:
            self._wakeup.acquire()
            try:
                job = self._jobs.popleft()
            except IndexError:  # the event loop has removed the job
                continue
            if job is None:
                return
            job.began = time.monotonic()
            if job.claim():
                self._run_job(job)
            del job  # frees its tensors while the thread waits for the next job

    def _run_job(self, job: Job) -> None:
        if job.deadline is not None and (error := self._limit.too_late(job.deadline - job.began)):
            job.outcome = Outcome(error=error)
        else:
            try:
                job.outcome = Outcome(job.context.run(job.function))
            except BaseException as error:
                job.outcome = Outcome(error=error)
            if job.counts:
                self._limit.typical.add(time.monotonic() - job.began)
        job.done.release()
        if job.wants_wakeup:
            with suppress(RuntimeError):  # the loop is closed
                job.loop.call_soon_threadsafe(self._finish, job)

    def _finish(self, job: Job) -> None:
        if job.ended:
            return
        self._end(job)
        if not job.future.done():
            job.future.set_result(None)
        else:
            job.take_outcome()
