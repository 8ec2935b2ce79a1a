"""Calls that wait for a worker or run on one, and the end of their time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.serving.metrics import Wait
from mlserver_pyfunc.serving.runner import Answer

if TYPE_CHECKING:  # a worker holds its calls
    from .worker import Worker


@dataclass(slots=True, eq=False)
class PendingCall:
    """A call that waits for a worker or runs on one.

    Attributes:
        deadline: When the caller gets the error of the time limit, in the event loop's time.
        runs_until: When the call has run for its time limit, in the event loop's time; 0 while
            it has not begun.
        future: Answer of the call; for a stream its next item, None at the end.
        failure: Error of a stream that came while nobody waited for an item.
        wait: Time in the queue, for the metrics; None if the call never waited.
        retried: Whether the call was already running on a worker that died.
        begun: Whether the stream has given an item.
    """

    call: InferenceCall
    number: int
    future: asyncio.Future[Answer | None]
    failure: RequestError | None = None
    deadline: float = 0.0
    runs_until: float = 0.0
    wait: Wait | None = None
    worker: Worker | None = None
    retried: bool = False
    begun: bool = False

    def fail(self, error: RequestError) -> None:
        """Raises an error in the caller, now or when it next asks for an item."""
        self.failure = error
        if not self.future.done():
            self.future.set_exception(error)

    def end_wait(self) -> None:
        """Ends the call's time in the queue."""
        if self.wait is not None:
            self.wait.end()


class Deadlines:
    """Expires calls with one shared timer.

    All calls have the same time limit, so they expire in the order in which they were started.
    A timer for each call would cost a push and a pop of the event loop's heap for each.
    """

    def __init__(self, seconds: float, expire: Callable[[PendingCall], None]) -> None:
        self._seconds = seconds
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, PendingCall] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, call: PendingCall) -> None:
        """Starts, or starts again, the time of a call."""
        call.deadline = self._loop.time() + self._seconds
        self._calls.pop(call.number, None)
        self._calls[call.number] = call
        if self._timer is None:
            self._timer = self._loop.call_at(call.deadline, self._check)

    def stop(self, call: PendingCall) -> None:
        """Stops the time of a call, which then never expires."""
        self._calls.pop(call.number, None)

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._calls:
            call = next(iter(self._calls.values()))
            if call.deadline > now:
                self._timer = self._loop.call_at(call.deadline, self._check)
                return
            del self._calls[call.number]
            self._expire(call)
