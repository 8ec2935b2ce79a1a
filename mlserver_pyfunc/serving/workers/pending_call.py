"""A call that waits for a worker or runs on one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.serving.metrics import Wait
from mlserver_pyfunc.serving.runner import Answer

if TYPE_CHECKING:
    from .worker import Worker


class PendingCall:
    """A call that waits for a worker or runs on one.

    Attributes:
        call: What is asked.
        number: Names it in messages.
        deadline: When its time limit passes, in the event loop's time.
        future: Its answer; for a stream the next item, None at the end.
        failure: Of a stream, where nobody waits for an item.
        wait: Its time in the queue, where it had to wait.
        worker: Where it runs; None while it waits.
        retried: It was on a worker that died.
        begun: An item of its stream was given.
    """

    __slots__ = (
        "begun",
        "call",
        "deadline",
        "failure",
        "future",
        "number",
        "retried",
        "wait",
        "worker",
    )

    def __init__(
        self, call: InferenceCall, number: int, future: asyncio.Future[Answer | None]
    ) -> None:
        self.call = call
        self.number = number
        self.future = future
        self.failure: RequestError | None = None
        self.deadline = 0.0
        self.wait: Wait | None = None
        self.worker: Worker | None = None
        self.retried = False
        self.begun = False

    def fail(self, error: RequestError) -> None:
        """Gives the error to whoever waits, or to the next who does."""
        self.failure = error
        if not self.future.done():
            self.future.set_exception(error)

    def end_wait(self) -> None:
        if self.wait is not None:
            self.wait.end()


class Deadlines:
    """Tells of calls whose time limit passes, by one timer for all: limits are alike.

    Args:
        seconds: That a call has.
        expire: Takes a call whose time has passed.
    """

    def __init__(self, seconds: float, expire: Callable[[PendingCall], None]) -> None:
        self._seconds = seconds
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, PendingCall] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, pending: PendingCall) -> None:
        """Gives a call its time, from now on."""
        pending.deadline = self._loop.time() + self._seconds
        self._calls.pop(pending.number, None)
        self._calls[pending.number] = pending
        if self._timer is None:
            self._timer = self._loop.call_at(pending.deadline, self._check)

    def stop(self, pending: PendingCall) -> None:
        """Takes a call's time as not passing."""
        self._calls.pop(pending.number, None)

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        # In the order in which they were started.
        while self._calls:
            pending = next(iter(self._calls.values()))
            if pending.deadline > now:
                self._timer = self._loop.call_at(pending.deadline, self._check)
                return
            del self._calls[pending.number]
            self._expire(pending)
