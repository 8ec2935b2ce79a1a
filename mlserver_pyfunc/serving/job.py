"""What passes between the event loop and a handler's thread: jobs, outcomes, items."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mlserver_pyfunc.handler.outcome import Outcome

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job:
    """One call that a thread is to run.

    The thread and the event loop both call `claim`: the thread to run the job, the event loop
    to drop it. The first one decides.

    Attributes:
        outcome: Outcome of the call, once `done` is released.
        done: Lock that the thread releases when the call has ended.
        wants_wakeup: Whether the thread must wake the event loop when the call has ended.
        future: Awaited by the event loop until the call ends. Made by the request for a wakeup.
        ended: Whether the job no longer counts as active.
        deadline: When the time limit passes, in seconds of the monotonic clock; None without
            a limit, and for a call that does not wait.
        began: When the call began, in seconds of the monotonic clock; 0 before.
        counts: Whether the duration of the call is one of those that calls typically have.
        overdue: Whether the call has run for longer than its time limit.
    """

    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    outcome: Outcome[Any] = field(default_factory=Outcome)
    done: threading.Lock = field(default_factory=threading.Lock)
    wants_wakeup: bool = False
    future: asyncio.Future[None] = field(init=False)
    ended: bool = False
    deadline: float | None = None
    began: float = 0.0
    counts: bool = False
    overdue: bool = False
    _claim: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.done.acquire()

    def take_outcome(self) -> Outcome[Any]:
        """Takes the outcome of a call that has ended. For the event loop's thread.

        The call's thread may hold the job for a moment longer, but must not free the result.
        """
        outcome, self.outcome = self.outcome, Outcome()
        return outcome

    def claim(self) -> bool:
        """Takes the job, to run it or to drop it. Returns False if it is already taken."""
        return self._claim.acquire(blocking=False)

    def request_wakeup(self) -> None:
        """Asks the thread to wake the event loop when the call has ended."""
        self.future = self.loop.create_future()
        self.wants_wakeup = True

    def wait_briefly(self, seconds: float) -> bool:
        """Blocks the event loop until the call has ended, for a limited time.

        The problem: a handler of a few microseconds costs less than handing its result back.
        `call_soon_threadsafe` writes to the loop's self-pipe, then the loop wakes, reads the
        pipe and runs the callback. An asyncio lock or queue does not help, because it needs
        the same callback. Running the handler on the event loop does not
        work either: nobody knows beforehand whether this call blocks.

        The solution: the event loop waits on a plain lock for at most `seconds`, which is about
        what the wakeup would cost. Nothing else is delayed by more than that. The executor does
        so only if calls are typically shorter and no other call is active.

        Args:
            seconds: Longest time to block; 0 only looks whether the call has ended.

        Returns:
            Whether the call has ended. If not, its thread will wake the event loop.
        """
        if self.done.acquire(blocking=False):
            return True
        if seconds and self.done.acquire(timeout=seconds):
            return True
        self.request_wakeup()
        # The call may end between the timeout and the request. The thread reads `wants_wakeup`
        # after it releases `done`, so at least one side notices. `Executor._finish` ignores a
        # job that has already ended.
        return self.done.acquire(blocking=False)


class GeneratorBridge(Generic[T]):
    """Carries the items of a generator from its thread to the event loop, one on each request."""

    def __init__(
        self, function: Callable[[], Generator[T, None, None]], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._function = function
        self._loop = loop
        self._requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._items: asyncio.Queue[T] = asyncio.Queue()

    def run(self) -> None:
        """Iterates the generator until it ends or `stop` is called. Runs on the thread."""
        with closing(self._function()) as items, suppress(StopIteration):
            while self._requests.get():
                # Without a name for the item, which would live until the next one.
                self._loop.call_soon_threadsafe(self._items.put_nowait, next(items))

    async def next(self) -> T:
        """Requests an item and waits for it. Runs on the event loop."""
        self._requests.put(True)
        return await self._items.get()

    def stop(self) -> None:
        """Ends the generator at the next request."""
        self._requests.put(False)
